"use strict";
/** What every part of the page uses: the data, elements, and how numbers are shown. */

/** The only global of the page's own scripts. */
globalThis.hearback = {};

(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const NOTHING = "–";

  /** @typedef {[value: ?number, low: ?number, high: ?number]} Estimate */

  const page = JSON.parse(document.getElementById("page-data").textContent);

  /** Set attributes; `onX` are listeners, true is an empty attribute, false and null are none. */
  function setAttributes(node, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) {
        node.setAttribute(name, String(value));
      }
    }
  }

  /**
   * Return a new element. Children that are not nodes become text, never markup.
   * @param {string} tag
   * @param {Object<string, *>} [attributes]
   * @param {...(Node|string|number|null|Array)} children
   */
  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    setAttributes(node, attributes);
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  }

  /** Return a button that does no more than call its `onclick`. */
  const makeButton = (attributes, ...children) =>
    el("button", { type: "button", ...attributes }, ...children);

  /** Return the key that does the same as a button. */
  const keyHint = (key) => el("kbd", { "aria-hidden": "true" }, key);

  /** Return a new SVG element; as `el`. */
  function svg(tag, attributes = {}, ...children) {
    const node = document.createElementNS(SVG, tag);
    setAttributes(node, attributes);
    node.append(...children.flat().filter((child) => child !== null));
    return node;
  }

  /** Return text from the data, kept apart from the direction of the text around it. */
  const bdi = (text) => el("bdi", {}, text);

  /** Return a region in which a wide table scrolls by itself. */
  function scrolling(label, ...children) {
    const attributes = { class: "scroll", role: "region", "aria-label": label, tabindex: 0 };
    return el("div", attributes, ...children);
  }

  /**
   * Return a table.
   * @param {Array<string|Node>} heads "#" before a text means a column of numbers.
   * @param {Array<HTMLTableRowElement>} rows
   */
  function table(heads, rows, attributes = {}) {
    const cells = heads.map((head) => {
      if (head instanceof Node) return head;
      const isNumber = head.startsWith("#");
      return el(
        "th",
        { scope: "col", class: isNumber ? "n" : null },
        isNumber ? head.slice(1) : head,
      );
    });
    return el("table", attributes, el("thead", {}, el("tr", {}, cells)), el("tbody", {}, rows));
  }

  /** Return a cell of numbers. */
  const numberCell = (...children) => el("td", { class: "n" }, ...children);

  /** Return a labelled <select>; `options` are [value, text] each. */
  function select(label, options, value, onchange) {
    const items = options.map(([each, text]) =>
      el("option", { value: each, selected: each === value }, text),
    );
    const onChoice = (event) => onchange(event.target.value);
    return el(
      "label",
      { class: "field" },
      el("span", {}, label),
      el("select", { onchange: onChoice }, items),
    );
  }

  /** Say something to those who listen to the page. */
  function announce(text) {
    document.getElementById("live").textContent = text;
  }

  /** Scroll to a node, smoothly unless less motion is asked for, and focus it. */
  function goTo(node) {
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    node.focus({ preventScroll: true });
    node.scrollIntoView({ behavior: isCalm ? "auto" : "smooth", block: "start" });
  }

  const isKnown = (value) => value !== null && value !== undefined;
  const number = (value, digits = 3) => (isKnown(value) ? value.toFixed(digits) : NOTHING);
  const percent = (value, digits = 1) =>
    isKnown(value) ? `${(100 * value).toFixed(digits)} %` : NOTHING;
  const count = (n) => n.toLocaleString("en");
  const plural = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
  const capitalize = (text) => text.charAt(0).toUpperCase() + text.slice(1);

  /** Return an estimate as text with its interval, as the tables without JavaScript show it. */
  function estimate([value, low, high], isShare = false) {
    if (!isKnown(value)) return [NOTHING];
    const main = isShare ? percent(value) : number(value);
    if (!isKnown(low) || !isKnown(high)) return [main];
    const range = isShare
      ? `${number(100 * low, 1)}–${percent(high)}`
      : `${number(low)}–${number(high)}`;
    return [main, " ", el("span", { class: "interval" }, range)];
  }

  /** Return the name of a label, or "–". */
  const labelName = (label) =>
    isKnown(label) ? (page.label_names[label] ?? String(label)) : NOTHING;

  const isBinary = page.kind === "binary";
  const isLabelled = page.recordings.labels !== null;

  Object.assign(hearback, {
    page,
    isBinary,
    isLabelled,
    /** What a prediction is called: of new recordings, it is the score of their table. */
    predictionTitle: isBinary && !isLabelled ? "Score" : "Prediction",
    nRecordings: page.recordings.filenames.length,
    el,
    makeButton,
    keyHint,
    svg,
    bdi,
    scrolling,
    table,
    numberCell,
    select,
    announce,
    goTo,
    format: { isKnown, number, percent, count, plural, capitalize, estimate, labelName },
  });
})();
