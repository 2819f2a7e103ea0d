"""Access to the files of speechocean762: a checkout's folder, or an archive."""

import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from hearback.engine.data.other_files import GIT_LFS
from hearback.engine.data.problems import Problem, Report
from hearback.engine.errors import HearbackError
from hearback.engine.io import atomic_write

HALVES = ("train", "test")
SCORES, LEXICON = "resource/scores.json", "resource/lexicon.txt"
SCORES_DETAIL = "resource/scores-detail.json"  # of each expert
KALDI_TABLES = ("wav.scp", "text", "utt2spk", "spk2age", "spk2gender")
TOP_FOLDERS = (*HALVES, "resource", "WAVE")
MAX_TABLE_BYTES = 2**29  # in an archive; the largest real table has a twentieth of it


@dataclass(frozen=True)
class Entry:
    """A file of the corpus: its size in bytes and its first bytes."""

    size: int
    head: bytes


class Corpus(Protocol):
    """Access to the corpus's files; paths are relative to its root, with slashes."""

    def read(self, path: str) -> bytes | None:
        """Return a table's content, or None if it is missing."""

    def entry(self, path: str) -> Entry | None:
        """Return a recording's size and first bytes, or None if it is missing."""

    def copy(self, targets: Mapping[str, Path]) -> Iterator[str]:
        """Copy recordings to their targets, each atomically; yield each path when done."""


class Checkout:
    """The corpus as a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes | None:
        """Return a table's content, or None if it is missing."""
        file = self.root / path
        return file.read_bytes() if file.is_file() else None

    def entry(self, path: str) -> Entry | None:
        """Return a recording's size and first bytes, or None if it is missing."""
        file = self.root / path
        if not file.is_file():
            return None
        with file.open("rb") as stream:
            return Entry(file.stat().st_size, stream.read(len(GIT_LFS)))

    def copy(self, targets: Mapping[str, Path]) -> Iterator[str]:
        """Copy recordings to their targets, each atomically; yield each path when done."""
        for path, target in targets.items():
            with (self.root / path).open("rb") as stream:
                _write(stream, target)
            yield path


class Archive:
    """The corpus as a tar archive, compressed or not, read sequentially and never unpacked.

    The first pass reads the tables and lists the recordings, the second copies recordings. Only the
    content of regular files is used, under our own names, so links and paths in the archive cannot
    escape. Raises tarfile.TarError, EOFError, OSError or zlib.error if the archive is damaged.
    """

    def __init__(self, archive: Path) -> None:
        self.archive = archive
        self._tables: dict[str, bytes] = {}
        self._entries: dict[str, Entry] = {}
        tables = {f"{half}/{name}" for half in HALVES for name in KALDI_TABLES}
        tables |= {SCORES, SCORES_DETAIL, LEXICON}
        for path, size, stream in self._files():
            if path in tables:
                if size > MAX_TABLE_BYTES:
                    raise tarfile.ReadError(f"{path} has {size} bytes")
                self._tables[path] = stream.read()
            elif path.startswith("WAVE/"):
                self._entries[path] = Entry(size, stream.read(len(GIT_LFS)))

    def read(self, path: str) -> bytes | None:
        """Return a table's content, or None if it is missing."""
        return self._tables.get(path)

    def entry(self, path: str) -> Entry | None:
        """Return a recording's size and first bytes, or None if it is missing."""
        return self._entries.get(path)

    def copy(self, targets: Mapping[str, Path]) -> Iterator[str]:
        """Copy recordings to their targets, each atomically; yield each path when done."""
        left = dict(targets)
        for path, _, stream in self._files() if left else ():
            if path in left:
                _write(stream, left.pop(path))
                yield path
            if not left:
                return
        if left:
            raise HearbackError(f"{self.archive} changed while it was read; start again")

    def _files(self) -> Iterator[tuple[str, int, IO[bytes]]]:
        """Yield each regular file: its path below the corpus's root, size in bytes, and content.

        The root is the archive's, or the one folder in it (`speechocean762/` in OpenSLR's).
        """
        # Not "r|*", which accepts truncated compressed files.
        with tarfile.open(self.archive, "r:*") as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                root = next((i for i, part in enumerate(parts[:2]) if part in TOP_FOLDERS), None)
                stream = tar.extractfile(member) if member.isfile() else None
                if root is not None and stream is not None:
                    yield "/".join(parts[root:]), member.size, stream


def _write(stream: IO[bytes], target: Path) -> None:
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        shutil.copyfileobj(stream, file)


def open_corpus(path: Path) -> Corpus:
    """Open a checkout (a folder) or an archive (a file). Raises BadInputError if it is neither."""
    if path.is_dir():
        return Checkout(path)
    report = Report()
    if path.is_file():
        try:
            return Archive(path)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            what = f"not a complete tar archive: {error}"
            report.add(Problem(str(path), None, what, "download speechocean762.tar.gz again"))
    else:
        cure = "give the folder of a checkout, or speechocean762.tar.gz from openslr.org/101"
        report.add(Problem(str(path), None, "no such folder or file", cure))
    report.raise_if_errors()
    raise AssertionError("a report with an error raises")
