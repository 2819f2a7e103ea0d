"""From model_configs.json to scores, needing only what a competition runtime has."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from hearback.audio import Store
from hearback.checkpoint import FoldFiles, load_scorer, read_story
from hearback.ensemble import EnsembleConfig
from hearback.errors import HearbackError
from hearback.models import Scorer
from hearback.pairs import Batch, Draw, PairDataset, PairSource, batched
from hearback.partings import choose_fold, write_partings
from hearback.references import (
    OtherVoice,
    References,
    UnrenderedTexts,
    missing_texts,
    render_missing,
)
from hearback.tables import (
    BadInput,
    Problem,
    Report,
    metadata_path,
    read_metadata,
    read_submission_format,
    write_table,
)
from hearback.voices import reopen_voice
from hearback.words import score_table

PROBLEMS = "submission_problems.csv"


@dataclass(frozen=True)
class InferenceOptions:
    """What `infer.py`'s command line says."""

    data: Path
    tts_data: Path
    store: Path
    assets: Path
    config: Path
    submission: Path
    device: str | None
    workers: int
    words: Path | None = None  # where to write word scores, if wanted
    partings: Path | None = None  # where to write where learner and reference part, likewise


def choose_device(name: str | None) -> torch.device:
    """Return the device asked for, or a GPU where there is one and the CPU where not.

    Raises HearbackError for a device that this machine does not have.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HearbackError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device


def compute_dtype(device: torch.device, precision: str = "auto") -> torch.dtype:
    """Return the type to compute in.

    "auto" is float32 on a CPU; on a GPU bf16 where it has that, else fp16.
    """
    if precision != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[precision]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def mixed_precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the autocast context that computes in `dtype`; with float32 it does nothing."""
    enabled = dtype != torch.float32
    return torch.autocast(device.type, dtype=dtype if enabled else None, enabled=enabled)


@torch.inference_mode()
def collect(
    model: Scorer,
    source: PairSource,
    rows: Sequence[int] | np.ndarray,
    measure: Callable[[Scorer, Batch], Tensor | None],
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    progress: str | None = None,
) -> np.ndarray | None:
    """Return what `measure` gives for each row's clip with its own text, (rows, …), float64.

    `measure` maps a batch to (batch, …), or to None where the model has nothing to give; then the
    result is None. Every clip is heard in a window of its own length, so what is measured depends
    neither on its batch-mates nor on its place in the table.
    """
    model = model.to(device).eval()
    recipe = model.recipe
    places = {int(row): place for place, row in enumerate(rows)}
    # Longest first: what does not fit in memory fails at once, and the last batches are quick.
    by_length = sorted(places, key=lambda row: source.n_samples(row, recipe.pair), reverse=True)
    draws = [Draw(row, source.texts[row], float(source.labels[row])) for row in by_length]
    pairs = DataLoader(
        PairDataset(source, draws, recipe.pair, reader=model.reader, embedder=model.embedder),
        batch_size=None,
        num_workers=n_workers,
    )
    measured: list[np.ndarray | None] = [None] * len(places)
    bar = tqdm(total=len(places), desc=progress, unit="clip", disable=progress is None)
    with bar, mixed_precision(device, dtype):
        for batch in batched(pairs, recipe.batch_size, recipe.window, recipe.window_step_seconds):
            values = measure(model, batch.to(device))
            if values is None:
                return None
            for row, value in zip(batch.rows, values.double().cpu().numpy(), strict=True):
                measured[places[int(row)]] = value
            bar.update(len(batch))
    return np.array(measured)


@dataclass(frozen=True)
class Predictions:
    """Of each row's clip the probability that the learner said the text, `clips` (rows,), float64.

    `words` are the log-odds of the texts' words, (rows, places, 2), laid out as in
    `hearback.words`; None where the model has none.
    """

    clips: np.ndarray
    words: np.ndarray | None

    def as_tensors(self) -> dict[str, Tensor]:
        """Return the predictions as tensors by name, for a checkpoint."""
        words = {} if self.words is None else {"predictions.words": torch.from_numpy(self.words)}
        return {"predictions.clips": torch.from_numpy(self.clips), **words}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Predictions":
        """Return the predictions of `as_tensors`, among which there may be other tensors."""
        words = tensors.get("predictions.words")
        clips = tensors["predictions.clips"].numpy()
        return cls(clips, None if words is None else words.numpy())


