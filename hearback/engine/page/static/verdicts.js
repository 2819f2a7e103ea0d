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
  let isKept = true;
  let verdicts = read();

  function read() {
    try {
      return new Map(Object.entries(JSON.parse(localStorage.getItem(KEY) ?? "{}")));
    } catch {
      isKept = false; // a browser that keeps nothing for files, or private browsing
      return new Map();
    }
  }

  function write() {
    try {
      localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(verdicts)));
      isKept = true;
    } catch {
      isKept = false;
    }
    for (const listener of listeners) listener();
  }

  /** Set the verdict of a recording; null takes it back. */
  function set(filename, verdict) {
    if (verdict === null) verdicts.delete(filename);
    else verdicts.set(filename, verdict);
    write();
  }

  /** Add the verdicts of a corrections.csv; return how many, and how many it does not know. */
  function importCsv(text) {
    const [head, ...rows] = hearback.exports.parseCsv(text);
    const at = (name) => (head ?? []).indexOf(name);
    if (at("filename") < 0 || at("verdict") < 0) {
      throw new Error(
        "the file has no columns “filename” and “verdict”: choose a corrections.csv of this page",
      );
    }
    const known = new Set(page.recordings.filenames);
    const found = rows.filter(
      (row) => known.has(row[at("filename")]) && row[at("verdict")] in NAMES,
    );
    for (const row of found) {
      verdicts.set(row[at("filename")], {
        verdict: row[at("verdict")],
        score: row[at("score")] ?? "",
        note: row[at("note")] ?? "",
      });
    }
    write();
    return { nAdded: found.length, nIgnored: rows.length - found.length };
  }

  async function onFile(event) {
    const [file] = event.target.files;
    if (!file) return;
    const status = document.getElementById("import-status");
    try {
      const { nAdded, nIgnored } = importCsv(await file.text());
      const ignored = nIgnored
        ? ` ${plural(nIgnored, "row")} without a verdict or a recording of this page ignored.`
        : "";
      status.textContent = `Added ${plural(nAdded, "verdict")}.${ignored}`;
    } catch (error) {
      status.textContent = `Not read: ${error.message}.`;
    }
    event.target.value = "";
  }

  function clear() {
    if (!confirm(`Delete ${plural(verdicts.size, "verdict")} on this page?`)) return;
    verdicts = new Map();
    write();
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
      el(
        "p",
        { class: "soft" },
        "Train with your corrections: ",
        el("code", {}, `${page.train_command} --corrections corrections.csv`),
      ),
    );
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
      build();
      this.follow(show);
    },
  };
})();
