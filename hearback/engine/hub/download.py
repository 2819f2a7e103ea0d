"""Download a model of the hub to a directory: complete and checked, or not at all.

    assets/whisper-tiny.en/             appears when every file is whole
    assets/.whisper-tiny.en.download/   files by their digest, until then

A download that stops, for whatever reason, leaves the second folder; the next one goes on from it.
"""

import errno
import fnmatch
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from filelock import Timeout
from tqdm import tqdm

from hearback.engine import cli
from hearback.engine.errors import HearbackError
from hearback.engine.hub import cache, transfer
from hearback.engine.hub.messages import HUB, HubError, explain, is_expected, is_offline, size
from hearback.engine.hub.transfer import HubFile
from hearback.engine.io import atomic_directory, write_json
from hearback.engine.locks import write_lock

ORIGIN = "origin.json"
_LOCK = ".lock"
_WORTH_KEEPING = 10**6  # bytes, after an error that will not pass


def log_to_stderr(line: str) -> None:
    """Print a line on standard error: standard output may be a table or JSON."""
    print(line, file=sys.stderr)


@dataclass(frozen=True)
class HubModel:
    """What is downloaded of the hub.

    Attributes:
        hub_id: owner/name.
        revision: branch, tag or commit; None for the newest.
        patterns: names of the files to take, with wildcards.
        known: ids of models that exist, for suggestions.
        check_names: called with the names of the commit's files before anything is downloaded;
            raises HearbackError if they are no usable model.
        check: called with the complete directory; raises HearbackError likewise.
    """

    hub_id: str
    revision: str | None
    patterns: Sequence[str]
    known: Iterable[str] = ()
    check_names: Callable[[Collection[str]], None] = lambda _: None
    check: Callable[[Path], None] = lambda _: None

    def wants(self, name: str) -> bool:
        """Whether a file is to be taken."""
        is_inside = ".." not in PurePosixPath(name).parts  # a mirror may answer anything
        return is_inside and any(fnmatch.fnmatchcase(name, each) for each in self.patterns)


def download(model: HubModel, target: Path, log: Callable[[str], None] = log_to_stderr) -> None:
    """Download a model to the directory `target`, with its commit in origin.json.

    Nothing happens if another process downloads it in the meantime.

    Args:
        model: what to download.
        target: the new directory.
        log: called with each line of progress.

    Raises:
        HubError: the hub did not provide it; the message says what to do.
        HearbackError: it is no usable model, or the folder cannot be written to.
        OSError: the disk is full or faulty.
    """
    parts = target.with_name(f".{target.name}.download")
    with ExitStack() as stack:
        _wait_for_lock(stack, parts / _LOCK, log)
        try:
            if not target.is_dir():
                _Download(model, target, parts, log).run()
        finally:
            # Nothing is worth keeping but bytes.
            if parts.is_dir() and not any(path.stat().st_size for path in parts.iterdir()):
                shutil.rmtree(parts, ignore_errors=True)


def _wait_for_lock(stack: ExitStack, path: Path, log: Callable[[str], None]) -> None:
    """Enter the lock of a download; it is released when the stack is left."""
    cure = "choose another folder, or make it writable"
    seconds = 0.0
    while True:
        try:
            stack.enter_context(write_lock(path, cure, timeout=seconds))
            return
        except Timeout:
            log(f"waiting for another process, which downloads to {path.parent}")
            seconds = -1.0  # without an end
        except FileNotFoundError:  # the other process has finished, and removed the folder
            if seconds == 0:
                raise


