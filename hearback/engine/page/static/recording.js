"use strict";
/** The open recording: its facts, sound, words, your verdict, and what every model says. */

(() => {
  const { page, el, bdi, makeButton, keyHint, scrolling, table, numberCell, charts } = hearback;
  const { announce, goTo, isBinary, isLabelled, predictionTitle } = hearback;
  const { isKnown, number, count, capitalize, labelName } = hearback.format;
  const { selection, state: store } = hearback;

  const LONG = 80; // characters: a longer fact has the whole width
  const VERY_LONG = 400; // and a still longer text is cut, until more of it is asked for

  const view = () => document.getElementById("recording-view");

  /** The recording of which the whole text is shown; null for none. */
  let unfolded = null;

  const openIndex = () => (store.get().clip === "" ? null : Number(store.get().clip));

  function open(index) {
    store.set({ clip: String(index) });
    goTo(document.getElementById("recording"));
  }

  /** Open the next recording of the list, or with -1 the one before. */
  function step(by) {
    const indices = selection.listed(store.get());
    const place = indices.indexOf(openIndex());
    const next = place < 0 ? 0 : place + by;
    if (!(next in indices))
      return announce(by > 0 ? "That was the last recording." : "That was the first recording.");
    store.set({ clip: String(indices[next]), p: hearback.recordings.pageOf(next) });
    return announceOpen();
  }

  function announceOpen() {
    const index = openIndex();
    const prediction = number(selection.prediction(index, store.get().model), 2);
    const title = predictionTitle.toLowerCase();
    announce(`${page.recordings.filenames[index]}, ${title} ${prediction}`);
  }

  /** Return a text, a long one with a button that shows all of it. */
  function foldable(index) {
    const text = page.recordings.texts[index];
    if (text.length <= VERY_LONG) return bdi(text);
    const shown = el("div", { id: "whole-text" }, bdi(text));
    const button = makeButton({ class: "unfold", "aria-controls": "whole-text" });
    const fold = () => {
      const isWhole = unfolded === index;
      shown.classList.toggle("folded", !isWhole);
      button.setAttribute("aria-expanded", String(isWhole));
      button.textContent = isWhole ? "Less of the text" : "The whole text";
    };
    button.addEventListener("click", () => {
      unfolded = unfolded === index ? null : index;
      fold();
    });
    fold();
    return el("div", {}, shown, button);
  }

  function factsOf(index, { model }) {
    const { recordings } = page;
    const prediction = number(selection.prediction(index, model));
    const said = isBinary
      ? prediction
      : [bdi(labelName(selection.predictedClass(index, model))), ` ${prediction}`];
    const facts = [
      recordings.texts[index] ? ["Text", foldable(index), recordings.texts[index]] : null,
      isLabelled ? ["Label", bdi(labelName(selection.label(index)))] : null,
      [predictionTitle, said],
      isLabelled ? ["Log loss", number(selection.loss(index, model))] : null,
      ...page.field_names.map((name) => [
        capitalize(name),
        bdi(selection.field(name, index, model)),
      ]),
      isKnown(recordings.seconds[index])
        ? ["Length", `${number(recordings.seconds[index], 1)} s`]
        : null,
      recordings.notes[index]
        ? ["Note", bdi(recordings.notes[index]), recordings.notes[index]]
        : null,
    ].filter(Boolean);
    return el(
      "dl",
      { class: "facts" },
      facts.map(([name, value, text = ""]) =>
        el(
          "div",
          { class: text.length > LONG ? "wide" : null },
          el("dt", {}, name),
          el("dd", {}, value),
        ),
      ),
    );
  }

  function opinions(index) {
    const rows = page.models.map(({ name }) => {
      const value = selection.prediction(index, name);
      const said = isBinary
        ? null
        : el("td", {}, bdi(labelName(selection.predictedClass(index, name))));
      return el(
        "tr",
        { class: name === store.get().model ? "chosen" : null },
        el("th", { scope: "row" }, bdi(name)),
        said,
        numberCell(number(value)),
        el("td", { class: "axis" }, isKnown(value) ? charts.dot([value], 1) : null),
        isLabelled ? numberCell(number(selection.loss(index, name))) : null,
      );
    });
    const scale = el(
      "th",
      { scope: "col", class: "axis" },
      el("span", {}, "0"),
      el("span", { class: "visually-hidden" }, " to "),
      el("span", {}, "1"),
    );
    const heads = [
      "Model",
      isBinary ? null : "Says",
      `#${predictionTitle}`,
      scale,
      isLabelled ? "#Log loss" : null,
    ].filter(Boolean);
    return el(
      "details",
      { open: page.models.length <= 8 },
      el("summary", {}, "What every model says"),
      scrolling("What every model says", table(heads, rows, { class: "opinions" })),
    );
  }

  function heading(index, state) {
    const indices = selection.listed(state);
    const place = indices.indexOf(index);
    const where =
      place < 0
        ? "not in the list above"
        : `${count(place + 1)} of ${count(indices.length)} in the list`;
    return el(
      "div",
      { class: "row recording-head" },
      el("p", { class: "filename" }, bdi(page.recordings.filenames[index])),
      el("span", { class: "soft" }, where),
      makeButton(
        { id: "previous", onclick: () => step(-1), disabled: place === 0 },
        "Previous",
        keyHint("p"),
      ),
      makeButton(
        { id: "next", onclick: () => step(1), disabled: place === indices.length - 1 },
        "Next",
        keyHint("n"),
      ),
    );
  }

  function downloads(index) {
    const seconds = () =>
      page.recordings.seconds[index] ?? hearback.sound.players().learner?.seconds;
    const canTextGrid =
      isKnown(page.recordings.seconds[index]) || hearback.recordings.hasSound(index);
    return el(
      "div",
      { class: "row" },
      isBinary && canTextGrid
        ? makeButton(
            {
              id: "export-textgrid",
              onclick: () => seconds() && hearback.exports.downloadTextGrid(index, seconds()),
            },
            "Export TextGrid",
          )
        : null,
      makeButton(
        { id: "export-json", onclick: () => hearback.exports.downloadJson(index) },
        "Export JSON",
      ),
    );
  }

  function show(state) {
    const index = openIndex();
    if (index === null) {
      hearback.sound.remove();
      view().replaceChildren(el("p", {}, "Choose a recording above to see and hear it."));
      return undefined;
    }
    const focused = view().contains(document.activeElement) ? document.activeElement.id : "";
    const hasPlayers = Object.keys(hearback.sound.players()).length > 0;
    const isSame = view().dataset.clip === String(index) && hasPlayers;
    const soundBox = isSame ? document.getElementById("sound") : el("div", { id: "sound" });
    view().dataset.clip = index;
    view().replaceChildren(
      ...[
        heading(index, state),
        factsOf(index, state),
        soundBox,
        hearback.words.list(index),
        page.is_anonymous ? null : hearback.verdictForm.build(index),
        downloads(index),
        opinions(index),
      ].filter(Boolean),
    );
    if (focused)
      (document.getElementById(focused) ?? document.getElementById("recording")).focus({
        preventScroll: true,
      });
    if (!isSame) return void hearback.sound.load(index, soundBox);
    return hearback.words.showHint(page.recordings.words[index], hearback.sound.players());
  }

  hearback.recording = {
    open,
    step,
    openIndex,
    start() {
      store.follow(["clip", "model", "group", ...store.LISTING], show);
      // Waveforms draw their colours into a canvas.
      const scheme = matchMedia("(prefers-color-scheme: dark)");
      scheme.addEventListener("change", () => hearback.sound.reload());
    },
  };
})();
