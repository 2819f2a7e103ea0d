"use strict";
/** Keys for those who listen to many recordings. */

(() => {
  const { page, el, makeButton, announce, goTo } = hearback;

  const HELP = [
    ["space", "play or stop"],
    ["r", "play or stop the reference"],
    ["n or j", "next recording"],
    ["p or k", "previous recording"],
    ["s", "slower, and back"],
    ["c", "spectrogram on or off"],
    ...(page.is_anonymous ? [] : [["a, w, u", "your verdict: agree, wrong, unscorable"]]),
    ["?", "these keys"],
  ];

  /** Return what a key does, or undefined. */
  function actionOf(key) {
    const { recording, verdictForm } = hearback;
    const index = recording.openIndex();
    const moves = { n: 1, j: 1, p: -1, k: -1 };
    if (key === "?") return showHelp;
    if (Object.hasOwn(moves, key)) return () => recording.step(moves[key]);
    if (index === null) return undefined;
    const verdict = Object.keys(verdictForm.KEYS).find((each) => verdictForm.KEYS[each] === key);
    if (verdict && !page.is_anonymous)
      return isInSight() ? () => verdictForm.give(index, verdict) : showOpen;
    return {
      " ": () => hearback.sound.toggle(),
      r: () => hearback.sound.toggle("reference"),
      s: () => hearback.sound.toggleRate(),
      c: () => hearback.sound.toggleSpectrogram(),
    }[key];
  }

  /** Return whether the open recording can be seen: nobody judges what they do not see. */
  function isInSight() {
    const { top, bottom } = document.getElementById("recording").getBoundingClientRect();
    return top < innerHeight && bottom > 0;
  }

  function showOpen() {
    goTo(document.getElementById("recording"));
    announce("This recording is open. Press the key again for a verdict.");
  }

  /** Return whether the key belongs to the element that has the focus. */
  function isForElement(event) {
    if (event.target.closest("input:not([type=range]), select, textarea, dialog")) return true;
    return event.key === " " && Boolean(event.target.closest("button, summary, a, input, .scroll"));
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || isForElement(event)) return;
    const action = actionOf(event.key);
    if (!action) return;
    event.preventDefault();
    action();
  }

  function showHelp() {
    const dialog = document.getElementById("help") ?? buildHelp();
    if (!dialog.open) dialog.showModal();
  }

  function buildHelp() {
    const items = HELP.map(([keys, what]) =>
      el("div", {}, el("dt", {}, el("kbd", {}, keys)), el("dd", {}, what)),
    );
    const dialog = el(
      "dialog",
      { id: "help", "aria-labelledby": "help-h" },
      el("h2", { id: "help-h" }, "Keys"),
      el("dl", { class: "facts" }, items),
      makeButton({ onclick: () => dialog.close() }, "Close"),
    );
    document.body.append(dialog);
    return dialog;
  }

  hearback.keys = {
    showHelp,
    start: () => document.addEventListener("keydown", onKey),
  };
})();
