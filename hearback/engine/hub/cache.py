"""The hub's own cache (~/.cache/huggingface), which transformers and other programs fill."""

from collections.abc import Sequence
from pathlib import Path


def find_file(hub_id: str, commit: str, name: str) -> Path | None:
    """Return the path of a file of a commit in the cache, or None."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415  (inference has no network)

    found = try_to_load_from_cache(hub_id, name, revision=commit)
    return Path(found) if isinstance(found, str) else None


def find_snapshot(hub_id: str, revision: str | None, patterns: Sequence[str]) -> tuple[Path, str]:
    """Return the folder of a model in the cache, without a request, and its commit.

    Raises an error of the client if the cache does not have it.
    """
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    folder = snapshot_download(
        hub_id, revision=revision, allow_patterns=list(patterns), local_files_only=True
    )
    return Path(folder), Path(folder).name