def predict(
    model: Scorer,
    source: PairSource,
    rows: Sequence[int] | np.ndarray,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    progress: str | None = None,
) -> Predictions:
    """Return the scores of some rows' clips, and of their words if the model has those."""
    if not len(rows):
        return Predictions(np.empty(0), None)
    n_places = 1 + max(len(source.texts[row].split()) for row in rows)

    def scores(model: Scorer, batch: Batch) -> Tensor:
        logits, words = model.forward_with_words(batch)
        clips = logits.sigmoid()[:, None]
        if words is None:
            return clips
        words = F.pad(words, (0, 0, 0, n_places - words.shape[1]), value=float("nan"))
        return torch.cat([clips, words.flatten(1)], dim=1)

    measured = collect(
        model,
        source,
        rows,
        scores,
        device=device,
        dtype=dtype,
        n_workers=n_workers,
        progress=progress,
    )
    assert measured is not None
    clips, words = measured[:, 0], measured[:, 1:]
    return Predictions(clips, words.reshape(len(rows), n_places, 2) if words.size else None)


def predict_ensemble(
    config: EnsembleConfig,
    source: PairSource,
    grades: np.ndarray,
    assets: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
) -> Predictions:
    """Return the ensemble's predictions: of each model the mean of its folds'.

    Words have the mean of the log-odds of the models that score them, by their weights. `grades`,
    (rows,), are those of the metadata.
    """
    models = config.models_to_run
    predictions = np.zeros((len(models), len(source)))
    words: list[np.ndarray] = []
    word_weights: list[float] = []
    for place, model in enumerate(models):
        scores_words = config.words is not None and model.name in config.words.models
        for fold in model.folds:
            files = FoldFiles(assets, model.name, fold)
            story = read_story(files)
            if "peer" in story:
                raise HearbackError(
                    f"{files.story}: a peer, there to be compared with, has no weights; write "
                    f"{model.name} out of the configuration with python get_config.py"
                )
            if story["voice"] != config.voice:
                raise HearbackError(
                    f"{files.story}: trained with another voice than {source.references.voice}"
                )
            of_fold = predict(
                load_scorer(files, story),
                source,
                np.arange(len(source)),
                device=device,
                dtype=dtype,
                n_workers=n_workers,
                progress=f"{model.name} fold {fold}",
            )
            predictions[place] += of_fold.clips / len(model.folds)
            if scores_words and of_fold.words is not None:
                words.append(of_fold.words)
                word_weights.append(model.weight / len(model.folds))
    return Predictions(
        clips=config.predict(predictions, grades),
        words=np.average(words, axis=0, weights=word_weights) if words else None,
    )


