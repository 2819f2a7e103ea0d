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
   * @property {number} hi … up to here go to a person; equal if none does
   * @property {string} q search
   * @property {string} order of the recordings: a column, "doubt" or "suspect"
   * @property {string} dir "asc" or "desc"
   * @property {number} p page of the list, from 0
   * @property {string} bin number of the bin of predictions, or ""
   * @property {string} cell "true-predicted" classes, or ""
   * @property {string} clip index of the recording that is open, or ""
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
    clip: "",
    fields: {},
  };
  const FIELD = "f."; // before the name of a column: what is filtered or ordered by it
  /** What decides which recordings are listed: a change starts the list again. */
  const LISTING = ["q", "order", "dir", "bin", "cell", "fields"];

  /** @type {Array<{keys: string[], listener: function(State): void}>} */
  const subscribers = [];
  let state = parse(location.hash);

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
    if (!(Number(parsed.clip) in page.recordings.filenames)) parsed.clip = "";
    for (const name of Object.keys(parsed.fields)) {
      if (!Object.hasOwn(page.recordings.fields, name)) delete parsed.fields[name];
    }
    parsed.t = within(parsed.t);
    parsed.lo = Math.min(within(parsed.lo), parsed.t);
    parsed.hi = Math.max(within(parsed.hi), parsed.t);
    return parsed;
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
    history[replace ? "replaceState" : "pushState"](null, "", format(next));
    changeTo(next);
  }

  function followAddress() {
    const next = parse(location.hash);
    if (!isEqual(state, next)) changeTo(next);
  }

  addEventListener("popstate", followAddress);
  addEventListener("hashchange", followAddress);

  hearback.state = {
    FIELD,
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
