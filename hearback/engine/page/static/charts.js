"use strict";
/** Charts: small SVGs, and lines by uPlot. A table with the same numbers stands beside each. */

(() => {
  const { el, svg } = hearback;
  const { isKnown } = hearback.format;

  /** Return a colour of the style sheet, such as "--blue". */
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /** Return a bar of a share, 0 to 1. */
  function bar(share) {
    return svg(
      "svg",
      { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { width: Math.max(0, 100 * share), height: 10 }),
    );
  }

  /**
   * Return a dot with its interval on an axis.
   * @param {Estimate} estimate
   * @param {number} high end of the axis, which starts at 0
   */
  function dot([value, low, high], end) {
    const chart = svg("svg", {
      class: "dots",
      viewBox: "0 0 100 10",
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    });
    const at = (number) => Math.min(100, (100 * number) / (end || 1));
    if (isKnown(low) && isKnown(high)) {
      chart.append(svg("line", { class: "range", x1: at(low), x2: at(high), y1: 5, y2: 5 }));
    }
    if (isKnown(value))
      chart.append(svg("line", { class: "dot", x1: at(value), x2: at(value), y1: 5, y2: 5 }));
    return chart;
  }

  /** Charts by uPlot draw their colours into a canvas: they are drawn again when those change. */
  const drawn = new Map();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const draw of drawn.values()) draw();
  });

  function axis(label, format, space) {
    return {
      label,
      labelSize: 20,
      labelGap: 0,
      labelFont: "12px system-ui, sans-serif",
      font: "12px system-ui, sans-serif",
      stroke: color("--text-soft"),
      grid: { stroke: color("--line"), width: 1 },
      ticks: { stroke: color("--line"), width: 1, size: 4 },
      values: (_, values) => values.map((value) => (value === null ? "" : format(value))),
      space,
      size: 30,
    };
  }

  function options(width, chart) {
    const dash = (line) => (line.isDashed ? [4, 3] : undefined);
    return {
      width,
      height: chart.height ?? 220,
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: false, range: chart.xRange }, y: { range: chart.yRange } },
      axes: [
        axis(chart.xLabel, chart.xFormat, 50),
        { ...axis(chart.yLabel, chart.yFormat, 34), size: 52 },
      ],
      series: [
        {},
        ...chart.lines.map((line) => ({
          stroke: color(line.color),
          width: line.width ?? 1.5,
          dash: dash(line),
          spanGaps: true,
          points: { show: Boolean(line.hasPoints), size: 7, fill: color(line.color) },
        })),
      ],
    };
  }

  /**
   * Draw lines into a node, in place of what it shows.
   * @param {HTMLElement} node
   * @param {{x: number[], lines: Array<{values: Array<?number>, color: string, width?: number,
   *   isDashed?: boolean, hasPoints?: boolean}>, xLabel: string, yLabel: string,
   *   xFormat: function(number): string, yFormat: function(number): string, summary: string,
   *   height?: number, xRange?: number[], yRange?: number[]}} chart
   */
  function lines(node, chart) {
    const draw = () => {
      if (!node.isConnected) return drawn.delete(node);
      const width = Math.max(200, Math.floor(node.clientWidth));
      const inside = el("div", { role: "img", "aria-label": chart.summary });
      node.replaceChildren(inside);
      new uPlot(
        options(width, chart),
        [chart.x, ...chart.lines.map((line) => line.values)],
        inside,
      );
      return undefined;
    };
    if (!drawn.has(node)) watchWidth(node);
    drawn.set(node, draw);
    draw();
  }

  function watchWidth(node) {
    let width = node.clientWidth;
    new ResizeObserver(() => {
      if (node.clientWidth === width) return;
      width = node.clientWidth;
      drawn.get(node)?.();
    }).observe(node);
  }

  hearback.charts = { bar, dot, lines, color };
})();
