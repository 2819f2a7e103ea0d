"use strict";
/** Files that the page gives: corrections.csv, and a TextGrid or JSON of a recording. */

(() => {
  const { page, el } = hearback;
  const { isKnown } = hearback.format;

  /** Return a cell of a CSV, in quotes where RFC 4180 needs them. */
  const csvCell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  const formatCsv = (rows) => rows.map((row) => `${row.map(csvCell).join(",")}\r\n`).join("");

  /** Return the verdicts, with the corrections that the page was made with: labels are theirs. */
  function corrections() {
    const carried = new Map(page.corrections.map(([filename, ...row]) => [filename, row]));
    const rows = new Map(carried);
    for (const [filename, { verdict, score, note }] of hearback.verdicts.entries()) {
      const given = [verdict, verdict === "wrong_label" ? score : ""];
      const before = carried.get(filename);
      // Who agrees with a corrected label wants the correction.
      const kept = verdict === "agree" ? before?.slice(0, 2) : null;
      rows.set(filename, [...(kept ?? given), note || (before?.[2] ?? "")]);
    }
    const cells = [...rows].map(([filename, row]) => [filename, ...row]);
    return formatCsv([["filename", "verdict", "score", "note"], ...cells]);
  }

  /** @typedef {[start: number, end: number, text: string]} Interval in s */

  /** Return intervals of the words and of their scores; the whole clip without times. */
  function intervals(index, seconds) {
    const words = page.recordings.words[index];
    const prediction = hearback.selection.prediction(index, hearback.state.get().model);
    const spans = (words?.words ?? [])
      .map((word, at) => [words.starts[at], words.ends[at], word, words.scores[at]])
      .filter(([start, end]) => isKnown(start) && isKnown(end));
    const scored = spans.filter((span) => isKnown(span[3]));
    const shown = isKnown(prediction)
      ? prediction.toFixed(2)
      : (hearback.selection.field("status", index, hearback.state.get().model) ?? "");
    return {
      words: spans.length
        ? spans.map((span) => span.slice(0, 3))
        : [[0, seconds, page.recordings.texts[index] ?? ""]],
      scores: scored.length
        ? scored.map(([start, end, , score]) => [start, end, score.toFixed(2)])
        : [[0, seconds, shown]],
    };
  }

  const rounded = (seconds) => Math.round(seconds * 1e4) / 1e4;

  /** Return intervals that cover 0 to `seconds` without gaps or overlaps, as Praat needs them. */
  function cover(spans, seconds) {
    const covered = [];
    let at = 0;
    for (const [first, last, text] of [...spans].sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
      const start = Math.max(rounded(first), at);
      const end = Math.min(rounded(last), seconds);
      if (end <= start) {
        if (covered.at(-1)?.[2]) covered.at(-1)[2] += ` ${text}`;
        continue;
      }
      if (start > at) covered.push([at, start, ""]);
      covered.push([start, end, text]);
      at = end;
    }
    if (at < seconds) covered.push([at, seconds, ""]);
    return covered;
  }

  const praatNumber = (seconds) => seconds.toFixed(6).replace(/\.?0+$/, "") || "0";
  const praatText = (text) => `"${text.replaceAll('"', '""')}"`;

  function tier([name, spans], position, end) {
    return [
      `    item [${position + 1}]:`,
      '        class = "IntervalTier"',
      `        name = ${praatText(name)}`,
      "        xmin = 0",
      `        xmax = ${end}`,
      `        intervals: size = ${spans.length}`,
      ...spans.flatMap(([start, stop, text], at) => [
        `        intervals [${at + 1}]:`,
        `            xmin = ${praatNumber(start)}`,
        `            xmax = ${praatNumber(stop)}`,
        `            text = ${praatText(text)}`,
      ]),
    ];
  }

  /** Return a recording's TextGrid, in Praat's long format, as score.py writes it. */
  function textGrid(index, seconds) {
    const end = praatNumber(seconds);
    const { words, scores } = intervals(index, seconds);
    const tiers = Object.entries({ words: cover(words, seconds), scores: cover(scores, seconds) });
    const lines = [
      'File type = "ooTextFile"',
      'Object class = "TextGrid"',
      "",
      "xmin = 0",
      `xmax = ${end}`,
      "tiers? <exists>",
      `size = ${tiers.length}`,
      "item []:",
      ...tiers.flatMap((each, position) => tier(each, position, end)),
    ];
    return `${lines.join("\n")}\n`;
  }

  /** Return all that the page knows about a recording, as JSON. */
  function recordingJson(index) {
    const { recordings } = page;
    const ofModels = (values) =>
      Object.fromEntries(Object.entries(values).map(([model, each]) => [model, each[index]]));
    const label = hearback.selection.label(index);
    return `${JSON.stringify(
      {
        filename: recordings.filenames[index],
        text: recordings.texts[index] ?? "",
        seconds: recordings.seconds[index] ?? null,
        label,
        label_name: label === null ? null : page.label_names[label],
        fields: Object.fromEntries(
          page.field_names.map((name) => [
            name,
            hearback.selection.field(name, index, hearback.state.get().model),
          ]),
        ),
        predictions: ofModels(recordings.predictions),
        predicted_classes: ofModels(recordings.predicted_classes),
        losses: ofModels(recordings.losses),
        words: recordings.words[index] ?? null,
        note: recordings.notes[index] ?? "",
        verdict: hearback.verdicts.get(recordings.filenames[index]),
        made_by: page.made_by,
      },
      null,
      2,
    )}\n`;
  }

  /** Return the name of a recording's file without its folder and suffix, for a file beside it. */
  const stem = (index) =>
    page.recordings.filenames[index]
      .split(/[\\/]/)
      .at(-1)
      .replace(/\.[^.]*$/, "")
      .replace(/[<>:"|?*\p{C}]/gu, "_") || "recording";

  function download(name, content, type) {
    const url = URL.createObjectURL(new Blob([content], { type }));
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  }

  hearback.exports = {
    formatCsv,
    corrections,
    textGrid,
    recordingJson,
    downloadCorrections: () => download("corrections.csv", corrections(), "text/csv"),
    downloadTextGrid: (index, seconds) =>
      download(`${stem(index)}.TextGrid`, textGrid(index, seconds), "text/plain"),
    downloadJson: (index) =>
      download(`${stem(index)}.json`, recordingJson(index), "application/json"),
  };
})();
