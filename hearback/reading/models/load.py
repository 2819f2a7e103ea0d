"""A fold's weights and their metadata, to disk and back.

A fold that is done is three files: `<model>_<fold>.safetensors` (weights, fp16), `.oof.csv`
(filename, score, pred) and `.json` (the metadata), written in this order; of a model that scores words
four, with `.words.csv` (`hearback.reading.words`) before the metadata. The metadata holds the digests of the
others, so a fold is done when its metadata is there and they fit it. A fold under way has one file,
`.partial`, replaced after every epoch and in between. Models that read texts share one more, their
backbone's `tokenizer_<digest>.json`. None of them can run code when it is read.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write, sha256_of
from hearback.engine.training.fold_files import (
    FoldFiles,
    FoldMetadata,
    build_and_load,
    check_version,
    read_fold_metadata,
)
from hearback.engine.training.recipe import split_seed
from hearback.reading.models.scorers import Scorer, build
from hearback.reading.models.text_embedder import TextEmbedder
from hearback.reading.recipe import Recipe


def training_command(files: FoldFiles) -> str:
    """Return how a fold of the reading competition is trained, but for the folders."""
    recipe, seed = split_seed(files.model)
    return f"python train_{recipe}.py --fold {files.fold}" + (f" --seed {seed}" if seed else "")


def keep_tokenizer(tokenizer: Path, assets: Path) -> dict[str, str]:
    """Copy a backbone's tokenizer beside the folds that need it; return its name and digest."""
    digest = sha256_of(tokenizer)
    target = assets / f"tokenizer_{digest[:16]}.json"
    if not target.exists() or sha256_of(target) != digest:
        with atomic_write(target) as temporary:
            shutil.copyfile(tokenizer, temporary)
    return {"file": target.name, "sha256": digest}


def name_embedder(embedder: TextEmbedder, assets: Path) -> dict[str, str]:
    """Return the directory in `assets` and the digest of an embedder.

    Raises HearbackError where it lies elsewhere: infer.py takes all that it needs from `assets`.
    """
    directory = embedder.directory
    if directory.parent.resolve() != assets.resolve():
        raise HearbackError(f"{directory}: a text embedder must lie in {assets}; copy it there")
    return {"directory": directory.name, "sha256": sha256_of(embedder.weights)}


def read_runnable_metadata(files: FoldFiles, voice: Mapping[str, Any]) -> FoldMetadata:
    """Read the metadata of a fold that an ensemble of references in `voice` is to run.

    Raises HearbackError where it cannot: a baseline, another voice's, an older version's.
    """
    fold_metadata = read_fold_metadata(files)
    if "baseline" in fold_metadata:
        raise HearbackError(
            f"{files.metadata}: a baseline, there to be compared with, has no weights; write "
            f"{files.model} out of the configuration with python get_config.py"
        )
    if fold_metadata.get("voice") != voice:
        raise HearbackError(f"{files.metadata}: trained with another voice than {dict(voice)}")
    check_version(files, fold_metadata)
    return fold_metadata


def load_scorer(files: FoldFiles, fold_metadata: FoldMetadata) -> Scorer:
    """Load a finished fold's model on the CPU, in float32 and in evaluation mode."""
    check_version(files, fold_metadata)
    tokenizer = None
    if kept := fold_metadata["tokenizer"]:
        tokenizer = files.assets / kept["file"]
        if not tokenizer.exists() or sha256_of(tokenizer) != kept["sha256"]:
            raise HearbackError(f"{tokenizer}: missing, or not the one that {files.metadata} names")
    embedder = None
    if used := fold_metadata.get("text_embedder"):  # metadata from before there were any do not say
        embedder = TextEmbedder(files.assets / used["directory"])
        if sha256_of(embedder.weights) != used["sha256"]:
            raise HearbackError(f"{embedder.directory}: not the one that {files.metadata} names")
    return build_and_load(
        files,
        fold_metadata,
        lambda: build(
            Recipe.from_dict(fold_metadata["recipe"]), fold_metadata["shape"], tokenizer, embedder
        ),
    )
