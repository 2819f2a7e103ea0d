"use strict";
/**
 * Reads a corrections.csv, as the training does: with commas, semicolons, tabs or "|", labels as
 * numbers or names. Nothing here touches the page.
 */

(() => {
  const { page, isBinary } = hearback;
  const VERDICTS = ["agree", "wrong_label", "unscorable"];
  const SEPARATORS = [",", ";", "\t", "|"];
  const COLUMNS = {
    filename: ["filename", "file", "path", "audio", "clip", "recording", "snippet"],
    verdict: ["verdict", "decision", "judgement", "judgment", "opinion"],
    score: ["score"],
    note: ["note"],
  };

  /** @typedef {{filename: string, verdict: string, score: string, note: string}} Row */

  /** Return the letters and digits of a name, in lower case. */
  const keyOf = (name) => name.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "");
  const verdictOf = new Map(VERDICTS.map((verdict) => [keyOf(verdict), verdict]));

  /** Return the rows of a CSV, cells as text. */
  function parseCsv(content, separator) {
    const rows = [[]];
    const plain = `[^"${separator}\\r\\n][^${separator}\\r\\n]*|`;
    const cell = new RegExp(` *("(?:[^"]|"")*"|${plain}) *([${separator}]|\\r?\\n|\\r|$)`, "gy");
    while (cell.lastIndex < content.length) {
      const match = cell.exec(content);
      if (!match) throw new Error("a quote in it is not closed");
      const [, value, end] = match;
      rows.at(-1).push(value.startsWith('"') ? value.slice(1, -1).replaceAll('""', '"') : value);
      if (end !== separator && cell.lastIndex < content.length) rows.push([]);
    }
    return rows.filter((row) => row.length > 1 || row[0]);
  }

  /** Return the content of a table, and its separator: that of a line "sep=;", else the commonest in the header. */
  function separated(text) {
    const content = text.replace(/^\uFEFF/, "");
    const named = /^"?sep=([,;\t|])"?[,;\t|]*\r?\n/i.exec(content);
    if (named) return [content.slice(named[0].length), named[1]];
    const head = content.split(/[\r\n]/, 1)[0];
    const counts = SEPARATORS.map((each) => head.split(each).length);
    return [content, SEPARATORS[counts.indexOf(Math.max(...counts))]];
  }

  /** Return the index of a label, as text, from its name or number in the file; "" if unknown. */
  function labelOf(written) {
    const word = written.toLowerCase();
    const names = page.label_names.map((name) => name.toLowerCase());
    if (names.includes(word)) return String(names.indexOf(word));
    if (isBinary && ["false", "true"].includes(word)) return String(Number(word === "true"));
    const [, number] = /^(\d+)(?:[.,]0*)?$/.exec(word) ?? [];
    return number !== undefined && Number(number) < names.length ? String(Number(number)) : "";
  }

  /**
   * Return the rows of a corrections.csv: verdicts and labels as the page has them, and
   * `written`, the score as it is in the file. An unknown verdict becomes "".
   * @returns {Array<Row & {written: string}>}
   */
  function rowsOf(text) {
    const [head = [], ...rows] = parseCsv(...separated(text));
    const keys = head.map(keyOf);
    const at = (name) => keys.findIndex((key) => COLUMNS[name].includes(key));
    if (at("filename") < 0 || at("verdict") < 0) {
      throw new Error(
        "the file has no columns “filename” and “verdict”: choose a corrections.csv of this page",
      );
    }
    return rows.map((row) => {
      const cell = (name) => (row[at(name)] ?? "").trim();
      const verdict = verdictOf.get(keyOf(cell("verdict"))) ?? "";
      const written = verdict === "wrong_label" ? cell("score") : "";
      const [filename, note] = [cell("filename"), cell("note")];
      return { filename, verdict, score: labelOf(written), note, written };
    });
  }

  hearback.imports = { rowsOf };
})();
