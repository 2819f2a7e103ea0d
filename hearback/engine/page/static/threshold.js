"use strict";
/** A threshold, and a band around it of recordings that go to a person. */

(() => {
  const { page, el, bdi, scrolling, table, numberCell, makeButton, charts } = hearback;
  const { isLabelled, nRecordings } = hearback;
  const { isKnown, number, percent, count, plural, labelName } = hearback.format;
  const N_POINTS = 60; // of the curve
  const MOST = 0.9; // share that goes to a person, at the end of the curve

  const view = () => document.getElementById("threshold-view");

  /** Return [prediction, label] of every recording that the model predicted. */
  function pairs(state) {
    const predictions = page.recordings.predictions[state.model] ?? [];
    const labels = page.recordings.labels ?? [];
    return predictions
      .map((value, index) => [value, labels[index]])
      .filter(([value]) => isKnown(value));
  }

  /** Return how many recordings the model has no score of: without labels, a person hears them. */
  const countUnscored = (known) => (isLabelled ? 0 : nRecordings - known.length);

  /** Return a share as the label of an axis, without digits that it does not need. */
  const tick = (share) => `${Number((100 * share).toFixed(1))} %`;
  const isWrong = ([value, label], threshold) => value >= threshold !== (label === 1);
  /** Whether it is inside of the band. Its lower end is outside, unless the threshold is there. */
  const isDoubtful = ([value], { t, lo, hi }) =>
    value < hi && (value > lo || (value === lo && lo === t));
  const shareOf = (part, whole) => (whole.length ? part.length / whole.length : null);

  /** Return counts, by label if there are any: below, to a person, and from the threshold on. */
  function counts(known, state) {
    const rows = isLabelled
      ? [
          [0, 0, 0],
          [0, 0, 0],
        ]
      : [[0, 0, 0]];
    for (const pair of known) {
      const column = isDoubtful(pair, state) ? 1 : pair[0] < state.t ? 0 : 2;
      rows[isLabelled ? pair[1] : 0][column] += 1;
    }
    return rows;
  }

  /** Return shares that go to a person, and of errors among the others: the nearest go first. */
  function abstention(known, threshold) {
    const nearest = known
      .map((pair) => [Math.abs(pair[0] - threshold), isWrong(pair, threshold)])
      .sort((a, b) => a[0] - b[0]);
    const errorsFrom = new Array(nearest.length + 1).fill(0); // among all but the first ones
    for (let at = nearest.length - 1; at >= 0; at -= 1)
      errorsFrom[at] = errorsFrom[at + 1] + nearest[at][1];
    const nPoints = Math.min(N_POINTS, nearest.length);
    return Array.from({ length: nPoints + 1 }, (_, step) => {
      const n = Math.floor((MOST * nearest.length * step) / (nPoints || 1));
      return [n / (nearest.length || 1), errorsFrom[n] / (nearest.length - n || 1)];
    });
  }

  function slider(key, label) {
    const output = el("output", { for: `slider-${key}` });
    const input = el("input", {
      type: "range",
      id: `slider-${key}`,
      min: 0,
      max: 1,
      step: 0.01,
      oninput: () => move(key, Number(input.value)),
    });
    return {
      node: el(
        "div",
        { class: "slider" },
        el("label", { for: `slider-${key}` }, label),
        input,
        output,
      ),
      input,
      output,
    };
  }

  /** Move one of the three. The threshold leaves the band as it was chosen: it can come back. */
  function move(key, value) {
    const state = hearback.state.get();
    hearback.state.set(key === "t" ? { t: value } : movedEnd(key, value, state), { replace: true });
  }

  /** Return the band with an end moved, at most up to the threshold. */
  function movedEnd(key, value, state) {
    const isEmpty = state.lo === state.hi;
    const { lo, hi } = isEmpty ? hearback.state.band(state) : state;
    if (key === "lo") {
      const moved = Math.min(value, state.t);
      return { lo: moved, hi: hi < moved ? state.t : hi };
    }
    const moved = Math.max(value, state.t);
    return { hi: moved, lo: lo > moved ? state.t : lo };
  }

  function reset() {
    const { t, lo, hi } = hearback.state.DEFAULTS;
    hearback.state.set({ t, lo, hi });
  }

  function countTable(rows, nUnscored) {
    const names = isLabelled ? [1, 0] : [0];
    const marks = { 1: ["false alarm", null, "right"], 0: ["right", null, "miss"] };
    const body = names.map((label) =>
      el(
        "tr",
        {},
        el(
          "th",
          { scope: "row" },
          isLabelled ? ["Really “", bdi(labelName(label)), "”"] : "Recordings",
        ),
        rows[label].map((n, column) => {
          const mark = isLabelled ? marks[label][column] : null;
          return el(
            "td",
            { class: mark && mark !== "right" ? "n wrong" : "n" },
            count(n),
            mark
              ? el(
                  "span",
                  { class: "interval" },
                  ` ${mark}${n === 1 || mark === "right" ? "" : mark === "miss" ? "es" : "s"}`,
                )
              : null,
          );
        }),
        nUnscored ? numberCell(count(nUnscored)) : null,
      ),
    );
    const heads = ["Model says", `#“${labelName(0)}”`, "#To a person", `#“${labelName(1)}”`];
    return table(nUnscored ? [...heads, "#No score"] : heads, body, { id: "threshold-table" });
  }

  /** Return how many new recordings go to a person, also those without a score, and why. */
  function sentenceOfNew(known, rest, state) {
    const nUnscored = countUnscored(known);
    const nUnsure = known.length - rest.length;
    const n = nUnsure + nUnscored;
    const nBelow = rest.filter(([value]) => value < state.t).length;
    const reasons = [
      nUnsure ? `${count(nUnsure)} ${nUnsure === 1 ? "is" : "are"} in the band` : "",
      nUnscored ? `${count(nUnscored)} ${nUnscored === 1 ? "has" : "have"} no score` : "",
    ].filter(Boolean);
    const why = nUnscored ? ` (${reasons.join(", ")})` : "";
    const share = `${percent(n / (nRecordings || 1))} of ${plural(nRecordings, "recording")}`;
    const others = `${count(nBelow)} of the others ${nBelow === 1 ? "counts" : "count"}`;
    return `${share} ${n === 1 ? "goes" : "go"} to a person${why}; ${others} as “${labelName(0)}”.`;
  }

  function sentence(known, state) {
    const rest = known.filter((pair) => !isDoubtful(pair, state));
    const toPerson = 1 - rest.length / (known.length || 1);
    const isEmpty = rest.length === known.length;
    if (!isLabelled) return sentenceOfNew(known, rest, state);
    const wrong = known.filter((pair) => isWrong(pair, state.t));
    const wrongRest = rest.filter((pair) => isWrong(pair, state.t));
    if (isEmpty)
      return [
        `${percent(shareOf(wrong, known))} of ${plural(known.length, "recording")} are wrong`,
        "at this threshold, and none goes to a person. Widen the band to send the doubtful ones.",
      ].join(" ");
    const [before, after] = [shareOf(wrong, known), shareOf(wrongRest, rest)];
    const verb = !isKnown(after) || after < before ? "fall" : after > before ? "rise" : "stay";
    const change =
      verb === "stay"
        ? `stay at ${percent(before)}`
        : `${verb} from ${percent(before)} to ${percent(after)}`;
    return `${percent(toPerson)} go to a person; errors of the others ${change}.`;
  }

  function drawCurve(node, known, state) {
    const rest = known.filter((pair) => !isDoubtful(pair, state));
    const here = [
      1 - rest.length / (known.length || 1),
      shareOf(
        rest.filter((pair) => isWrong(pair, state.t)),
        rest,
      ),
    ];
    const curve = abstention(known, state.t);
    const points = [...curve.map(([x, y]) => [x, y, null]), [here[0], null, here[1]]].sort(
      (a, b) => a[0] - b[0],
    );
    const most = Math.max(...curve.map(([, y]) => y), here[1] ?? 0, 0.01);
    charts.lines(node, {
      x: points.map(([x]) => x),
      lines: [
        { values: points.map(([, y]) => y), color: "--blue", width: 2 },
        { values: points.map(([, , y]) => y), color: "--text", hasPoints: true },
      ],
      xLabel: "share that goes to a person",
      yLabel: "errors of the others",
      xFormat: tick,
      yFormat: tick,
      xRange: [0, 1],
      yRange: [0, most * 1.1],
      summary: "Errors of the others by the share that goes to a person; the table has the numbers",
    });
  }

  function curveTable(known, state) {
    const curve = abstention(known, state.t);
    const every = Math.max(1, Math.round((curve.length - 1) / 9));
    const rows = curve
      .filter((_, at) => at % every === 0)
      .map(([share, errors]) =>
        el(
          "tr",
          {},
          el("th", { scope: "row", class: "n" }, percent(share)),
          numberCell(percent(errors)),
        ),
      );
    return table(["#Go to a person", "#Errors of the others"], rows);
  }

  function build() {
    const sliders = {
      t: slider("t", "Threshold"),
      lo: slider("lo", "To a person above"),
      hi: slider("hi", "and below"),
    };
    const parts = {
      sliders,
      reset: makeButton({ id: "threshold-reset", onclick: reset }, "Reset"),
      sentence: el("p", { class: "sentence", id: "threshold-sentence" }),
      counts: el("div"),
      curve: el("div", { class: "chart" }),
      curveTable: el("div"),
    };
    const left = el(
      "div",
      {},
      Object.values(sliders).map((each) => each.node),
      el("div", { class: "row" }, parts.reset),
      parts.sentence,
      parts.counts,
    );
    const right = isLabelled
      ? el(
          "div",
          {},
          parts.curve,
          el("details", {}, el("summary", {}, "Table of the curve"), parts.curveTable),
        )
      : null;
    view().replaceChildren(el("div", { class: "beside even" }, left, right));
    return parts;
  }

  hearback.threshold = {
    start() {
      if (!view()) return;
      const parts = build();
      hearback.state.follow(["model", "t", "lo", "hi"], (chosen) => {
        const state = { ...chosen, ...hearback.state.band(chosen) };
        const known = pairs(state);
        for (const [key, each] of Object.entries(parts.sliders)) {
          each.input.value = state[key];
          each.output.textContent = number(state[key], 2);
        }
        parts.sentence.textContent = sentence(known, state);
        parts.counts.replaceChildren(
          scrolling(
            "Counts at the threshold",
            countTable(counts(known, state), countUnscored(known)),
          ),
        );
        if (!isLabelled) return;
        drawCurve(parts.curve, known, state);
        parts.curveTable.replaceChildren(curveTable(known, state));
      });
    },
  };
})();
