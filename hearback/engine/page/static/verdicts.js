"use strict";
/** What you think of the recordings. It is kept in this browser, and can be exported. */

(() => {
  const { page, el, announce, isLabelled, makeButton } = hearback;
  const { plural } = hearback.format;
  const KEY = `hearback:${page.key}`; // of this page only
  const NAMES = {
    agree: "agree",
    wrong_label: isLabelled ? "wrong label" : "model is wrong",
    unscorable: "unscorable",
  };

  /** @typedef {{verdict: string, score: string, note: string}} Verdict */

  /** @type {Array<function(): void>} */
  const listeners = [];
  /** Changes that the browser has not kept; null takes a verdict back. @type {Map<string, ?Verdict>} */
  const unkept = new Map();
  let isKept = true;
  const isVerdict = (value) => Object.hasOwn(NAMES, value?.verdict ?? "");
  let verdicts = page.is_anonymous ? new Map() : read();

  /** Return the verdicts that are kept; another tab of this page may have changed them. */
  function read() {
    try {
      const kept = Object.entries(JSON.parse(localStorage.getItem(KEY) ?? "{}"));
      return new Map(kept.filter(([, value]) => isVerdict(value)));
    } catch {
      isKept = false; // a browser that keeps nothing for files, or private browsing
      return new Map();
    }
  }

  /** Return the verdicts that are kept, with the changes that are not. */
  function merged() {
    const found = read();
    for (const [filename, verdict] of unkept) {
      if (verdict === null) found.delete(filename);
      else found.set(filename, verdict);
    }
    return found;
  }

  /** Change verdicts by filename, and no others: those may have been changed in another tab. */
  function change(patch) {
    for (const [filename, verdict] of patch) unkept.set(filename, verdict);
    verdicts = merged();
    try {
      localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(verdicts)));
      unkept.clear();
      isKept = true;
    } catch {
      isKept = false;
    }
    tell();
  }

  function tell() {
    for (const listener of listeners) listener();
  }

  function onStorage(event) {
    if (event.key !== KEY && event.key !== null) return;
    verdicts = merged();
    tell();
  }

  /** Set the verdict of a recording; null takes it back. */
  const set = (filename, verdict) => change([[filename, verdict]]);

  const indexOf = new Map(page.recordings.filenames.map((name, index) => [name, index]));
  const carried = new Map(page.corrections.map(([filename, ...row]) => [filename, row]));

  /** Return why a row of a corrections.csv is not taken; "" if it is. */
  function problemOf({ filename, verdict, score, written }) {
    if (!indexOf.has(filename)) return "of no recording of this page";
    if (!Object.hasOwn(NAMES, verdict)) return "without a verdict that is known";
    if (verdict !== "wrong_label") return "";
    if (written === "") return "of a wrong label without the right one in “score”";
    if (score === "") return "with a “score” that is no label";
    const label = page.recordings.labels?.[indexOf.get(filename)] ?? null;
    const isLabel = String(label) === score && carried.get(filename)?.[1] !== score;
    return isLabel ? "of a wrong label whose “score” is the label itself" : "";
  }

  /** Return two notes as one: nothing that was typed is lost. */
  function joined(note, other) {
    if (!note || other.includes(note)) return other;
    return other && !note.includes(other) ? `${note}; ${other}` : note;
  }

  /** Add the verdicts of a corrections.csv; return how many, and how many not by the reason. */
  function importCsv(text) {
    const taken = new Map();
    const refused = new Map();
    let nTaken = 0;
    for (const row of hearback.imports.rowsOf(text)) {
      if (carried.has(row.filename) && !indexOf.has(row.filename)) {
        nTaken += 1; // it is left out already, and exported
        continue;
      }
      const problem = problemOf(row);
      if (problem) {
        refused.set(problem, (refused.get(problem) ?? 0) + 1);
        continue;
      }
      const { filename, verdict, score } = row;
      const before = taken.get(filename) ?? verdicts.get(filename);
      taken.set(filename, { verdict, score, note: joined(before?.note, row.note) });
      nTaken += 1;
    }
    change(taken);
    return { nTaken, refused };
  }

  function importSummary({ nTaken, refused }) {
    const added = `Added ${plural(nTaken, "verdict")}.`;
    const reasons = [...refused].map(([problem, n]) => `${plural(n, "row")} ${problem}`);
    return reasons.length ? `${added} Not taken: ${reasons.join(", ")}.` : added;
  }

  async function onFile(event) {
    const [file] = event.target.files;
    if (!file) return;
    const status = document.getElementById("import-status");
    try {
      status.textContent = importSummary(importCsv(await file.text()));
    } catch (error) {
      status.textContent = `Not read: ${error.message}.`;
    }
    event.target.value = "";
  }

  function clear() {
    if (!confirm(`Delete ${plural(verdicts.size, "verdict")} on this page?`)) return;
    change([...verdicts.keys()].map((filename) => [filename, null]));
    announce("The verdicts are deleted.");
  }

  function counts() {
    const parts = Object.entries(NAMES).map(
      ([verdict, name]) =>
        `${[...verdicts.values()].filter((each) => each.verdict === verdict).length} ${name}`,
    );
    return `${plural(verdicts.size, "verdict")}: ${parts.join(", ")}.`;
  }

  function show() {
    const hasAny = verdicts.size > 0;
    document.getElementById("verdict-count").textContent = hasAny
      ? counts()
      : "None yet. Open a recording, listen, and say whether you agree.";
    document.getElementById("verdict-kept").textContent = isKept
      ? ""
      : "This browser keeps nothing for this page: export before you close it.";
    for (const id of ["export-corrections", "clear-verdicts"])
      document.getElementById(id).disabled = !hasAny;
  }

  function build() {
    const button = (id, text, onclick) => makeButton({ id, onclick }, text);
    document.getElementById("verdicts-view").replaceChildren(
      el("p", { id: "verdict-count", role: "status" }),
      el("p", { id: "verdict-kept" }),
      el(
        "div",
        { class: "row" },
        button("export-corrections", "Export corrections.csv", () =>
          hearback.exports.downloadCorrections(),
        ),
        el(
          "label",
          { class: "file" },
          "Import corrections.csv",
          el("input", {
            type: "file",
            id: "import-corrections",
            accept: ".csv,text/csv",
            onchange: onFile,
          }),
        ),
        button("clear-verdicts", "Delete all", clear),
      ),
      el("p", { id: "import-status", role: "status" }),
      el("p", { class: "soft", id: "verdict-use" }, use()),
    );
  }

  /** Return what the exported file is good for. */
  function use() {
    if (!isLabelled) {
      return [
        "The file lists your verdicts. It is for you to read: a training does not take it, ",
        "as these recordings have no labels.",
      ];
    }
    const command = `${page.train_command} --corrections corrections.csv`;
    const n = page.corrections.filter(([, verdict]) => verdict !== "agree").length;
    const both = `The file also has the ${plural(n, "correction")} that this page was made with. `;
    return [
      n ? both : "",
      "Train with your corrections: ",
      el("code", {}, command),
    ];
  }

  hearback.verdicts = {
    NAMES,
    get: (filename) => verdicts.get(filename) ?? null,
    set,
    entries: () => [...verdicts],
    follow(listener) {
      listeners.push(listener);
      listener();
    },
    start() {
      if (page.is_anonymous) return;
      build();
      addEventListener("storage", onStorage);
      this.follow(show);
    },
  };
})();
