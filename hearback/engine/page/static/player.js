"use strict";
/** Sound: the clips of the page, and a waveform that plays one of them. */

(() => {
  const { page } = hearback;
  const { color } = hearback.charts;
  const SAMPLE_RATE = 16000;

  /** @typedef {{learner: string, reference: string}} Clip MP3 in base64, "" for none */

  /** Clips of scripts that are beside the page. @type {Map<number, Clip>} */
  const added = new Map();
  const scriptOf = new Map(
    Object.entries(page.clip_scripts).flatMap(([path, indices]) =>
      indices.map((index) => [index, path]),
    ),
  );

  /** Called by the scripts beside the page; those of another page have other recordings. */
  hearback.addClips = (key, clips) => {
    if (key !== page.clip_key) return;
    for (const [index, clip] of Object.entries(clips)) added.set(Number(index), clip);
  };

  function loadScript(path) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.onload = resolve;
      script.onerror = () =>
        reject(new Error(`the sound is in ${decodeURI(path)}, which is not beside this page`));
      script.src = path;
      document.head.append(script);
    });
  }

  /**
   * Return the clip of a recording, or null if the page has none.
   * @returns {Promise<?Clip>}
   */
  async function clipOf(index) {
    const inside = document.getElementById(`clip-${index}`);
    if (inside) return JSON.parse(inside.textContent);
    if (scriptOf.has(index) && !added.has(index)) {
      const path = scriptOf.get(index);
      await loadScript(path);
      if (!added.has(index)) {
        throw new Error(
          `the sound in ${decodeURI(path)} is that of another page, which was made later; open that one, or make this one again`,
        );
      }
    }
    return added.get(index) ?? null;
  }

  function toBlob(base64) {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    return new Blob([bytes], { type: "audio/mpeg" });
  }

  /** Return the samples at 16 kHz. An offline context needs no gesture of the user. */
  async function decode(blob) {
    const context = new OfflineAudioContext(1, 1, SAMPLE_RATE);
    return context.decodeAudioData(await blob.arrayBuffer());
  }

  function plugins(spectrogram) {
    const regions = WaveSurfer.Regions.create();
    if (!spectrogram) return { regions, all: [regions] };
    const drawn = WaveSurfer.Spectrogram.create({
      container: spectrogram,
      height: 140,
      labels: true,
      scale: "mel",
      fftSamples: 512,
      frequencyMax: SAMPLE_RATE / 2,
      colorMap: "roseus",
      labelsBackground: "rgba(0, 0, 0, 0.6)",
      labelsColor: "#fff",
      labelsHzColor: "#fff",
    });
    return { regions, all: [regions, drawn] };
  }

  /** A waveform that plays one sound, whole or a part of it. */
  class Player {
    /** @type {?function(): void} */
    #release = null; // ends the wait of `playPart`

    constructor(surfer, regions, seconds) {
      this.surfer = surfer;
      this.regions = regions;
      this.seconds = seconds;
      surfer.on("pause", () => this.#ended());
      surfer.on("finish", () => this.#ended());
    }

    /**
     * Show and load a sound.
     * @param {HTMLElement} container
     * @param {string} base64
     * @param {?HTMLElement} spectrogram where it is drawn; null for none
     */
    static async create(container, base64, spectrogram) {
      const blob = toBlob(base64);
      const decoded = await decode(blob);
      const { regions, all } = plugins(spectrogram);
      const surfer = WaveSurfer.create({
        container,
        height: 96,
        sampleRate: SAMPLE_RATE,
        cspNonce: page.style_nonce,
        waveColor: color("--wave"),
        progressColor: color("--wave-played"),
        cursorColor: color("--text"),
        cursorWidth: 2,
        normalize: true,
        hideScrollbar: true,
        dragToSeek: true,
        plugins: all,
      });
      try {
        await surfer.loadBlob(blob, [decoded.getChannelData(0)], decoded.duration);
      } catch (error) {
        surfer.destroy();
        throw error;
      }
      return new Player(surfer, regions, decoded.duration);
    }

    #ended() {
      this.#release?.();
      this.#release = null;
    }

    get isPlaying() {
      return this.surfer.isPlaying();
    }

    /** Play on from where it is; from the start if it is at the end. */
    play() {
      this.#ended();
      const now = this.surfer.getCurrentTime();
      const isAtEnd = now >= this.seconds - 0.01;
      // A start, even where it is: without one it would stop at the end of the last part.
      return this.surfer.play(isAtEnd ? 0 : now);
    }

    pause() {
      this.surfer.pause();
    }

    /** Play from `start` to `end`, in s; resolve when it stops. */
    async playPart(start, end) {
      this.#ended();
      const stopped = new Promise((resolve) => {
        this.#release = resolve;
      });
      const last = Math.min(end, this.seconds);
      await this.surfer.play(Math.max(0, start), last);
      // wavesurfer.js looks once a frame: a busy browser draws few of them.
      const look = setInterval(() => this.#stopAt(last), 5);
      await stopped;
      clearInterval(look);
    }

    #stopAt(end) {
      if (!this.isPlaying || this.surfer.getCurrentTime() < end) return;
      this.surfer.pause();
      this.surfer.setTime(end);
    }

    setRate(rate) {
      this.surfer.setPlaybackRate(rate, true);
    }

    destroy() {
      this.#ended();
      this.surfer.destroy();
    }
  }

  hearback.player = { Player, clipOf };
})();
