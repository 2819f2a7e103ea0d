"""Pages to test with: made-up recordings, models and sound, by a fixed seed."""

import base64
import itertools
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO

import numpy as np
import soundfile

from hearback.engine.page.content import (
    Attempt,
    Bin,
    Clip,
    Curve,
    DataSummary,
    Distribution,
    Estimate,
    GroupResult,
    ModelResult,
    Page,
    Recordings,
    Refused,
    Verdict,
    Words,
)

SAMPLE_RATE = 16_000
MODELS = ("ensemble", "modeltok", "modelali", "model2m")
TEXT = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog"]
ENCODED_SECONDS = 2.0
# Texts that are markup, or another direction, if a page is careless.
NASTY = (
    '</script><script>alert("x")</script>.wav',
    "<!--<script>.wav",
    "\"quoted\" 'name' & more.wav",
    "שלום \u202eעולם.wav",
    "<img src=x onerror=alert(1)>.wav",
    "=1+1, with a comma\u2028and a line.wav",
)


def mp3(seconds: float, hertz: float) -> str:
    """Return a tone that swells and fades as MP3, base64."""
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    waveform = 0.6 * np.sin(2 * np.pi * hertz * time) * np.abs(np.sin(np.pi * 2 * time))
    file = BytesIO()
    soundfile.write(file, waveform.astype(np.float32), SAMPLE_RATE, format="MP3")
    return base64.b64encode(file.getvalue()).decode()


def sound(indices: Sequence[int], has_reference: bool = True) -> dict[str, Clip]:
    """Return clips of `ENCODED_SECONDS` for these recordings."""
    learner, reference = mp3(ENCODED_SECONDS, 440.0), mp3(ENCODED_SECONDS, 330.0)
    return {str(index): Clip(learner, reference if has_reference else "") for index in indices}


def words(n: int, rng: np.random.Generator) -> dict[str, Words]:
    """Return words with scores and times for `n` recordings; one of each diverges."""
    found = {}
    edges = np.linspace(0.05, ENCODED_SECONDS - 0.05, len(TEXT) + 1).tolist()
    for index in range(n):
        scores = rng.beta(4, 1.2, len(TEXT)).round(4).tolist()
        lowest = int(np.argmin(scores))
        scores[lowest] = round(scores[lowest] / 3, 4)
        found[str(index)] = Words(
            TEXT,
            scores,
            starts=edges[:-1],
            ends=edges[1:],
            reference_starts=edges[:-1],
            reference_ends=edges[1:],
            diverges=[int(at == lowest) for at in range(len(TEXT))],
        )
    return found


def _names(n: int) -> list[str]:
    names = [f"speaker{index % 40:02d}/clip{index:05d}.wav" for index in range(n)]
    for at, name in enumerate(NASTY[:n]):
        names[at] = name
    return names


