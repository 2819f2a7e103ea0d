"use strict";
/** Results by grade, task, cause, speaker …: is it equally good for everyone? */

(() => {
  const { page, el, bdi, scrolling, table, numberCell, select, isBinary, charts, makeButton } =
    hearback;
  const { capitalize, estimate } = hearback.format;
  const N_FIRST = 10; // speakers shown before "show all"

  const view = () => document.getElementById("groups-view");
  let showsAll = false;

  function column(state, model) {
    const names = [...new Set(model.groups.map((group) => group.by))];
    return { names, by: names.includes(state.by) ? state.by : names[0] };
  }

  /** Return the groups of a column; the worst speakers first, others in their order. */
  function groupsOf(model, by) {
    const groups = model.groups.filter((group) => group.by === by);
    if (by !== page.people) return groups;
    return groups.sort((a, b) => (b.log_loss[0] ?? -1) - (a.log_loss[0] ?? -1));
  }

  function shareCell(value) {
    return numberCell(estimate(value, true), charts.dot(value, 1));
  }

  function filterButton(by, value) {
    const isListed = page.field_names.includes(by) && value !== "all";
    if (!isListed) return bdi(value);
    const list = () => {
      hearback.state.set({ fields: { ...hearback.state.get().fields, [by]: value } });
      hearback.recordings.reveal();
    };
    return makeButton(
      { class: "choose", onclick: list, title: "List these recordings" },
      bdi(value),
    );
  }

  function row(group, worst, hasAreas) {
    const isFew = group.n < page.n_enough;
    const errors = isBinary ? [group.false_alarms, group.misses] : [group.errors];
    return el(
      "tr",
      { class: isFew ? "few" : null },
      el("th", { scope: "row" }, filterButton(group.by, group.value)),
      numberCell(group.n, isFew ? el("span", { class: "interval" }, " too few") : null),
      numberCell(estimate(group.log_loss), charts.dot(group.log_loss, worst)),
      errors.map(shareCell),
      hasAreas ? numberCell(estimate(group.auc)) : null,
    );
  }

  function areasNote(by) {
    const said = bdi(page.label_names[1]);
    return el("p", {}, "AUC: how well all “", said, `” are told from those of a ${by}; 0.5 is chance.`);
  }

  function show(state) {
    const model = hearback.state.model();
    const { names, by } = column(state, model);
    if (!by) return view().replaceChildren(el("p", {}, "The tables have no columns to group by."));
    const groups = groupsOf(model, by);
    const shown = by === page.people && !showsAll ? groups.slice(0, N_FIRST) : groups;
    const worst = Math.max(...shown.map((group) => group.log_loss[2] ?? group.log_loss[0] ?? 0));
    const hasAreas = groups.some((group) => group.auc[0] !== null);
    const heads = [
      capitalize(by),
      "#Recordings",
      "#Log loss",
      ...(isBinary ? ["#False alarms", "#Misses"] : ["#Errors"]),
      ...(hasAreas ? ["#AUC"] : []),
    ];
    const more = makeButton(
      {
        onclick: () => {
          showsAll = true;
          show(hearback.state.get());
        },
      },
      `Show all ${groups.length}`,
    );
    view().replaceChildren(
      select(
        "By",
        names.map((name) => [name, name]),
        by,
        (value) => hearback.state.set({ by: value }),
      ),
      scrolling(
        `Results by ${by}`,
        table(
          heads,
          shown.map((group) => row(group, worst, hasAreas)),
          { class: "groups" },
        ),
      ),
      ...(hasAreas ? [areasNote(by)] : []),
      ...(shown.length < groups.length
        ? [el("p", {}, `The ${shown.length} with the largest loss. `, more)]
        : []),
    );
    return undefined;
  }

  hearback.groups = {
    start() {
      if (view()) hearback.state.follow(["model", "by"], show);
    },
  };
})();