def write_submission(options: InferenceOptions) -> None:
    """Score the test recordings and write the submission, with a score for every row.

    A row that cannot be scored gets the training base rate of its task; all of them are listed in a
    warning and in `submission_problems.csv` beside the submission. What concerns every row is a
    HearbackError or BadInput: no table, no configuration, no weights, another voice. With
    `options.words` the words of the texts are scored, too, and with `options.partings` it is said
    where in recording and text learner and reference part.
    """
    config = EnsembleConfig.load(options.config)
    if options.words is not None and config.words is None:
        raise HearbackError(
            f"{options.config}: none of its models scores words; --words needs a token scorer: "
            "python train.py --models modeltok, then python get_config.py"
        )
    aligned = None if options.partings is None else choose_fold(config, options.assets)
    device = choose_device(options.device)
    report = Report()
    path = metadata_path(options.data, "test")
    metadata = read_metadata(path, report)
    if any(problem.row in (None, 1) for problem in report.errors):
        raise BadInput(report)
    format_path = options.data / "submission_format.csv"
    order = (
        read_submission_format(format_path, metadata, report)
        if format_path.exists()
        else metadata["filename"].tolist()
    )
    recordings = Store.build(metadata, options.data, path, options.store, "test", report=report)
    references = _references(metadata, options.tts_data, config, path, report)

    faulty = {problem.row for problem in report.errors if problem.file == str(path)}
    usable = metadata[~metadata["line"].isin(faulty)].reset_index(drop=True)
    source = PairSource(usable, references, recordings)
    predictions = predict_ensemble(
        config,
        source,
        usable["grade"].to_numpy(dtype=str),
        options.assets,
        device=device,
        dtype=compute_dtype(device),
        n_workers=options.workers,
    )
    scores = dict(zip(source.filenames, predictions.clips.tolist(), strict=True))
    tasks = dict(zip(metadata["filename"], metadata["task"], strict=True))
    submission = pd.DataFrame(
        {
            "filename": order,
            "score": [scores.get(name, config.base_rate(tasks.get(name))) for name in order],
        }
    )
    write_table(submission, options.submission)
    n_base_rate = sum(name not in scores for name in order)
    print(f"wrote {options.submission}: {len(order)} rows, {n_base_rate} of them at the base rate")
    rows = {filename: row for row, filename in enumerate(source.filenames)}
    scored = [rows[filename] for filename in order if filename in rows]
    if options.words is not None:
        write_word_scores(options.words, config, source, predictions, scored)
        if n_base_rate:
            print(f"{options.words} lacks {n_base_rate} rows that could not be scored")
    if options.partings is not None and aligned is not None:
        write_partings(options.partings, aligned, source, scored, device)
    problems = options.submission.with_name(PROBLEMS)
    if report.problems:
        write_table(report.frame(), problems)
        print(f"\nWARNING, also in {problems}:\n{report}")
    else:
        problems.unlink(missing_ok=True)  # one of an earlier run would mislead


def write_word_scores(
    path: Path,
    config: EnsembleConfig,
    source: PairSource,
    predictions: Predictions,
    scored: Sequence[int],
) -> None:
    """Write a line for every word of the texts of the rows `scored`, in their order."""
    assert config.words is not None
    filenames = [source.filenames[row] for row in scored]
    texts = [source.texts[row] for row in scored]
    log_odds = np.empty((0, 1, 2)) if predictions.words is None else predictions.words[scored]
    table = score_table(filenames, texts, config.words.apply(log_odds))
    write_table(table, path)
    print(f"wrote {path}: {len(table)} words of {len(scored)} rows")


def _references(
    metadata: pd.DataFrame, folder: Path, config: EnsembleConfig, path: Path, report: Report
) -> References:
    """Render what is missing in the ensemble's voice; report the rows whose text cannot be said."""
    texts = metadata["expected_text"][metadata["expected_text"] != ""]
    unsaid: dict[str, str] = {}
    if missing := missing_texts(texts, folder):
        try:
            with contextlib.closing(reopen_voice(config.voice)) as voice:
                render_missing(missing, voice, folder)
        except OtherVoice:
            raise
        except UnrenderedTexts as error:
            unsaid = error.failures
        except (HearbackError, OSError) as error:  # no such voice here; a read-only folder
            unsaid = dict.fromkeys(missing_texts(missing, folder), str(error))
    for row in metadata[metadata["expected_text"].isin(unsaid)].to_dict("records"):
        what = f"no reference speech for {row['expected_text']!r}: {unsaid[row['expected_text']]}"
        cure = "render it before, with python preprocess.py"
        report.add(Problem(str(path), row["line"], what, cure, filename=row["filename"]))
    references = References(folder)
    if references.voice != config.voice:
        raise HearbackError(
            f"{folder}: its voice is {references.voice}; the ensemble was trained with "
            f"{config.voice}. Render with that one, into another folder"
        )
    return references
