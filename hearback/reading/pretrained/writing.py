"""Write a scorer's folder: configuration, slim folds, statistics of its recordings, and card."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hearback.engine.devices import choose_device, compute_dtype
from hearback.engine.errors import HearbackError
from hearback.engine.io import write_json
from hearback.engine.training.fold_files import (
    FoldFiles,
    FoldMetadata,
    TrainedFold,
    find_shared,
    read_fold_metadata,
    shared_files,
)
from hearback.engine.whisper.tokenizer import serialize_tokenizer
from hearback.reading.dataset import TrainingData
from hearback.reading.ensemble import EnsembleConfig
from hearback.reading.models.provide import provide_backbones
from hearback.reading.models.scorers import model_class
from hearback.reading.options import TrainingOptions
from hearback.reading.pretrained.folders import CONFIG
from hearback.reading.recipe import Recipe
from hearback.reading.scoring import statistics
from hearback.reading.scoring.ensemble import LoadedEnsemble
from hearback.reading.scoring.rows import score_rows

# What is kept of a fold's metadata: enough to load it and to know how it came about. The others
# are long (each step's loss), or name recordings and folders of the training machine.
KEPT = (
    *("model", "fold", "recipe", "recipe_fingerprint", "n_folds", "group_by", "limit"),
    *(
        "data_fingerprint",
        "corrections",
        "attempt",
        "best_epoch",
        "log_loss",
        "n_train",
        "n_validation",
    ),
    *("base_rate", "base_rate_log_loss", "voice", "text_normalizer", "shape"),
    *("encoder", "decoder", "recogniser", "tokenizer", "precision", "versions"),
)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, which replaces `folder` if the block succeeds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        complete, former = Path(temporary) / "complete", Path(temporary) / "former"
        complete.mkdir()
        yield complete
        if folder.exists():
            folder.rename(former)
        complete.rename(folder)


def write_folds(config: EnsembleConfig, assets: Path, folder: Path) -> list[TrainedFold]:
    """Write the ensemble's folds and its configuration to `folder`; return the folds there.

    Raises HearbackError if a fold is not trained, only its predictions are there, or it is no
    difference from its backbone.
    """
    config.check_folds(assets)
    folds = []
    for number, model in enumerate(config.models_to_run):
        for fold in model.folds:
            files = FoldFiles(assets, model.name, fold)
            target = FoldFiles(folder, model.name, fold)
            metadata = slim(files, read_fold_metadata(files))
            shutil.copyfile(files.weights, target.weights)
            write_json(target.metadata, metadata)
            folds.append(TrainedFold(number, target, metadata))
    config.save(folder / CONFIG)
    return folds


def slim(files: FoldFiles, fold_metadata: FoldMetadata) -> FoldMetadata:
    """Return what a shipped fold keeps of its metadata.

    The digest of a Whisper's tokenizer becomes that of `serialize_tokenizer`, which is the same
    wherever the backbone is from.
    """
    shared = shared_files(fold_metadata)
    needed = {"tokenizer", *model_class(Recipe.from_dict(fold_metadata["recipe"])).parts}
    if missing := needed - shared.keys():
        raise HearbackError(
            f"{files.metadata}: holds the {', '.join(sorted(missing))} itself, not as a difference "
            "from a backbone; such a fold is too large to be shipped: train an adapter, such as "
            "modeltoklow"
        )
    kept = {name: fold_metadata[name] for name in KEPT if name in fold_metadata}
    kept["sha256"] = {"weights": fold_metadata["sha256"]["weights"]}
    if "decoder" in needed:
        content = serialize_tokenizer(find_shared(files, shared["tokenizer"]))
        digest = hashlib.sha256(content).hexdigest()
        kept["tokenizer"] = {"file": f"tokenizer_{digest[:16]}.json", "sha256": digest}
    return kept


def write_statistics(
    folder: Path, folds: list[TrainedFold], options: TrainingOptions, data: TrainingData
) -> statistics.Statistics:
    """Measure training recordings with the written scorer, as it will measure others.

    This also shows that the folder can be loaded. Returns the statistics.
    """
    provide_backbones(folds, backbones=options.assets)
    device = choose_device(options.device)
    ensemble = LoadedEnsemble.read(folder, device, compute_dtype(device, "auto"))
    frame = data.metadata if "speaker" in data.metadata else data.metadata.assign(speaker="")
    sample = frame.iloc[statistics.spread_rows(len(frame))].reset_index(drop=True)
    scores = score_rows(ensemble, sample, data.source.store, "statistics")
    synthetic = statistics.is_synthetic(frame["filename"].tolist())
    measured = {**statistics.summarize(scores.measured), "synthetic": synthetic}
    write_json(folder / statistics.FILE, measured)
    return measured