@dataclass
class _Download:
    model: HubModel
    target: Path
    parts: Path
    log: Callable[[str], None]
    n_received: int = 0  # bytes; a file that starts again is subtracted
    bar: "tqdm | None" = field(default=None, repr=False)

    def run(self) -> None:
        """Download everything, or raise an error that says what is kept."""
        if is_offline():
            self._copy_from_cache()
            return
        try:
            commit, files = self._list()
            self._fetch_all(commit, files)
        except KeyboardInterrupt:
            if n_bytes := self._n_kept():
                self._say(self._kept(n_bytes))
            raise
        except HubError as error:
            n_bytes = self._n_kept()
            if n_bytes > _WORTH_KEEPING or (n_bytes and error.is_unreachable):
                raise error.followed_by(f". {self._kept(n_bytes)}") from error
            shutil.rmtree(self.parts, ignore_errors=True)
            raise
        self._finish(commit, files)

    def _list(self) -> tuple[str, list[HubFile]]:
        """Return the commit and its files to download."""
        model = self.model
        try:
            commit, names = transfer.retry(
                lambda: transfer.read_commit(model.hub_id, model.revision), self.log
            )
        except Exception as error:
            raise self._explained(error) from error
        wanted = sorted(filter(model.wants, names))
        model.check_names(names)
        return commit, [
            self._trying(partial(transfer.read_file, model.hub_id, commit, name)) for name in wanted
        ]

    def _fetch_all(self, commit: str, files: list[HubFile]) -> None:
        """Fetch what is missing of the files."""
        from huggingface_hub.utils import are_progress_bars_disabled  # noqa: PLC0415

        n_present = sum(self._n_present(file) for file in files)
        n_bytes = sum(file.n_bytes or 0 for file in files)
        self._check_space(n_bytes - n_present)
        if n_present:
            self._say(f"going on with {self.model.hub_id}: {size(n_present)} of {size(n_bytes)}")
        with tqdm(
            total=n_bytes,
            initial=n_present,
            desc=self.model.hub_id,
            unit="B",
            unit_scale=True,
            # None: where standard error is no terminal.
            disable=True if are_progress_bars_disabled() else None,
        ) as self.bar:
            for file in files:
                if not (self.parts / file.key).is_file():
                    self._fetch(file, commit)

    def _fetch(self, file: HubFile, commit: str) -> None:
        """Fetch a file to `parts/KEY`, where only whole files are."""
        part = self._part(file)
        if not part.exists():
            self._copy_cached_file(file, commit, part)
        if not file.is_checkable:
            self._say(f"{file.name}: the hub gives no digest of it; only its size is checked")
        found = ""
        for is_last in (False, True):
            self._trying(lambda: transfer.fetch(file, part, self._count))
            found = file.digest_of(part)
            if found == file.digest:
                part.rename(self.parts / file.key)
                return
            self._count(-part.stat().st_size)
            part.unlink()
            if not is_last:
                self._say(f"{file.name} is not the file that the hub lists: fetching it again")
        raise HubError(
            self.model.hub_id,
            f"{file.name} has the digest {found[:12]}…, but the hub lists {file.digest[:12]}…. "
            "Something on the way changes it, such as a proxy or a mirror (HF_ENDPOINT): try "
            "another network, or the hub itself",
        )

    def _copy_cached_file(self, file: HubFile, commit: str, part: Path) -> None:
        """Copy a file that another program left in the hub's cache; it is checked later."""
        cached = cache.find_file(self.model.hub_id, commit, file.name)
        if cached is not None and file.is_checkable:
            shutil.copyfile(cached, part)
            self._show(part.stat().st_size)

    def _copy_from_cache(self) -> None:
        """Copy the model from the hub's cache, which transformers and others fill."""
        model = self.model
        try:
            folder, commit = cache.find_snapshot(model.hub_id, model.revision, model.patterns)
        except Exception as error:
            raise self._explained(error) from error
        names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        model.check_names(names)
        with atomic_directory(self.target) as directory:
            for name in filter(model.wants, names):
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / name, directory / name)
            self._complete(directory, commit)
        self._say(f"{self.target}: copied from {folder}, because HF_HUB_OFFLINE is set")

    def _finish(self, commit: str, files: list[HubFile]) -> None:
        """Turn the whole files into the model's directory."""
        n_uses = Counter(file.key for file in files)  # two names may have the same content
        with atomic_directory(self.target) as directory:
            for file in files:
                path, whole = directory / file.name, self.parts / file.key
                path.parent.mkdir(parents=True, exist_ok=True)
                n_uses[file.key] -= 1
                if n_uses[file.key]:
                    shutil.copyfile(whole, path)
                else:
                    whole.rename(path)
            self._complete(directory, commit)
        shutil.rmtree(self.parts, ignore_errors=True)

    def _complete(self, directory: Path, commit: str) -> None:
        self.model.check(directory)
        origin = {"from": f"{HUB}/{self.model.hub_id}", "revision": commit}
        write_json(directory / ORIGIN, origin)

    def _trying(self, action: Callable[[], transfer.T]) -> transfer.T:
        """Return what a request returns, tried again where that helps; raise HubError."""
        try:
            return transfer.retry(action, self._say, lambda: self.n_received)
        except Exception as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> Exception:
        """Return the error to raise: an error of the disk or of ours unchanged."""
        if isinstance(error, HearbackError):
            return error
        if isinstance(error, OSError) and error.errno in cli.DISK_CURES:
            error.filename = str(self.target)
            return error
        if not is_expected(error):
            return error
        model = self.model
        return explain(error, model.hub_id, model.revision, model.known)

    def _say(self, line: str) -> None:
        """Log a line, not behind the bar."""
        if self.bar is not None:
            self.bar.clear()
        self.log(line)

    def _count(self, n_bytes: int) -> None:
        self.n_received += n_bytes
        self._show(n_bytes)

    def _show(self, n_bytes: int) -> None:
        if self.bar is not None:
            self.bar.update(n_bytes)

    def _part(self, file: HubFile) -> Path:
        return self.parts / f"{file.key}.part"

    def _n_present(self, file: HubFile) -> int:
        """Return the number of a file's bytes that are there."""
        for path in (self.parts / file.key, self._part(file)):
            if path.is_file():
                return path.stat().st_size
        return 0

    def _n_kept(self) -> int:
        return sum(path.stat().st_size for path in self.parts.iterdir())

    def _kept(self, n_bytes: int) -> str:
        return f"{size(n_bytes)} are kept in {self.parts}: the same command goes on from there"

    def _check_space(self, n_bytes: int) -> None:
        """Raise OSError if the disk has no room for so many bytes."""
        n_free = shutil.disk_usage(self.parts).free
        if n_bytes > n_free:
            reason = f"the download needs {size(n_bytes)}, and {size(n_free)} are free"
            raise OSError(errno.ENOSPC, reason, str(self.target))
