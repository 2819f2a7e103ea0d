"""Folds in an archive are read like folds in the folder; a damaged archive is an error."""

import io
import lzma
import tarfile
from pathlib import Path

import pytest

from hearback.engine.errors import HearbackError
from hearback.engine.evaluation.oof import trained_folds
from hearback.engine.training import fold_archive
from hearback.engine.training.fold_archive import NAME, read_archive, write_archive
from hearback.engine.training.fold_files import FoldFiles, read_fold_metadata

CONTENTS = {
    "a_b_0.json": b'{"log_loss": 0.5}',
    "a_b_0.oof.csv": b"filename,score,pred\n",
    "a_b_1.oof.csv": b"metadata missing",
    "a_b_\xb2.oof.csv": b"not a fold",
}


def test_archived_files_are_read_as_if_they_lay_in_the_folder(tmp_path: Path) -> None:
    write_archive(tmp_path, CONTENTS)
    assert dict(read_archive(tmp_path)) == CONTENTS
    assert trained_folds(tmp_path) == {"a_b": [0]}
    files = FoldFiles(tmp_path, "a_b", 0)
    assert read_fold_metadata(files) == {"log_loss": 0.5}
    assert files.read(files.oof) == CONTENTS["a_b_0.oof.csv"]
    with pytest.raises(FileNotFoundError):
        files.read(files.weights)


def test_a_file_in_the_folder_comes_first(tmp_path: Path) -> None:
    write_archive(tmp_path, CONTENTS)
    files = FoldFiles(tmp_path, "a_b", 0)
    files.oof.write_bytes(b"new")
    assert files.read(files.oof) == b"new"


def test_only_an_archived_fold_is_called_published(tmp_path: Path) -> None:
    write_archive(tmp_path, CONTENTS)
    files = FoldFiles(tmp_path, "a_b", 0)
    with pytest.raises(HearbackError, match=r"a_b_0 is there as published.*without weights.*cure"):
        fold_archive.check_in_folder(files.metadata, "cure")
    with pytest.raises(HearbackError, match=r"a_b_1\.json: missing; cure"):
        fold_archive.check_in_folder(FoldFiles(tmp_path, "a_b", 1).metadata, "cure")
    files.metadata.write_text("{}")
    fold_archive.check_in_folder(files.metadata, "cure")


def test_a_folder_may_have_no_archive(tmp_path: Path) -> None:
    assert read_archive(tmp_path) == {} == read_archive(tmp_path / "nowhere")
    assert trained_folds(tmp_path) == {}


def test_a_changed_archive_is_read_again(tmp_path: Path) -> None:
    write_archive(tmp_path, CONTENTS)
    assert len(read_archive(tmp_path)) == len(CONTENTS)
    write_archive(tmp_path, {"c_0.json": b"{}"})
    assert dict(read_archive(tmp_path)) == {"c_0.json": b"{}"}


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    write_archive(tmp_path / "one", CONTENTS)
    write_archive(tmp_path / "two", dict(reversed(CONTENTS.items())))
    assert (tmp_path / "one" / NAME).read_bytes() == (tmp_path / "two" / NAME).read_bytes()


def packed(*members: tarfile.TarInfo) -> bytes:
    """Return an archive with members without content."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for member in members:
            archive.addfile(member)
    return lzma.compress(file.getvalue())


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    link, folder, empty = tarfile.TarInfo("link"), tarfile.TarInfo("x"), tarfile.TarInfo("e.json")
    link.type, link.linkname, folder.type = tarfile.SYMTYPE, "/etc/passwd", tarfile.DIRTYPE
    (tmp_path / NAME).write_bytes(packed(link, folder, empty))
    assert dict(read_archive(tmp_path)) == {"e.json": b""}


def test_a_damaged_archive_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_archive(tmp_path, CONTENTS)
    whole = (tmp_path / NAME).read_bytes()
    damaged = [b"", b"no archive", whole[:-9], whole[:40] + b"\0" * 20 + whole[60:]]
    damaged.append(lzma.compress(b"no tar file" * 100))
    for content in damaged:
        (tmp_path / NAME).write_bytes(content)
        with pytest.raises(HearbackError, match=r"folds\.tar\.xz: not an archive of folds"):
            read_archive(tmp_path)


def test_archives_above_the_size_limit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_archive, "_MAX_BYTES", 1 << 20)
    (tmp_path / NAME).write_bytes(lzma.compress(bytes(2 << 20)))
    with pytest.raises(HearbackError, match="larger than 1 MiB"):
        read_archive(tmp_path)