def _fields(n: int) -> dict[str, list[str]]:
    return {
        "grade": ["K123"[index % 4] for index in range(n)],
        "task": [("word", "sentence", "nonword", "blending")[index // 4 % 4] for index in range(n)],
        "speaker": [f"speaker{index % 40:02d}" for index in range(n)],
    }


def reliability(labels: np.ndarray, predictions: np.ndarray, rows: np.ndarray) -> list[Bin]:
    """Return ten bins of the selected rows, (rows,) bool."""
    edges = np.linspace(0, 1, 11).round(10)
    bins = []
    for low, high in itertools.pairwise(edges.tolist()):
        inside = rows & (predictions >= low) & ((predictions < high) | (high == 1))
        n = int(inside.sum())
        if n:
            share = float(labels[inside].mean())
            margin = 1.96 * np.sqrt(share * (1 - share) / n + 0.1 / n**2)
            estimate = Estimate(share, max(0, share - margin), min(1, share + margin))
            bins.append(Bin(low, high, n, float(predictions[inside].mean()), estimate))
        else:
            bins.append(Bin(low, high, 0, None, Estimate(None)))
    return bins


def _estimate(values: np.ndarray) -> Estimate:
    if not len(values):
        return Estimate(None)
    mean, margin = float(values.mean()), float(1.96 * values.std() / np.sqrt(len(values)))
    return Estimate(mean, max(0, mean - margin), mean + margin)


def _groups(
    fields: dict[str, list[str]], labels: np.ndarray, predictions: np.ndarray, losses: np.ndarray
) -> list[GroupResult]:
    groups = []
    for by, column in fields.items():
        for value in sorted(set(column)):
            rows = np.array(column) == value
            groups.append(
                GroupResult(
                    by,
                    value,
                    int(rows.sum()),
                    _estimate(losses[rows]),
                    _estimate(predictions[rows & (labels == 1)] < 0.5),
                    _estimate(predictions[rows & (labels == 0)] >= 0.5),
                )
            )
    return groups


def _model(name: str, at: int, labels: np.ndarray, predictions: np.ndarray, n: int) -> ModelResult:
    fields = _fields(n)
    losses = -np.log(np.where(labels == 1, predictions, 1 - predictions))
    everything = np.full(n, True)
    by_group = {"all": reliability(labels, predictions, everything)}
    for grade in "K123":
        by_group[grade] = reliability(labels, predictions, np.array(fields["grade"]) == grade)
    return ModelResult(
        name,
        is_ensemble=name == "ensemble",
        weight=None if name == "ensemble" else [0.5, 0.3, 0.2][at - 1],
        n=n,
        log_loss=_estimate(losses),
        metrics={"AUC": Estimate(0.93 - 0.01 * at, 0.92 - 0.01 * at, 0.94 - 0.01 * at)},
        reliability=by_group,
        groups=_groups(fields, labels, predictions, losses),
    )


def _curves() -> list[Curve]:
    curves = []
    for model in MODELS[1:]:
        for fold in range(5):
            is_stalled = model == "modelali" and fold == 3
            epochs = np.arange(9)
            losses = 0.35 + 0.34 * np.exp(-epochs / (2 + 0.3 * fold)) + 0.004 * epochs
            if is_stalled:
                losses = np.full(9, 0.69)
            attempts = [Attempt("finished")]
            if is_stalled:
                attempts = [
                    Attempt("restarted", "loss did not fall"),
                    Attempt("stalled", "log loss 0.69"),
                ]
            curves.append(
                Curve(
                    model,
                    fold,
                    losses.tolist(),
                    [None, *losses[1:].tolist()],
                    int(losses.argmin()),
                    attempts,
                )
            )
    return curves


def _data(n: int) -> DataSummary:
    return DataSummary(
        facts=[
            ("Recordings", f"{n}"),
            ("Speakers", "40"),
            ("Said it", "72 %"),
            ("Length", "1.2 h"),
        ],
        distributions=[
            Distribution("Grade", list("K123"), [n // 4] * 4),
            Distribution("Task", ["word", "sentence", "nonword"], [n // 2, n // 3, n // 6]),
            Distribution(
                "Length", ["0–1", "1–2", "2–4", "4–8", "8–16"], [3, n // 2, n // 4, 9, 2], "s"
            ),
        ],
        refused=[
            Refused("silent.wav", 12, "the recording is silent", "Record it again."),
            Refused(
                "</td>.wav", None, "is not listed in the table", "Add a row, or delete the file."
            ),
        ],
    )


def binary_page(n: int = 300, n_clips: int = 12, labelled: bool = True, seed: int = 0) -> Page:
    """Return a page of readings: the first `n_clips` with sound, the first 300 with words."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.72).astype(int)
    skill = rng.normal(2.2 * (2 * labels - 1), 1.6)
    predictions = {
        name: np.clip(1 / (1 + np.exp(-(skill + rng.normal(0, 0.5 + 0.3 * at, n)))), 0.001, 0.999)
        for at, name in enumerate(MODELS)
    }
    losses = {
        name: (-np.log(np.where(labels == 1, x, 1 - x))).tolist() for name, x in predictions.items()
    }
    models = [_model(name, at, labels, predictions[name], n) for at, name in enumerate(MODELS)]
    if not labelled:
        models = [ModelResult(model.name, model.is_ensemble, model.weight) for model in models]
    recordings = Recordings(
        filenames=_names(n),
        texts=[" ".join(TEXT)] * n,
        fields=_fields(n),
        labels=labels.tolist() if labelled else None,
        predictions={name: x.tolist() for name, x in predictions.items()},
        losses=losses if labelled else {},
        seconds=[ENCODED_SECONDS] * n,
        notes=[""] * n,
        words=words(min(n, 300), rng),
        clips=sound(range(n_clips)),
    )
    return Page(
        title="Did they say it?",
        made_by="hearback 2.0 · python report.py · 2026-11-29",
        kind="binary",
        verdict=Verdict(
            sentences=[
                "The ensemble’s log loss is 0.31 (0.28 to 0.34); the base rate costs 0.59.",
                "It is worse for grade K and for nonwords.",
                "Let a person hear what gets between 0.35 and 0.65.",
            ],
            warnings=["These recordings are quieter than those of the training."],
            card=[("Backbone", "whisper-tiny.en"), ("Folds", "5"), ("Trained on", "38,095 clips")],
        ),
        data=_data(n),
        models=models,
        recordings=recordings,
        label_names=["did not say it", "said it"],
        people="speaker",
        base_rate_log_loss=0.593 if labelled else None,
        unsure=(0.35, 0.65),
        bins_by="grade",
        order={"grade": list("K123")},
        curves=_curves() if labelled else [],
    )


def classes_page(n: int = 120, n_clips: int = 4, seed: int = 0) -> Page:
    """Return a page of songs: three classes, no words."""
    rng = np.random.default_rng(seed)
    names = ["anna", "<b>ben</b>", "carla"]
    labels = rng.integers(0, len(names), n)
    said = np.where(rng.random(n) < 0.8, labels, rng.integers(0, len(names), n))
    confusion = np.zeros((len(names), len(names)), int)
    np.add.at(confusion, (labels, said), 1)
    probabilities = rng.uniform(0.4, 0.99, n)
    losses = np.where(labels == said, -np.log(probabilities), 1.5)
    fields = {"singer": [f"singer{index % 5}" for index in range(n)]}
    groups = [
        GroupResult(
            "singer",
            value,
            int((rows := np.array(fields["singer"]) == value).sum()),
            _estimate(losses[rows]),
            errors=_estimate(labels[rows] != said[rows]),
        )
        for value in sorted(set(fields["singer"]))
    ]
    model = ModelResult(
        "ensemble",
        True,
        None,
        n,
        _estimate(losses),
        {"accuracy": Estimate(0.8, 0.75, 0.85)},
        groups=groups,
        confusion=confusion.tolist(),
    )
    other = replace(model, name="cnn4", is_ensemble=False, weight=1.0)
    per_model = {"ensemble": probabilities.tolist(), "cnn4": probabilities.tolist()}
    recordings = Recordings(
        filenames=[f"snippet{index:04d}.wav" for index in range(n)],
        texts=[""] * n,
        fields=fields,
        labels=labels.tolist(),
        predictions=per_model,
        losses={name: losses.tolist() for name in per_model},
        predicted_classes={name: said.tolist() for name in per_model},
        seconds=[ENCODED_SECONDS] * n,
        notes=[""] * n,
        clips=sound(range(n_clips), has_reference=False),
    )
    return Page(
        title="Who sings?",
        made_by="hearback 2.0",
        kind="classes",
        verdict=Verdict(["It is right in 80 %.", "Ben is often missed.", "Listen to the errors."]),
        data=_data(n),
        models=[model, other],
        recordings=recordings,
        label_names=names,
        people="singer",
        base_rate_log_loss=1.1,
    )
