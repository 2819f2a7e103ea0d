"use strict";
/** The models: a button in each row, and a choice that stays in sight. */

(() => {
  const { page, el, select, makeButton } = hearback;
  const KEYS = ["model"];

  function addButtons() {
    for (const row of document.querySelectorAll("tr[data-model]")) {
      const name = row.dataset.model;
      const head = row.querySelector("th");
      const choose = () => hearback.state.set({ model: name });
      head.replaceChildren(makeButton({ class: "choose", onclick: choose }, el("bdi", {}, name)));
      row.querySelector("svg.dots")?.addEventListener("click", choose);
    }
  }

  function showChoice(state) {
    for (const row of document.querySelectorAll("tr[data-model]")) {
      const isChosen = row.dataset.model === state.model;
      row.classList.toggle("chosen", isChosen);
      row.querySelector("button").setAttribute("aria-pressed", String(isChosen));
    }
    const box = document.querySelector("#model-choice select");
    if (box) box.value = state.model;
  }

  hearback.models = {
    start() {
      addButtons();
      if (page.models.length > 1) {
        const options = page.models.map((model) => [model.name, model.name]);
        const choose = (model) => hearback.state.set({ model });
        document
          .getElementById("model-choice")
          .append(select("Shown by", options, hearback.state.get().model, choose));
      }
      hearback.state.follow(KEYS, showChoice);
    },
  };
})();
