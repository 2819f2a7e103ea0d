"use strict";
/** The list of recordings: search, filters, order, and pages of a hundred. */

(() => {
  const { page, el, bdi, makeButton, scrolling, numberCell, select, goTo } = hearback;
  const { isBinary, isLabelled, nRecordings, predictionTitle } = hearback;
  const { number, count, plural, capitalize, labelName } = hearback.format;
  const { selection, state: store } = hearback;
  const N_PER_PAGE = 100;
  const MOST_CHOICES = 200; // values of a column that can be chosen from a list; else search

  const view = () => document.getElementById("recordings-view");
  const soundOf = new Set([...page.with_sound, ...Object.values(page.clip_scripts).flat()]);

  /**
   * @typedef {Object} Column
   * @property {string} key that `order` names
   * @property {string} title
   * @property {boolean} [isNumber]
   * @property {string} [className]
   * @property {function(number, State): (string|Node)} content of a cell
   */

  const hasTexts = page.recordings.texts.some(Boolean);
  const when = (condition, value) => (condition ? [value] : []);

  /** @type {Array<Column>} */
  const columns = [
    ...when(hasTexts, {
      key: "text",
      title: "Text",
      className: "text",
      content: (index) => bdi(page.recordings.texts[index]),
    }),
    ...when(isLabelled, {
      key: "label",
      title: "Label",
      className: "label",
      content: (index) => bdi(labelName(selection.label(index))),
    }),
    ...when(!isBinary, {
      key: "said",
      title: "Model says",
      content: (index, { model }) => bdi(labelName(selection.predictedClass(index, model))),
    }),
    {
      key: "prediction",
      title: predictionTitle,
      isNumber: true,
      content: (index, { model }) => number(selection.prediction(index, model)),
    },
    ...when(isLabelled, {
      key: "loss",
      title: "Log loss",
      isNumber: true,
      content: (index, { model }) => number(selection.loss(index, model)),
    }),
    ...page.field_names.map((name) => ({
      key: store.FIELD + name,
      title: capitalize(name),
      content: (index, { model }) => bdi(selection.field(name, index, model)),
    })),
  ];

  /** The column that "likely wrong labels" are sorted by: shown only then. */
  const LEAST_LOSS = {
    key: "suspect",
    title: "Least loss of any model",
    isNumber: true,
    content: (index) => number(selection.smallestLosses[index]),
  };
  const columnsOf = ({ order }) => (order === "suspect" ? [LEAST_LOSS, ...columns] : columns);

  /** Orders that have a name; all others are by a column. */
  const ORDERS = [
    ...when(isLabelled, ["loss", "largest loss first"]),
    ["doubt", isBinary ? "nearest to the threshold first" : "least sure first"],
    ...when(isLabelled, ["suspect", "likely wrong labels first"]),
    ["file", "by name"],
  ];

  function orderBy(key) {
    const { order, dir } = store.get();
    const first = ["prediction", "loss", "suspect"].includes(key) ? "desc" : "asc";
    store.set({ order: key, dir: order === key ? (dir === "asc" ? "desc" : "asc") : first });
  }

  function head(key, title, isNumber, { order, dir }) {
    const sort = order === key ? { asc: "ascending", desc: "descending" }[dir] : null;
    const arrow = sort ? el("span", { "aria-hidden": "true" }, dir === "asc" ? " ▲" : " ▼") : null;
    return el(
      "th",
      { scope: "col", "aria-sort": sort, class: isNumber ? "n" : null },
      makeButton({ class: "sort", "data-sort": key, onclick: () => orderBy(key) }, title, arrow),
    );
  }

  function row(index, state) {
    const filename = page.recordings.filenames[index];
    const verdict = hearback.verdicts.get(filename);
    const open = makeButton(
      { class: "choose", "data-clip": index, onclick: () => hearback.recording.open(index) },
      bdi(filename),
    );
    const sound = soundOf.has(index)
      ? el(
          "span",
          { class: "sound", title: "with sound", role: "img", "aria-label": "with sound" },
          "♪",
        )
      : null;
    const mark = verdict
      ? el("span", { class: "tag" }, hearback.verdicts.NAMES[verdict.verdict])
      : null;
    return el(
      "tr",
      { "aria-current": String(index) === state.clip ? "true" : null },
      el("th", { scope: "row" }, open, sound, mark),
      columnsOf(state).map(({ isNumber, content, className }) =>
        isNumber
          ? numberCell(content(index, state))
          : el("td", { class: className }, content(index, state)),
      ),
    );
  }

  /** Return a button that takes a filter back. */
  function chip(content, patch) {
    return makeButton(
      {
        class: "chip",
        onclick: () => {
          store.set(patch);
          goToCount();
        },
      },
      content,
      el("span", { "aria-hidden": "true" }, " ×"),
      el("span", { class: "visually-hidden" }, " (remove this filter)"),
    );
  }

  function chips(state) {
    const { fields } = state;
    const found = Object.entries(fields).map(([name, value]) => {
      const { [name]: _, ...others } = fields;
      return chip([`${name} `, bdi(value)], { fields: others });
    });
    const bin = hearback.reliability.binName(state);
    if (bin) found.push(chip(bin, { bin: "" }));
    if (state.cell) {
      const [actual, said] = state.cell.split("-").map((label) => bdi(labelName(Number(label))));
      found.push(chip(["is ", actual, ", model says ", said], { cell: "" }));
    }
    if (state.label) {
      found.push(chip(["label ", bdi(labelName(Number(state.label)))], { label: "" }));
    }
    if (state.q) found.push(chip(["search ", bdi(state.q)], { q: "" }));
    const none = { fields: {}, bin: "", cell: "", label: "", q: "" };
    if (found.length > 1) found.push(chip("all filters", none));
    return found;
  }

  const goToCount = () =>
    document.getElementById("recordings-count").focus({ preventScroll: true });

  function pager(state, n) {
    const last = Math.max(0, Math.ceil(n / N_PER_PAGE) - 1);
    const turn = (to) => {
      store.set({ p: to });
      document.getElementById("recordings-list").scrollTop = 0;
    };
    const button = (text, to, isOff) =>
      makeButton({ disabled: isOff, onclick: () => turn(to) }, text);
    if (last === 0) return [];
    return [
      button("First", 0, state.p === 0),
      button("Back", state.p - 1, state.p === 0),
      el("span", {}, `Page ${count(state.p + 1)} of ${count(last + 1)}`),
      button("Next", state.p + 1, state.p >= last),
      button("Last", last, state.p >= last),
    ];
  }

  /** Return the values of a column and their counts, as choices of a list. */
  function fieldChoices(name, model) {
    const counts = new Map();
    for (let index = 0; index < nRecordings; index += 1) {
      const value = selection.field(name, index, model);
      counts.set(value, (counts.get(value) ?? 0) + 1);
    }
    const values = [...selection.placesOf(name, model).keys()].filter((value) => value !== "");
    return [["", "any"], ...values.map((value) => [value, `${value} (${count(counts.get(value))})`])];
  }

  /** Return whether the values of a column are another model's if one is chosen. */
  const followsModel = (name) => name === "status" && page.status_range !== null;

  function fieldFilter(name) {
    const { model } = store.get();
    const n = new Set(page.recordings.fields[name]).size;
    if ((n < 2 && !followsModel(name)) || n > MOST_CHOICES) return null;
    const choices = fieldChoices(name, model);
    const choose = (value) => {
      const { [name]: _, ...others } = store.get().fields;
      store.set({ fields: value ? { ...others, [name]: value } : others });
    };
    const node = select(capitalize(name), choices, "", choose);
    node.querySelector("select").dataset.field = name;
    return node;
  }

  /** Return the choice of a label, or nothing without labels. */
  function labelFilter() {
    if (!isLabelled) return [];
    const choices = page.label_names.map((name, label) => [String(label), name]);
    const choose = (label) => store.set({ label });
    const node = select("Label", [["", "any"], ...choices], "", choose);
    node.querySelector("select").id = "label-filter";
    return [node];
  }

  function build() {
    const search = el("input", {
      type: "search",
      id: "search",
      autocomplete: "off",
      oninput: () => store.set({ q: search.value }, { replace: true }),
    });
    const order = select(
      "Order",
      [...ORDERS, ["other", "by a column"]],
      store.get().order,
      (value) => {
        if (value !== "other") store.set({ order: value, dir: value === "file" ? "asc" : "desc" });
      },
    );
    order.querySelector("select").id = "order";
    const searchTitle = `Search in names, ${hasTexts ? "texts, speakers" : page.people}`;
    view().replaceChildren(
      el(
        "div",
        { class: "row filters", role: "search" },
        el("label", { class: "field" }, el("span", {}, searchTitle), search),
        order,
        labelFilter(),
        page.field_names.map(fieldFilter).filter(Boolean),
      ),
      el("p", { id: "recordings-count", role: "status", "aria-live": "polite", tabindex: -1 }),
      el("div", { id: "chips", class: "row" }),
      el("div", { id: "recordings-list-box" }),
      el("div", { id: "pager", class: "row" }),
    );
    const list = scrolling("Recordings");
    list.id = "recordings-list";
    list.classList.add("tall");
    document.getElementById("recordings-list-box").append(list);
  }

  /** Count again what another model changes. */
  function showChoices({ model, fields }) {
    for (const node of view().querySelectorAll("select[data-field]")) {
      const name = node.dataset.field;
      if (!followsModel(name)) continue;
      const choices = fieldChoices(name, model);
      const chosen = fields[name];
      if (chosen && !choices.some(([value]) => value === chosen)) choices.push([chosen, `${chosen} (0)`]);
      node.replaceChildren(...choices.map(([value, text]) => el("option", { value }, text)));
    }
  }

  function showControls(state) {
    showChoices(state);
    const search = document.getElementById("search");
    if (search.value !== state.q) search.value = state.q;
    document.getElementById("order").value = ORDERS.some(([key]) => key === state.order)
      ? state.order
      : "other";
    for (const each of view().querySelectorAll("select[data-field]"))
      each.value = state.fields[each.dataset.field] ?? "";
    const ofLabel = document.getElementById("label-filter");
    if (ofLabel) ofLabel.value = state.label;
    document.getElementById("chips").replaceChildren(...chips(state));
  }

  function show(state) {
    const indices = selection.listed(state);
    const first =
      Math.min(state.p, Math.max(0, Math.ceil(indices.length / N_PER_PAGE) - 1)) * N_PER_PAGE;
    const shown = indices.slice(first, first + N_PER_PAGE);
    const of = indices.length === nRecordings ? "" : ` of ${count(nRecordings)}`;
    const range =
      shown.length < indices.length
        ? `, ${count(first + 1)} to ${count(first + shown.length)} shown`
        : "";
    document.getElementById("recordings-count").textContent =
      `${plural(indices.length, "recording")}${of}${range}.`;
    showControls(state);
    showRows(shown, state);
    document
      .getElementById("pager")
      .replaceChildren(...pager({ ...state, p: first / N_PER_PAGE }, indices.length));
  }

  function showRows(shown, state) {
    const list = document.getElementById("recordings-list");
    const { sort, clip } = list.contains(document.activeElement)
      ? document.activeElement.dataset
      : {};
    const heads = [
      head("file", "Recording", false, state),
      ...columnsOf(state).map(({ key, title, isNumber }) => head(key, title, isNumber, state)),
    ];
    const rows = shown.map((index) => row(index, state));
    list.replaceChildren(
      el(
        "table",
        { class: "recordings" },
        el("thead", {}, el("tr", {}, heads)),
        el("tbody", {}, rows),
      ),
    );
    if (sort)
      list.querySelector(`[data-sort="${CSS.escape(sort)}"]`)?.focus({ preventScroll: true });
    if (clip) list.querySelector(`[data-clip="${clip}"]`)?.focus({ preventScroll: true });
  }

  function markOpen(state) {
    const list = document.getElementById("recordings-list");
    list.querySelector("[aria-current]")?.removeAttribute("aria-current");
    const open =
      state.clip === "" ? null : list.querySelector(`[data-clip="${state.clip}"]`)?.closest("tr");
    if (!open) return;
    open.setAttribute("aria-current", "true");
    const below = open.offsetTop + open.offsetHeight - list.clientHeight - list.scrollTop;
    const above = list.scrollTop + list.querySelector("thead").offsetHeight - open.offsetTop;
    if (below > 0) list.scrollTop += below;
    else if (above > 0) list.scrollTop -= above;
  }

  hearback.recordings = {
    hasSound: (index) => soundOf.has(index),
    /** Return which page of the list a place in it is on. */
    pageOf: (place) => Math.floor(place / N_PER_PAGE),
    /** Go to the list. */
    reveal: () => goTo(document.getElementById("recordings-h")),
    start() {
      document.getElementById("recordings-h").tabIndex = -1;
      build();
      store.follow(
        ["model", "group", "t", "p", ...store.LISTING],
        show,
      );
      store.follow(["clip"], markOpen);
      hearback.verdicts.follow(() => {
        show(store.get());
        markOpen(store.get());
      });
    },
  };
})();
