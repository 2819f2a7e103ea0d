"""Odd filenames in a table, and odd file system entries under a name."""

import os
import socket
import unicodedata
from pathlib import Path
from typing import Literal

import numpy as np

from hearback.engine.data.problems import Report
from hearback.reading.tables import (
    TASKS,
    read_metadata,
)
from tests.soak.fuzz.audio_files import encoded
from tests.soak.fuzz.csv_tables import HEADER, as_csv
from tests.soak.fuzz.outcomes import REFUSED, Outcome, check_report
from tests.soak.fuzz.recordings import store_one

NAMES = (
    "../outside/secret.wav", "x/../../outside/secret.wav", "../../../../../../etc/passwd",
    "/etc/passwd", "/dev/zero", "/proc/self/environ", "//outside/secret.wav",
    "C:\\windows\\win.ini", "c:secret.wav", "..\\outside\\secret.wav", "\\\\server\\share\\a.wav",
    "file:///etc/passwd", "http://127.0.0.1/a.wav", "~/a.wav", "$HOME/a.wav",
    "%2e%2e%2foutside/secret.wav", "a\nb.wav", "a\tb.wav", "a\0b.wav", "\x1b[2Ja.wav", ".", "./",
    "x/", "-rf", "; rm -rf x;.wav", "`touch x`.wav", "$(touch x).wav", "=cmd|' /C calc'!A0",
    "CON", "nul.wav", "a.wav.", "a" * 251 + ".wav", "a" * 252 + ".wav", "é" * 125 + ".wav",
    "é" * 126 + ".wav", "x/" * 200 + "a.wav", "x/" * 3000 + "a.wav", "a" * 100_000, "7", "007",
    "1e3", "NA", "null", "nan", "True", "zoë.wav", unicodedata.normalize("NFD", "zoë.wav"),
    "👶🏽.wav", "\u202egnp.wav", "\u200b.wav", "\ufeff.wav", "\u2028.wav", "ي.wav", "ﬁ.wav",
    "%s%n.wav", "{0}.wav", "a,b.wav", 'a"b.wav', "a;b.wav",
)  # fmt: skip


def put_nothing(_path: Path, _outside: Path) -> None:
    """Create no file."""


def put_recording(path: Path, _outside: Path) -> None:
    """Create a valid recording."""
    path.write_bytes(encoded(0, 0))


def put_other_unicode_form(path: Path, _outside: Path) -> None:
    """Create a recording under the name's other Unicode form, as archives from a Mac do."""
    name = path.name
    form: Literal["NFC", "NFD"] = "NFC" if unicodedata.is_normalized("NFD", name) else "NFD"
    path.with_name(unicodedata.normalize(form, name)).write_bytes(encoded(0, 0))


def put_folder(path: Path, _outside: Path) -> None:
    """Create a folder."""
    path.mkdir()


def put_pipe(path: Path, _outside: Path) -> None:
    """Create a named pipe without a writer."""
    os.mkfifo(path)


def put_socket(path: Path, _outside: Path) -> None:
    """Create a socket."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def put_link_outside(path: Path, outside: Path) -> None:
    """Create a link to a valid recording outside the folder."""
    path.symlink_to(outside / "secret.wav")


def put_link_inside(path: Path, _outside: Path) -> None:
    """Create a link to a valid recording inside the folder."""
    path.with_name("inside").write_bytes(encoded(0, 0))
    path.symlink_to("inside")


def put_link_to_device(path: Path, _outside: Path) -> None:
    """Create a link to an endless device."""
    path.symlink_to("/dev/zero")


def put_dangling_link(path: Path, _outside: Path) -> None:
    """Create a link to a missing file."""
    path.symlink_to("nothing")


def put_link_to_itself(path: Path, _outside: Path) -> None:
    """Create a link to itself."""
    path.symlink_to(path.name)


def put_link_cycle(path: Path, _outside: Path) -> None:
    """Create two links to each other."""
    path.symlink_to("other")
    path.with_name("other").symlink_to(path.name)


CONTENTS = (
    put_nothing, put_recording, put_recording, put_other_unicode_form, put_folder, put_pipe,
    put_socket, put_link_outside, put_link_inside, put_link_to_device, put_dangling_link,
    put_link_to_itself, put_link_cycle,
)  # fmt: skip
FOLDERS = ("", "", "x/", "out/", "loop/")  # the last two are links: outside, and to itself


def try_name(rng: np.random.Generator, folder: Path) -> Outcome:
    """List an odd name, or an odd file system entry, in a table, and store what can be read."""
    data, outside = folder / "data", folder / "outside"
    outside.mkdir()
    (outside / "secret.wav").write_bytes(encoded(0, 0))
    (data / "x").mkdir()
    (data / "out").symlink_to(outside)
    (data / "loop").symlink_to("loop")
    name = NAMES[rng.integers(len(NAMES))] if rng.random() < 0.6 else "clip.wav"
    put = CONTENTS[rng.integers(len(CONTENTS))]
    within = FOLDERS[rng.integers(len(FOLDERS))]
    name = within + name if name == "clip.wav" else name
    kind = (
        "odd name"
        if not name.endswith("clip.wav")
        else put.__name__.removeprefix("put_").replace("_", " ")
    )
    # A name that the file system rejects is an input, too.
    try:
        path = data / name
        if path.parent.resolve().is_relative_to(data.resolve()):
            put(path, outside)
    except (OSError, ValueError, RuntimeError):
        kind += ", not created"
    rows = [HEADER, [name, TASKS[0], "cat", "1"]]
    metadata_path = data / "train_metadata.csv"
    metadata_path.write_bytes(as_csv(rows).encode())
    report = Report()
    metadata = read_metadata(metadata_path, report)
    check_report(report)
    assert len(metadata) == 1
    parsed_name = metadata["filename"][0]
    assert parsed_name == name.strip()
    result = store_one(folder, parsed_name) if parsed_name else REFUSED
    assert result == REFUSED or not report.errors, f"{name!r} was reported, but still read"
    return Outcome(f"names: {kind}", result)
