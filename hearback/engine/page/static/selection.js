"use strict";
/** Which recordings are listed, and in which order. Nothing here touches the page. */

(() => {
  const { page, isBinary, isLabelled, nRecordings } = hearback;
  const { isKnown } = hearback.format;
  const { recordings } = page;
  const all = Array.from({ length: nRecordings }, (_, index) => index);

  const prediction = (index, model) => recordings.predictions[model]?.[index] ?? null;
  const loss = (index, model) => recordings.losses[model]?.[index] ?? null;
  const label = (index) => recordings.labels?.[index] ?? null;
  const predictedClass = (index, model) => recordings.predicted_classes[model]?.[index] ?? null;

  /** Return the value of a column of text; the status is that of the model, where it has one. */
  function field(name, index, model) {
    if (name !== "status" || !page.status_range) return recordings.fields[name]?.[index];
    const value = prediction(index, model);
    if (!isKnown(value)) return "";
    const [low, high] = page.status_range;
    return value > low && value < high ? "unsure" : "ok";
  }

  /** What a search looks at, in lower case. */
  const searched = all.map((index) =>
    [
      recordings.filenames[index],
      recordings.texts[index] ?? "",
      recordings.fields[page.people]?.[index] ?? "",
    ]
      .join("\n")
      .toLowerCase(),
  );

  /** Return the smallest loss of any model: a large one means that no model believes the label. */
  const smallestLosses = all.map((index) => {
    const losses = page.models.map((model) => loss(index, model.name)).filter(isKnown);
    return losses.length ? Math.min(...losses) : null;
  });

  /** Return the column whose values are the groups of the reliability curves; null for none. */
  const binColumn = () => (page.field_names.includes(page.bins_by) ? page.bins_by : null);

  /** Return the bin that the list is limited to, or null. */
  function chosenBin(state) {
    const model = hearback.state.model();
    const bins = model.reliability[state.group] ?? model.reliability.all;
    return state.bin === "" ? null : (bins?.[Number(state.bin)] ?? null);
  }

  /** Return whether a recording is in a bin; the last bin has those at its end, too. */
  function isInBin(index, state, bin, column) {
    const value = prediction(index, state.model);
    if (!isKnown(value) || (isLabelled && !isKnown(loss(index, state.model)))) return false;
    const isInGroup =
      state.group === "all" || recordings.fields[column]?.[index] === state.group;
    return isInGroup && value >= bin.low && (value < bin.high || (bin.high >= 1 && value <= 1));
  }

  function isInCell(index, state) {
    const [actual, said] = state.cell.split("-").map(Number);
    return label(index) === actual && predictedClass(index, state.model) === said;
  }

  /** Return the indices of the recordings that pass every filter. */
  function filtered(state) {
    const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
    const bin = chosenBin(state);
    const column = bin && binColumn();
    const fields = Object.entries(state.fields);
    return all.filter(
      (index) =>
        words.every((word) => searched[index].includes(word)) &&
        fields.every(([name, value]) => field(name, index, state.model) === value) &&
        (!bin || isInBin(index, state, bin, column)) &&
        (!state.cell || isInCell(index, state)) &&
        (!state.label || label(index) === Number(state.label)),
    );
  }

  /** Return the function that gives the key to sort by; null is always last. */
  function sortKey(state) {
    const { model, t } = state;
    const keys = {
      file: (index) => recordings.filenames[index],
      text: (index) => recordings.texts[index],
      label: (index) => label(index),
      said: (index) => predictedClass(index, model),
      prediction: (index) => prediction(index, model),
      loss: (index) => loss(index, model),
      suspect: (index) => smallestLosses[index],
      doubt: (index) => doubt(index, model, t),
    };
    if (Object.hasOwn(keys, state.order)) return keys[state.order];
    return columnKey(state.order.slice(hearback.state.FIELD.length), model);
  }

  /** Return the key to sort a column by: the place in its order, then the other values. */
  function columnKey(name, model) {
    const places = placesOf(name, model);
    return (index) => places.get(field(name, index, model)) ?? null;
  }

  /** Return the places of a column's values, those of the page's order first, then sorted. */
  function placesOf(name, model) {
    const there = new Set(all.map((index) => field(name, index, model)));
    const first = (page.order[name] ?? []).filter((value) => there.has(value));
    for (const value of first) there.delete(value);
    const others = [...there].sort(collator.compare);
    return new Map([...first, ...others].map((value, place) => [value, place]));
  }

  /** Return how doubtful a recording is: larger is nearer to the threshold, or less sure. */
  function doubt(index, model, threshold) {
    const value = prediction(index, model);
    if (!isKnown(value)) return null;
    return isBinary ? -Math.abs(value - threshold) : -value;
  }

  const collator = new Intl.Collator("en", { numeric: true });

  /** Return indices in the chosen order. */
  function sorted(indices, state) {
    const keyOf = sortKey(state);
    const keys = new Map(indices.map((index) => [index, keyOf(index)]));
    const sign = state.dir === "asc" ? 1 : -1;
    const compare = (a, b) => {
      const one = keys.get(a);
      const other = keys.get(b);
      if (!isKnown(one) || !isKnown(other)) return isKnown(other) - isKnown(one) || a - b;
      const order = typeof one === "string" ? collator.compare(one, other) : one - other;
      return sign * order || a - b;
    };
    return [...indices].sort(compare);
  }

  let kept = { key: "", indices: all };

  /** Return the indices of the listed recordings, in order. */
  function listed(state) {
    const { q, order, dir, bin, cell, label: only, fields, model, group, t } = state;
    const key = JSON.stringify([
      q,
      order,
      dir,
      bin,
      cell,
      only,
      fields,
      model,
      bin && group,
      order === "doubt" && t,
    ]);
    if (key !== kept.key) kept = { key, indices: sorted(filtered(state), state) };
    return kept.indices;
  }

  hearback.selection = {
    listed,
    chosenBin,
    binColumn,
    placesOf,
    prediction,
    loss,
    label,
    field,
    predictedClass,
    smallestLosses,
  };
})();
