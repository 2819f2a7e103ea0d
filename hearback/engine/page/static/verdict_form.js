"use strict";
/** Your verdict on the open recording: agree, wrong label, or unscorable, and a note. */

(() => {
  const { page, el, isBinary, isLabelled, announce, select, makeButton, keyHint } = hearback;
  const { selection, verdicts } = hearback;
  const KEYS = { agree: "a", wrong_label: "w", unscorable: "u" };

  /** Return the class that a verdict "wrong" is about: the label, or without one the model's. */
  function wrongClass(index) {
    return selection.label(index) ?? selection.predictedClass(index, hearback.state.get().model);
  }

  /** Return the label that "wrong label" most likely means. */
  function likelyLabel(index) {
    const label = selection.label(index);
    if (!isBinary) {
      const wrong = wrongClass(index);
      const said = selection.predictedClass(index, hearback.state.get().model) ?? 0;
      if (said !== wrong) return said;
      return wrong === 0 ? 1 : 0; // the wrong one cannot be the right one
    }
    if (isLabelled) return 1 - label;
    return (selection.prediction(index, hearback.state.get().model) ?? 0) >= 0.5 ? 0 : 1;
  }

  /** Give a verdict, or take it back if it is given already: not with its note, which was typed. */
  function give(index, verdict) {
    const filename = page.recordings.filenames[index];
    const given = verdicts.get(filename);
    const note = given?.note ?? "";
    if (given?.verdict === verdict && note) {
      const kept = "To take this verdict back, delete its note first.";
      document.getElementById("verdict-hint").textContent = kept;
      return announce(kept);
    }
    if (given?.verdict === verdict) {
      verdicts.set(filename, null);
      announce("Verdict taken back");
    } else {
      const score = verdict === "wrong_label" ? String(likelyLabel(index)) : "";
      verdicts.set(filename, { verdict, score, note });
      announce(`Verdict: ${verdicts.NAMES[verdict]}`);
    }
    return undefined;
  }

  function change(index, patch) {
    const filename = page.recordings.filenames[index];
    const given = verdicts.get(filename);
    if (given) verdicts.set(filename, { ...given, ...patch });
  }

  function buttons(index, given) {
    return Object.entries(verdicts.NAMES).map(([verdict, name]) =>
      makeButton(
        {
          id: `verdict-${verdict}`,
          "aria-pressed": String(given?.verdict === verdict),
          onclick: () => give(index, verdict),
        },
        name,
        keyHint(KEYS[verdict]),
      ),
    );
  }

  /** Return the choice of the right label; with two labels it can only be the other one. */
  function labelChoice(index, given) {
    if (given?.verdict !== "wrong_label" || (isBinary && isLabelled)) return null;
    const wrong = isBinary ? null : wrongClass(index);
    const options = page.label_names
      .map((name, each) => [String(each), name])
      .filter(([value]) => value !== String(wrong) || value === given.score);
    const node = select("Right label", options, given.score, (score) => change(index, { score }));
    node.querySelector("select").id = "right-label";
    return node;
  }

  function content(index) {
    const given = verdicts.get(page.recordings.filenames[index]);
    const note = el("input", {
      type: "text",
      id: "verdict-note",
      value: given?.note ?? "",
      disabled: !given,
      maxlength: 500,
      placeholder: given ? "" : "after a verdict",
      oninput: () => change(index, { note: note.value }), // the page may be closed at any time
    });
    const right =
      given?.verdict === "wrong_label" && isBinary && isLabelled
        ? el("span", { class: "soft" }, `right: “${page.label_names[given.score] ?? given.score}”`)
        : null;
    return [
      el("legend", {}, "Your verdict"),
      el("div", { class: "row" }, buttons(index, given), right, labelChoice(index, given)),
      el("p", { id: "verdict-hint", class: "soft" }),
      el("label", { class: "field wide" }, el("span", {}, "Note"), note),
    ].filter(Boolean);
  }

  function fill(form, index) {
    const { verdict = "", score = "" } = verdicts.get(page.recordings.filenames[index]) ?? {};
    form.dataset.shown = `${verdict} ${score}`;
    form.replaceChildren(...content(index));
    return form;
  }

  function refresh(index) {
    const form = document.getElementById("verdict-form");
    const focused = form.contains(document.activeElement) ? document.activeElement.id : "";
    fill(form, index);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  /** Show the verdict as it is now, unless the form shows it already: it may be typed into. */
  function follow() {
    const index = hearback.recording.openIndex();
    const note = document.getElementById("verdict-note");
    if (index === null || !note) return;
    const given = verdicts.get(page.recordings.filenames[index]);
    const { verdict = "", score = "" } = given ?? {};
    const { shown } = document.getElementById("verdict-form").dataset;
    if (shown !== `${verdict} ${score}` || note.value !== (given?.note ?? "")) refresh(index);
  }

  hearback.verdictForm = {
    KEYS,
    give,
    build: (index) => fill(el("fieldset", { id: "verdict-form" }), index),
    start: () => verdicts.follow(follow),
  };
})();
