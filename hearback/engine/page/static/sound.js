"use strict";
/** The sound of the open recording: the learner over the reference, as waveforms that play. */

(() => {
  const { page, el, makeButton, keyHint, announce, isBinary } = hearback;
  const { number, percent } = hearback.format;
  const RATES = [1, 0.75];

  /** @type {Object<string, Player>} by name: learner, reference */
  let players = {};
  let nAsked = 0; // goes up when other sound is to be played: what waits for its turn gives up
  let nLoaded = 0; // goes up when another recording is loaded: what still loads is thrown away
  let rate = RATES[0];
  let hasSpectrogram = false;

  function stop() {
    nAsked += 1;
    for (const player of Object.values(players)) player.pause();
  }

  function refuse(error) {
    const status = document.getElementById("sound-status");
    if (status) status.textContent = `It cannot be played: ${error.message}.`;
  }

  /** Play a word of the learner's, then of the reference. */
  async function playWord(words, at) {
    stop();
    const asked = nAsked;
    const spans = {
      learner: [words.starts[at], words.ends[at]],
      reference: [words.reference_starts[at], words.reference_ends[at]],
    };
    try {
      for (const [name, [start, end]] of Object.entries(spans)) {
        const canPlay = players[name] && hearback.words.isSpan(start, end);
        if (canPlay && asked === nAsked) await players[name].playPart(start, end);
      }
    } catch (error) {
      refuse(error);
    }
  }

  /** Play or stop the learner, or the reference. */
  function toggle(name = "learner") {
    const player = players[name];
    if (!player) return;
    const wasPlaying = player.isPlaying;
    stop();
    if (!wasPlaying) player.play().catch(refuse);
  }

  const press = (id, isPressed) =>
    document.getElementById(id)?.setAttribute("aria-pressed", String(isPressed));

  function toggleRate() {
    rate = RATES[(RATES.indexOf(rate) + 1) % RATES.length];
    for (const player of Object.values(players)) player.setRate(rate);
    press("slower", rate < 1);
    announce(`Speed ${percent(rate, 0)}`);
  }

  function toggleSpectrogram() {
    hasSpectrogram = !hasSpectrogram;
    press("spectrogram", hasSpectrogram);
    reload();
  }

  function controls(clip) {
    const make = (id, text, key, onclick, isPressed = null) =>
      makeButton({ id, onclick, "aria-pressed": isPressed }, text, keyHint(key));
    return el(
      "div",
      { class: "row" },
      make("play", "Play", "space", () => toggle(), "false"),
      clip.reference
        ? make("play-reference", "Reference", "r", () => toggle("reference"), "false")
        : null,
      make("slower", "Slower", "s", toggleRate, String(rate < 1)),
      make("spectrogram", "Spectrogram", "c", toggleSpectrogram, String(hasSpectrogram)),
      make("help-button", "Keys", "?", () => hearback.keys.showHelp()),
    );
  }

  function remove() {
    stop();
    nLoaded += 1;
    for (const player of Object.values(players)) player.destroy();
    players = {};
  }

  /** Return the elements that a sound is shown in, and the id of the button that plays it. */
  function track(title, button) {
    const wave = el("div", { class: "wave" });
    const spectrogram = hasSpectrogram ? el("div", { class: "spectrogram" }) : null;
    const time = el("span", { class: "time num" });
    const caption = el("figcaption", {}, title, time);
    const node = el("figure", { class: "track" }, caption, wave, spectrogram);
    return { wave, spectrogram, time, node, button };
  }

  async function makePlayer({ wave, spectrogram, time, button }, base64) {
    const player = await hearback.player.Player.create(wave, base64, spectrogram);
    const showTime = () => {
      const at = number(player.surfer.getCurrentTime(), 1);
      time.textContent = ` ${at} of ${number(player.seconds, 1)} s`;
    };
    player.surfer.on("timeupdate", showTime);
    player.surfer.on("play", () => press(button, true));
    player.surfer.on("pause", () => press(button, false));
    showTime();
    player.setRate(rate);
    return player;
  }

  function noSound() {
    if (page.is_anonymous) return el("p", { class: "soft" }, "An anonymous page has no sound.");
    const what = "There is no sound of this recording in this page";
    if (!page.report_command)
      return el("p", { class: "soft" }, `${what}: its file was not found, or cannot be read.`);
    return el(
      "p",
      { class: "soft" },
      `${what}. All that can be read are included by `,
      el("code", {}, `${page.report_command} --audio all`),
      ".",
    );
  }

  /** Load the sound of a recording into `box`, unless another is loaded in the meantime. */
  async function load(index, box) {
    remove();
    const loaded = nLoaded;
    const isStale = () => nLoaded !== loaded;
    try {
      const clip = await hearback.player.clipOf(index);
      if (isStale()) return;
      if (clip?.learner) await show(index, clip, box, isStale);
      else box.replaceChildren(noSound());
    } catch (error) {
      if (isStale()) return;
      box.replaceChildren(el("p", { class: "note" }, `No sound: ${error.message}.`));
    }
  }

  async function show(index, clip, box, isStale) {
    const tracks = { learner: track(isBinary ? "Learner" : "Snippet", "play") };
    if (clip.reference) tracks.reference = track("Reference", "play-reference");
    const nodes = Object.values(tracks).map((each) => each.node);
    const status = el("p", { id: "sound-status", role: "status" });
    box.replaceChildren(controls(clip), ...nodes, status);
    for (const [name, each] of Object.entries(tracks)) {
      const player = await makePlayer(each, clip[name]);
      if (isStale()) return void player.destroy();
      players[name] = player;
    }
    showRegions(page.recordings.words[index]);
  }

  function showRegions(words) {
    if (!words) return;
    const { addRegions } = hearback.words;
    const { learner, reference } = players;
    hearback.words.showHint(words, players);
    addRegions(learner, words, words.starts, words.ends);
    if (reference) addRegions(reference, words, words.reference_starts, words.reference_ends);
  }

  function reload() {
    const box = document.getElementById("sound");
    const index = hearback.recording.openIndex();
    if (box && index !== null) load(index, box);
  }

  hearback.sound = {
    load,
    remove,
    reload,
    playWord,
    toggle,
    toggleRate,
    toggleSpectrogram,
    /** The players of the open recording, by name. */
    players: () => players,
  };
})();
