"use strict";
/** The words of a recording: buttons with scores, and regions on the waveforms. */

(() => {
  const { page, el, bdi, makeButton, charts } = hearback;
  const { isKnown, number } = hearback.format;
  const { selection, state: store } = hearback;
  const LOW = 0.5; // scores below are shown as doubtful

  /** What stands for a score: colours, and a style of line for those who see none. */
  const LOOKS = {
    good: { line: "--blue", style: "solid", veil: "--blue-veil" },
    bad: { line: "--orange", style: "double", veil: "--orange-veil" },
    unscored: { line: "--text-soft", style: "dotted", veil: "--grey-veil" },
  };
  const lookOf = (score) => (!isKnown(score) ? "unscored" : score < LOW ? "bad" : "good");

  /** Return whether a word takes time: an aligner may give one that was not said none. */
  const isSpan = (start, end) => isKnown(start) && isKnown(end) && end > start;

  /** Return whether a word is shown as where learner and reference part: only where it matters. */
  function isParting(index, words, at) {
    if (!words.diverges[at]) return false;
    const hasScores = words.scores.some(isKnown);
    const score = hasScores ? words.scores[at] : selection.prediction(index, store.get().model);
    return isKnown(score) && score < LOW;
  }

  function wordButton(index, words, at) {
    const score = words.scores[at];
    const hasTime = isSpan(words.starts[at], words.ends[at]);
    const isEmpty = words.starts[at] === words.ends[at] && isKnown(words.starts[at]);
    const attributes = {
      class: `word ${lookOf(score)}`,
      "data-word": at,
      disabled: !hasTime || !hearback.recordings.hasSound(index),
      onclick: () => hearback.sound.playWord(words, at),
    };
    return makeButton(
      attributes,
      el("span", { class: "spelled" }, bdi(words.words[at])),
      el("span", { class: "score" }, number(score, 2)),
      isEmpty ? el("span", { class: "score" }, "not heard") : null,
      isParting(index, words, at)
        ? el("span", { class: "divergence" }, "≠ here learner and reference part")
        : null,
    );
  }

  /** Return the words of a recording as buttons, or null if it has none. */
  function list(index) {
    const words = page.recordings.words[index];
    if (!words?.words.length) return null;
    const by = words.scores.some(isKnown) ? page.recordings.words_by : "";
    const legend = `Blue, single line: probably said. Orange, double line: below ${LOW}.`;
    const items = words.words.map((_, at) => el("li", {}, wordButton(index, words, at)));
    return el(
      "div",
      {},
      el("h4", {}, "Words", by ? [", as scored by ", bdi(by)] : null),
      el("p", { class: "soft" }, legend, el("span", { id: "words-hint" })),
      el("ol", { class: "words" }, items),
    );
  }

  /** Say in which sounds a word can be heard; nothing if in none. */
  function showHint(words, { learner, reference }) {
    const hint = document.getElementById("words-hint");
    if (!hint || !learner || !words?.starts.some(isKnown)) return;
    const inBoth = reference && words.reference_starts.some(isKnown);
    hint.textContent = ` Choose a word to hear it${inBoth ? " in both" : ""}.`;
  }

  /**
   * Return what stands in the region of a word. It is in a shadow tree, where the style sheet ends.
   * The plugin moves labels apart that touch, as those of neighbours do: the outer one has no width.
   */
  function regionContent(word, score) {
    const label = el("span", {}, word, isKnown(score) ? [el("br"), number(score, 2)] : null);
    const { line, style } = LOOKS[lookOf(score)];
    Object.assign(label.style, {
      position: "absolute",
      top: "0",
      left: "0",
      right: "2px",
      padding: "1px 3px",
      overflow: "hidden",
      whiteSpace: "nowrap",
      font: "11px/1.25 system-ui, sans-serif",
      color: charts.color("--text"),
      background: charts.color("--card-veil"),
      borderBottom: `4px ${style} ${charts.color(line)}`,
    });
    const content = el("span", {}, label);
    Object.assign(content.style, { display: "block", width: "0" });
    return content;
  }

  /** Add a region for every word that has a time; a click plays the word. */
  function addRegions(player, words, starts, ends) {
    words.words.forEach((word, at) => {
      const [start, end, score] = [starts[at], ends[at], words.scores[at]];
      if (!isSpan(start, end)) return;
      const region = player.regions.addRegion({
        id: String(at),
        start,
        end,
        drag: false,
        resize: false,
        color: charts.color(LOOKS[lookOf(score)].veil),
        content: regionContent(word, score),
      });
      region.on("click", (event) => {
        event.stopPropagation();
        hearback.sound.playWord(words, at);
      });
    });
  }

  hearback.words = { list, addRegions, showHint, isSpan };
})();
