"""Load trained scorers, and keep the files that they need beside their weights.

Token scorers need their backbone's tokenizer, phone and segment scorers pronunciations, copied to
`tokenizer_<digest>.json` or `.safetensors` in the assets.
Models with text embeddings need the directory of a text embedder in the assets.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write, cached_sha256, sha256_of
from hearback.engine.training.fold_files import (
    FoldFiles,
    FoldMetadata,
    build_and_load,
    check_version,
    find_shared,
    read_fold_metadata,
    shared_files,
)
from hearback.engine.whisper.joint_decoding import can_decode_jointly
from hearback.reading import step_command, text_normalizer
from hearback.reading.ensemble import check_trained, training_command
from hearback.reading.models.base import Scorer
from hearback.reading.models.scorers import build
from hearback.reading.models.segment_scorer import SegmentScorer
from hearback.reading.models.text_embedder import TextEmbedder
from hearback.reading.models.token_scorer import TokenScorer
from hearback.reading.pairings import WITHOUT_REFERENCE
from hearback.reading.recipe import Recipe

METADATA_KEYS = ("recipe", "shape", "tokenizer")  # required by `load_scorer`


def save_tokenizer(tokenizer: Path, assets: Path) -> dict[str, str]:
    """Copy a backbone's tokenizer into `assets`; return its name and digest for the metadata."""
    digest = sha256_of(tokenizer)
    target = assets / f"tokenizer_{digest[:16]}{tokenizer.suffix}"
    if not target.exists() or sha256_of(target) != digest:
        with atomic_write(target) as temporary:
            shutil.copyfile(tokenizer, temporary)
    return {"file": target.name, "sha256": digest}


def describe_embedder(embedder: TextEmbedder, assets: Path) -> dict[str, str]:
    """Return an embedder's directory and digest, for the metadata.

    Raises HearbackError if it is not in `assets`: infer.py needs it there.
    """
    directory = embedder.directory
    if directory.parent.resolve() != assets.resolve():
        raise HearbackError(f"{directory}: a text embedder must be in {assets}; copy it there")
    return {"directory": directory.name, "sha256": sha256_of(embedder.weights_path)}


def read_runnable_metadata(files: FoldFiles, voice: Mapping[str, Any] | None) -> FoldMetadata:
    """Read the metadata of a fold that an ensemble with references in `voice` can run.

    The voice is that of models that hear references; None if the ensemble has no such model. Raises
    HearbackError for a baseline, another voice, another text normalizer, or an older version's
    metadata.
    """
    check_trained(files)
    fold_metadata = read_fold_metadata(files)
    if "baseline" in fold_metadata:
        raise HearbackError(
            f"{files.metadata}: {files.model} is a baseline without weights; remove it from the "
            f"configuration with {step_command('get_config')}"
        )
    check_version(files, fold_metadata, METADATA_KEYS)
    hears = fold_metadata["recipe"].get("pair") not in WITHOUT_REFERENCE
    if hears and fold_metadata.get("voice") != voice:
        raise HearbackError(f"{files.metadata}: trained with another voice than {voice}")
    # Folds of older versions have none: they were trained on texts as written.
    normalizer = fold_metadata.get("text_normalizer", text_normalizer.VERSION)
    if normalizer != text_normalizer.VERSION:
        raise HearbackError(
            f"{files.metadata}: trained on texts of another normalizer ({normalizer}; this version "
            f"has {text_normalizer.VERSION}); use the hearback that trained it, or train the fold "
            f"again with {training_command(files)}"
        )
    return fold_metadata


def load_scorer(files: FoldFiles, fold_metadata: FoldMetadata) -> Scorer:
    """Load a finished fold's model on the CPU, in float32 and evaluation mode."""
    check_version(files, fold_metadata, METADATA_KEYS)
    shared = shared_files(fold_metadata)
    tokenizer = embedder = None
    if kept := shared.get("tokenizer"):
        tokenizer = find_shared(files, kept)
    if used := shared.get("text_embedder"):
        embedder = TextEmbedder(files.assets / used.name)
        if cached_sha256(embedder.weights_path) != used.sha256:
            raise HearbackError(f"{embedder.directory}: not the one named in {files.metadata}")
    return build_and_load(
        files,
        fold_metadata,
        lambda: build(
            Recipe.from_dict(fold_metadata["recipe"]), fold_metadata["shape"], tokenizer, embedder
        ),
    )


def joint_key(model: Scorer, fold_metadata: FoldMetadata) -> str:
    """Return a key that models have in common if they can be scored together; else "".

    Token scorers are decoded together if their decoders have the same frozen weights, by the digest
    of their backbone's decoder; segment scorers have the same evidence if encoder and recogniser
    are the same.
    """
    if isinstance(model, SegmentScorer):
        shared = shared_files(fold_metadata)
        if not all(part in shared for part in model.parts):
            return ""
        digests = " ".join(shared[part].sha256 for part in model.parts)
        return f"{digests} {model.recipe.encoder_layers}"
    if not isinstance(model, TokenScorer) or not can_decode_jointly(model.decoder):
        return ""
    decoder = shared_files(fold_metadata).get("decoder")
    layers = ",".join(sorted(model.recipe.adapter_layers))
    shape = f"{model.recipe.adapter_rank} {model.recipe.adapted_share}"
    return f"{decoder.sha256} {layers} {shape}" if decoder else ""
