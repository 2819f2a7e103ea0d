"use strict";
/** How often a prediction is right: a curve with intervals, a histogram, and a table of bins. */

(() => {
  const { el, svg, bdi, scrolling, table, numberCell, select, makeButton } = hearback;
  const { isKnown, number, plural, estimate, labelName } = hearback.format;
  const SIZE = 300; // of the curve, in units of the SVG
  const PAD = { left: 44, right: 10, top: 8, histogram: 64, bottom: 40 };

  const view = () => document.getElementById("reliability-view");
  const name = (bin) => `${number(bin.low, 1)} to ${number(bin.high, 1)}`;
  const x = (value) => PAD.left + SIZE * value;
  const y = (value) => PAD.top + SIZE * (1 - value);

  function axes() {
    const parts = [];
    for (const tick of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
      const text = number(tick, 1);
      parts.push(
        svg("line", { class: "grid", x1: x(tick), x2: x(tick), y1: y(0), y2: y(1) }),
        svg("line", { class: "grid", x1: x(0), x2: x(1), y1: y(tick), y2: y(tick) }),
        svg("text", { x: PAD.left - 6, y: y(tick) + 4, "text-anchor": "end" }, text),
        svg("text", { x: x(tick), y: y(0) + PAD.histogram + 16, "text-anchor": "middle" }, text),
      );
    }
    return [...parts, svg("line", { class: "diagonal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) })];
  }

  function histogram(bins, chosen) {
    const most = Math.max(1, ...bins.map((bin) => bin.n));
    const height = PAD.histogram - 10;
    return bins.map((bin, index) =>
      svg("rect", {
        class: index === chosen ? "hist chosen" : "hist",
        x: x(bin.low) + 1,
        width: SIZE * (bin.high - bin.low) - 2,
        y: y(0) + PAD.histogram - (height * bin.n) / most,
        height: (height * bin.n) / most,
      }),
    );
  }

  function points(bins, chosen) {
    return bins
      .flatMap((bin, index) => {
        const [share, low, high] = bin.share;
        if (!isKnown(share)) return [];
        const at = x(bin.mean_prediction);
        const range =
          isKnown(low) && isKnown(high)
            ? svg("line", { class: "range", x1: at, x2: at, y1: y(low), y2: y(high) })
            : null;
        const isChosen = index === chosen;
        return [
          range,
          svg("circle", {
            class: isChosen ? "point chosen" : "point",
            cx: at,
            cy: y(share),
            r: isChosen ? 6 : 4.5,
          }),
        ];
      })
      .filter(Boolean);
  }

  /** Return wide invisible targets for the mouse; the buttons of the table are for everyone. */
  function targets(bins) {
    return bins.map((bin, index) =>
      svg("rect", {
        class: "target",
        x: x(bin.low),
        width: SIZE * (bin.high - bin.low),
        y: y(1),
        height: SIZE + PAD.histogram,
        onclick: () => choose(index),
      }),
    );
  }

  function chart(bins, chosen, canList) {
    const width = PAD.left + SIZE + PAD.right;
    const height = PAD.top + SIZE + PAD.histogram + PAD.bottom;
    const path = bins
      .filter((bin) => isKnown(bin.share[0]))
      .map((bin) => `${x(bin.mean_prediction)},${y(bin.share[0])}`)
      .join(" ");
    const titles = [
      svg(
        "text",
        { class: "title", x: x(0.5), y: height - 4, "text-anchor": "middle" },
        "prediction, and how many there are",
      ),
      svg(
        "text",
        {
          class: "title",
          transform: `translate(12 ${y(0.5)}) rotate(-90)`,
          "text-anchor": "middle",
        },
        `share really “${labelName(1)}”`,
      ),
    ];
    return svg(
      "svg",
      {
        class: "reliability",
        viewBox: `0 0 ${width} ${height}`,
        role: "img",
        "aria-label": "Reliability curve; the table has its numbers",
      },
      axes(),
      histogram(bins, chosen),
      svg("polyline", { class: "curve", points: path }),
      points(bins, chosen),
      titles,
      canList ? targets(bins) : null,
    );
  }

  function choose(index) {
    const isChosen = hearback.state.get().bin === String(index);
    hearback.state.set({ bin: isChosen ? "" : String(index) });
    if (!isChosen) hearback.recordings.reveal();
  }

  function binTable(bins, chosen, canList) {
    const rows = bins.map((bin, index) =>
      el(
        "tr",
        { class: index === chosen ? "chosen" : null },
        el(
          "th",
          { scope: "row" },
          makeButton(
            {
              class: "choose",
              "data-bin": index,
              "aria-pressed": String(index === chosen),
              disabled: bin.n === 0 || !canList,
              onclick: () => choose(index),
            },
            name(bin),
          ),
        ),
        numberCell(bin.n),
        numberCell(number(bin.mean_prediction)),
        numberCell(estimate(bin.share, true)),
      ),
    );
    return table(
      ["Prediction", "#Recordings", "#Mean prediction", `#Really “${labelName(1)}”`],
      rows,
    );
  }

  function show(state) {
    const { reliability, group_names: groups } = hearback.state.model();
    if (!groups.length)
      return view().replaceChildren(el("p", {}, "There is no reliability curve of this model."));
    const group = groups.includes(state.group) ? state.group : groups[0];
    const chosen = state.bin === "" ? -1 : Number(state.bin);
    const hasFocus = view().contains(document.activeElement) && document.activeElement.dataset?.bin;
    const choice =
      groups.length > 1
        ? select(
            "Shown for",
            groups.map((each) => [each, each === "all" ? "all recordings" : each]),
            group,
            (value) => hearback.state.set({ group: value, bin: "" }),
          )
        : null;
    const canList = group === "all" || hearback.selection.binColumn() !== null;
    const hint =
      chosen >= 0
        ? el(
            "p",
            {},
            plural(reliability[group][chosen]?.n ?? 0, "recording"),
            " of this bin are listed below.",
          )
        : el("p", { class: "soft" }, canList ? "Choose a bin to list its recordings." : "");
    view().replaceChildren(
      ...[
        choice,
        el(
          "div",
          { class: "beside" },
          chart(reliability[group], chosen, canList),
          el("div", {}, scrolling("Bins", binTable(reliability[group], chosen, canList)), hint),
        ),
      ].filter(Boolean),
    );
    if (hasFocus)
      view().querySelector(`button[data-bin="${hasFocus}"]`)?.focus({ preventScroll: true });
    return undefined;
  }

  hearback.reliability = {
    /** Return what a bin is called in the list of filters. */
    binName(state) {
      const bin = hearback.selection.chosenBin(state);
      return (
        bin &&
        [`prediction ${name(bin)}`, state.group === "all" ? null : [", ", bdi(state.group)]]
          .flat()
          .filter(Boolean)
      );
    },
    start() {
      if (view()) hearback.state.follow(["model", "group", "bin"], show);
    },
  };
})();
