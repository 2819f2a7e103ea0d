"""Finished folds without weights in one compressed file, for publication.

`folds.tar.xz` in a folder of assets holds the metadata and tables of folds (`.json`, `.oof.csv`,
`.words.csv`). `FoldFiles.read` falls back to it for files that are not in the folder itself.
"""

import functools
import io
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write, open_file

NAME = "folds.tar.xz"
_MAX_BYTES = 1 << 28  # unpacked, in total; sizes in headers are not trusted
_MEMORY_LIMIT = 1 << 28  # of the decompressor, in bytes; the highest preset needs 65 MiB


def write_archive(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write an archive of `contents`, by file name, into `folder`; the bytes are reproducible."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        # Tables of one kind side by side: they repeat file names and so compress better.
        for name in sorted(contents, key=lambda name: (name.partition(".")[2], name)):
            member = tarfile.TarInfo(name)
            member.size = len(contents[name])
            archive.addfile(member, io.BytesIO(contents[name]))
    preset = 9 | lzma.PRESET_EXTREME
    with atomic_write(folder / NAME) as temporary:
        temporary.write_bytes(lzma.compress(packed.getvalue(), preset=preset))


def read_archive(folder: Path) -> Mapping[str, bytes]:
    """Return the archived files of `folder` by name, empty if it has no archive.

    Raises HearbackError for a damaged archive.
    """
    path = folder / NAME
    try:
        status = path.stat()
    except OSError:
        return {}
    return _unpack(path.absolute(), (status.st_size, status.st_mtime_ns, status.st_ino))


def check_in_folder(metadata: Path, cure: str) -> None:
    """Raise HearbackError, with `cure`, unless a fold's metadata is in its folder itself.

    A fold in an archive is a published one: its predictions can be read, but it has no weights.
    """
    if metadata.exists():
        return
    if metadata.name in read_archive(metadata.parent):
        raise HearbackError(
            f"{metadata.parent / NAME}: {metadata.stem} is there as published predictions, without "
            f"weights, so it cannot score recordings; {cure}"
        )
    raise HearbackError(f"{metadata}: missing; {cure}")


@functools.lru_cache(maxsize=4)
def _unpack(path: Path, state: tuple[int, ...]) -> Mapping[str, bytes]:
    """Return an archive's files; `state` identifies the file's version for the cache."""
    try:
        with open_file(path) as file:
            packed = file.read(_MAX_BYTES)
        decompressor = lzma.LZMADecompressor(memlimit=_MEMORY_LIMIT)
        content = decompressor.decompress(packed, max_length=_MAX_BYTES)
        if not decompressor.eof:
            raise ValueError(f"incomplete, or larger than {_MAX_BYTES >> 20} MiB")
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            # No sparse members: their holes unpack to any size.
            plain = [member for member in archive if member.isreg() and not member.issparse()]
            files = {member.name: archive.extractfile(member) for member in plain}
            return {name: file.read() for name, file in files.items() if file is not None}
    except (OSError, ValueError, EOFError, LookupError, lzma.LZMAError, tarfile.TarError) as error:
        raise HearbackError(f"{path}: not an archive of folds ({error})") from None
