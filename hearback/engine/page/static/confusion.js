"use strict";
/** Which class is taken for which: counts in shaded cells; each lists its recordings. */

(() => {
  const { page, el, bdi, scrolling, table, makeButton } = hearback;

  const view = () => document.getElementById("confusion-view");

  function choose(key) {
    const isChosen = hearback.state.get().cell === key;
    hearback.state.set({ cell: isChosen ? "" : key });
    if (!isChosen) hearback.recordings.reveal();
  }

  /** Return a shade of 0 to 4 for a share of a row. */
  const shade = (share) => (share === 0 ? 0 : Math.min(4, 1 + Math.floor(4 * share)));

  function cell(count, actual, said, total, chosen) {
    const key = `${actual}-${said}`;
    const names = page.label_names;
    const kind = actual === said ? "right" : "wrong";
    const label = `${count}: is ${names[actual]}, model says ${names[said]}`;
    const button = makeButton(
      {
        class: "cell",
        "aria-pressed": String(key === chosen),
        "aria-label": label,
        disabled: count === 0,
        onclick: () => choose(key),
        "data-cell": key,
      },
      count,
    );
    return el("td", { class: `n ${kind} shade-${shade(count / (total || 1))}` }, button);
  }

  function show(state) {
    const { confusion } = hearback.state.model();
    if (!confusion)
      return view().replaceChildren(el("p", {}, "There are no counts of this model."));
    const focused = view().contains(document.activeElement) && document.activeElement.dataset?.cell;
    const rows = confusion.map((counts, actual) => {
      const total = counts.reduce((sum, count) => sum + count, 0);
      return el(
        "tr",
        {},
        el("th", { scope: "row" }, bdi(page.label_names[actual])),
        counts.map((count, said) => cell(count, actual, said, total, state.cell)),
      );
    });
    const heads = [
      "Is \\ model says",
      ...page.label_names.map((name) => el("th", { scope: "col", class: "n" }, bdi(name))),
    ];
    view().replaceChildren(
      scrolling("Confusion matrix", table(heads, rows, { class: "confusion" })),
    );
    if (focused) view().querySelector(`[data-cell="${focused}"]`)?.focus({ preventScroll: true });
    return undefined;
  }

  hearback.confusion = {
    start() {
      if (view()) hearback.state.follow(["model", "cell"], show);
    },
  };
})();
