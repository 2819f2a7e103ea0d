"""From model_configs.json to scores, needing only what a competition runtime has."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from hearback.audio import Store
from hearback.checkpoint import FoldFiles, load_scorer, read_story
from hearback.ensemble import EnsembleConfig
from hearback.errors import HearbackError
from hearback.models import Scorer
from hearback.pairs import PairDataset, PairSource, batched
from hearback.recipe import Recipe
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
def predict(
    model: Scorer,
    source: PairSource,
    rows: Sequence[int] | np.ndarray,
    recipe: Recipe,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
    progress: str | None = None,
) -> np.ndarray:
    """Return the probability that each row's learner said the text, (rows,), float64.

    Every clip is heard in a window of its own length, so its score depends neither on its
    batch-mates nor on its place in the table.
    """
    model = model.to(device).eval()
    places = {int(row): place for place, row in enumerate(rows)}
    # Longest first: what does not fit in memory fails at once, and the last batches are quick.
    by_length = np.array(sorted(places, key=source.n_samples, reverse=True), dtype=np.int64)
    pairs = DataLoader(
        PairDataset(source, by_length, by_length), batch_size=None, num_workers=n_workers
    )
    probabilities = np.full(len(places), np.nan)
    bar = tqdm(total=len(places), desc=progress, unit="clip", disable=progress is None)
    with bar, mixed_precision(device, dtype):
        for batch in batched(pairs, recipe.batch_size, recipe.window, recipe.window_step_seconds):
            scores = model(batch.to(device)).sigmoid().double().cpu().numpy()
            probabilities[[places[int(row)] for row in batch.rows]] = scores
            bar.update(len(batch))
    return probabilities


def predict_ensemble(
    config: EnsembleConfig,
    source: PairSource,
    assets: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    n_workers: int = 0,
) -> np.ndarray:
    """Return the weighted mean of the models' probabilities, each its folds' mean, (rows,)."""
    total = np.zeros(len(source))
    for model in config.models:
        if model.weight == 0:
            continue
        for fold in model.folds:
            files = FoldFiles(assets, model.name, fold)
            story = read_story(files)
            if story["voice"] != config.voice:
                raise HearbackError(
                    f"{files.story}: trained with another voice than {source.references.voice}"
                )
            total += (model.weight / len(model.folds)) * predict(
                load_scorer(files, story),
                source,
                np.arange(len(source)),
                Recipe.from_dict(story["recipe"]),
                device=device,
                dtype=dtype,
                n_workers=n_workers,
                progress=f"{model.name} fold {fold}",
            )
    return total


def write_submission(options: InferenceOptions) -> None:
    """Score the test recordings and write the submission, with a score for every row.

    A row that cannot be scored gets the training base rate of its task; all of them are listed in a
    warning and in `submission_problems.csv` beside the submission. What concerns every row is a
    HearbackError or BadInput: no table, no configuration, no weights, another voice.
    """
    config = EnsembleConfig.load(options.config)
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
        options.assets,
        device=device,
        dtype=compute_dtype(device),
        n_workers=options.workers,
    )
    scores = dict(zip(source.filenames, predictions.tolist(), strict=True))
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
    problems = options.submission.with_name(PROBLEMS)
    if report.problems:
        write_table(report.frame(), problems)
        print(f"\nWARNING, also in {problems}:\n{report}")
    else:
        problems.unlink(missing_ok=True)  # one of an earlier run would mislead


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
