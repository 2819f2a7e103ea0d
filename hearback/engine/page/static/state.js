"use strict";
/** What is chosen on the page. It is kept in the address, so that a link or "back" restores it. */

(() => {
  const { page } = hearback;
  const [low, high] = page.unsure ?? [0.5, 0.5];

  /**
   * @typedef {Object} State
   * @property {string} model that the whole page is shown by
   * @property {string} group of the reliability curve
   * @property {string} by column of the groups' table
   * @property {number} t threshold
   * @property {number} lo predictions from here on …
   * @property {number} hi … up to here go to a person; equal if none does. See `band`.
   * @property {string} q search
   * @property {string} order of the recordings: a column, "doubt" or "suspect"
   * @property {string} dir "asc" or "desc"
   * @property {number} p page of the list, from 0
   * @property {string} bin number of the bin of predictions, or ""
   * @property {string} cell "true-predicted" classes, or ""
   * @property {string} clip index of the recording that is open, or ""
   * @property {string} label that is listed, or ""
   * @property {Object<string, string>} fields filters by column
   */

  /** @type {State} */
  const DEFAULTS = {
    model: page.models[0].name,
    group: "all",
    by: "",
    t: Math.min(Math.max(0.5, low), high),
    lo: low,
    hi: high,
    q: "",
    order: hearback.isLabelled ? "loss" : "doubt",
    dir: "desc",
    p: 0,
    bin: "",
    cell: "",
    label: "",
    clip: "",
    fields: {},
  };
  const FIELD = "f."; // before the name of a column: what is filtered or ordered by it
  /** What decides which recordings are listed: a change starts the list again. */
  const LISTING = ["q", "order", "dir", "bin", "cell", "label", "fields"];
  const ORDERS = [
    ...["file", "text", "prediction", "doubt"],
    ...(hearback.isLabelled ? ["label", "loss", "suspect"] : []),
    ...(hearback.isBinary ? [] : ["said"]),
    ...page.field_names.map((name) => FIELD + name),
  ];

  /** @type {Array<{keys: string[], listener: function(State): void}>} */
  const subscribers = [];
  /** Return the state that an address stands for; what it does not know is ignored. */
  function parse(hash) {
    const parsed = { ...DEFAULTS, fields: {} };
    if (!hash.includes("=")) return parsed;
    for (const [key, value] of new URLSearchParams(hash.slice(1))) {
      if (key.startsWith(FIELD)) parsed.fields[key.slice(FIELD.length)] = value;
      else if (typeof DEFAULTS[key] === "string") parsed[key] = value;
      else if (typeof DEFAULTS[key] === "number" && Number.isFinite(Number(value))) {
        parsed[key] = Number(value);
      }
    }
    return repaired(parsed);
  }

  /** Return the state without what this page does not have, e.g. after the page was made anew. */
  function repaired(parsed) {
    const within = (value) => Math.min(Math.max(value, 0), 1);
    if (!page.models.some((model) => model.name === parsed.model)) parsed.model = DEFAULTS.model;
    const { reliability } = page.models.find((model) => model.name === parsed.model);
    if (!Object.hasOwn(reliability, parsed.group)) parsed.group = DEFAULTS.group;
    parsed.bin = indexIn(reliability[parsed.group] ?? [], parsed.bin);
    parsed.clip = indexIn(page.recordings.filenames, parsed.clip);
    parsed.label = hearback.isLabelled ? indexIn(page.label_names, parsed.label) : "";
    if (!isCell(parsed.cell)) parsed.cell = "";
    if (!ORDERS.includes(parsed.order)) parsed.order = DEFAULTS.order;
    if (!["asc", "desc"].includes(parsed.dir)) parsed.dir = DEFAULTS.dir;
    if (!Number.isSafeInteger(parsed.p) || parsed.p < 0) parsed.p = 0;
    for (const name of Object.keys(parsed.fields)) {
      if (!Object.hasOwn(page.recordings.fields, name)) delete parsed.fields[name];
    }
    parsed.t = within(parsed.t);
    parsed.lo = within(parsed.lo);
    parsed.hi = Math.max(within(parsed.hi), parsed.lo);
    return parsed;
  }

  /** Return an index into a list as text; "" if it is none. */
  const indexIn = (list, text) => (/^(0|[1-9]\d*)$/.test(text) && Number(text) in list ? text : "");

  function isCell(text) {
    const labels = text.split("-");
    const isLabel = (label) => indexIn(page.label_names, label) !== "";
    return hearback.isLabelled && labels.length === 2 && labels.every(isLabel);
  }

  /**
   * Return the band that goes to a person. It reaches to the threshold where that is outside of
   * what was chosen; an empty one is at the threshold.
   */
  function band({ t, lo, hi }) {
    if (lo === hi) return { lo: t, hi: t };
    return { lo: Math.min(lo, t), hi: Math.max(hi, t) };
  }

  /** Return the address of a state: what differs from the start. */
  function format(current) {
    const parameters = new URLSearchParams();
    for (const [key, value] of Object.entries(current)) {
      if (key !== "fields" && value !== DEFAULTS[key]) parameters.set(key, String(value));
    }
    for (const [name, value] of Object.entries(current.fields)) parameters.set(FIELD + name, value);
    return `#${parameters}`;
  }

  const isEqual = (one, other) => JSON.stringify(one) === JSON.stringify(other);

  function changeTo(next) {
    const changed = Object.keys(DEFAULTS).filter((key) => !isEqual(state[key], next[key]));
    state = next;
    for (const { keys, listener } of subscribers) {
      if (keys.some((key) => changed.includes(key))) listener(state);
    }
  }

  /**
   * Change the state.
   * @param {Partial<State>} patch
   * @param {{replace?: boolean}} [options] `replace`: "back" does not undo it (typing, sliding).
   */
  function set(patch, { replace = false } = {}) {
    const next = repaired({ ...state, ...patch, fields: { ...(patch.fields ?? state.fields) } });
    const listsOthers = LISTING.some((key) => !isEqual(state[key], next[key]));
    if (listsOthers && !("p" in patch)) next.p = 0;
    if (isEqual(state, next)) return;
    try {
      history[replace ? "replaceState" : "pushState"](null, "", format(next));
    } catch {
      // Safari refuses more than 100 in 30 s: the page changes, the address follows later.
    }
    changeTo(next);
  }

  function followAddress() {
    const next = parse(location.hash);
    if (!isEqual(state, next)) changeTo(next);
  }

  let state = parse(location.hash);
  addEventListener("popstate", followAddress);
  addEventListener("hashchange", followAddress);

  hearback.state = {
    FIELD,
    LISTING,
    DEFAULTS,
    band,
    /** @returns {State} */
    get: () => state,
    set,
    /** Call `listener` now, and whenever one of `keys` changed. */
    follow(keys, listener) {
      subscribers.push({ keys, listener });
      listener(state);
    },
    /** Return the results of the chosen model. */
    model: () => page.models.find((model) => model.name === state.model),
  };
})();
