"use strict";
/** Learning curves as small multiples: one chart a model, one line a fold. */

(() => {
  const { page, el, bdi, charts } = hearback;
  const { isKnown, number, plural } = hearback.format;

  const view = () => document.getElementById("curves-view");
  /** Return whether a fold is stalled: one that was trained again and finished is not. */
  const hasStalled = (curve) => curve.attempts.at(-1)?.outcome === "stalled";

  /**
   * Return the range of all curves: the charts of the models can be compared. A spike goes out of
   * it, at twice the base rate: it would flatten all others.
   */
  function range() {
    const values = page.curves.flatMap((curve) => curve.validation).filter(isKnown);
    const kept = page.curves.map((curve) => curve.validation[curve.best_epoch]).filter(isKnown);
    const most = Math.max(2 * (page.base_rate_log_loss ?? Infinity), ...kept);
    const [low, high] = [Math.min(...values), Math.min(Math.max(...values), most)];
    const margin = 0.05 * (high - low) || 0.01;
    return [Math.max(0, low - margin), high + margin];
  }

  /** Return the lines of a fold: its losses, and a dot where it is best. */
  function lines(curve, x) {
    const values = x.map((epoch) => curve.validation[epoch] ?? null);
    const color = hasStalled(curve) ? "--orange" : "--blue";
    const best = x.map((epoch) => (epoch === curve.best_epoch ? curve.validation[epoch] : null));
    return [
      { values, color, isDashed: hasStalled(curve) },
      { values: best, color, hasPoints: true },
    ];
  }

  function draw(node, curves, yRange) {
    const n = Math.max(...curves.map((curve) => curve.validation.length));
    const x = Array.from({ length: n }, (_, epoch) => epoch);
    charts.lines(node, {
      x,
      lines: curves.flatMap((curve) => lines(curve, x)),
      xLabel: "epoch",
      yLabel: "log loss",
      xFormat: (value) => (Number.isInteger(value) ? String(value) : ""),
      yFormat: (value) => number(value, 2),
      xRange: [0, Math.max(1, n - 1)],
      yRange,
      height: 170,
      summary: `Learning curves of ${curves[0].model}; the table of the folds has their numbers`,
    });
  }

  function figure(model, curves) {
    const stalled = curves.filter(hasStalled);
    const node = el("div", { class: "chart" });
    const note = stalled.length
      ? el(
          "p",
          { class: "stalled" },
          `Stalled (dashed): fold ${stalled.map((curve) => curve.fold).join(", ")}`,
        )
      : null;
    return {
      node,
      figure: el(
        "figure",
        {},
        el("figcaption", {}, bdi(model), ` · ${plural(curves.length, "fold")}`),
        node,
        note,
      ),
    };
  }

  hearback.curves = {
    start() {
      if (!view()) return;
      const byModel = grouped();
      const yRange = range();
      const charted = [...byModel].map(([model, curves]) => ({ curves, ...figure(model, curves) }));
      view().replaceChildren(
        el(
          "div",
          { class: "multiples" },
          charted.map((each) => each.figure),
        ),
      );
      for (const each of charted) draw(each.node, each.curves, yRange);
    },
  };

  function grouped() {
    const byModel = new Map();
    for (const curve of page.curves)
      byModel.set(curve.model, [...(byModel.get(curve.model) ?? []), curve]);
    return byModel;
  }
})();
