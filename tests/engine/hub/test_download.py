"""Downloads from a hub on this machine with the true client: what arrives, and what is kept."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from hearback.engine.errors import HearbackError
from hearback.engine.hub import download as downloading
from hearback.engine.hub import transfer
from hearback.engine.hub.download import HubModel
from hearback.engine.hub.messages import HubError
from hearback.engine.hub.transfer import HubFile
from hearback.engine.whisper import pretrained
from hearback.engine.whisper.wheels import PUBLISHED, REVISIONS
from tests.conftest import files_no_longer_than
from tests.engine.hub.conftest import NAME, WEIGHTS, Files, check_is_whole, names_in, read_origin
from tests.loopback import FakeHub, Fault

CUT = 30_000  # bytes of the weights


@pytest.fixture
def lines() -> list[str]:
    """What a download logs."""
    return []


@pytest.fixture
def fetch(tmp_path: Path, lines: list[str]) -> Callable[..., Path]:
    """Download a model to `assets` and return its directory."""

    def run(name: str = NAME, **settings: Any) -> Path:
        return pretrained.download_model(name, tmp_path / "assets", lines.append, **settings)

    return run


def test_the_client_itself_downloads_from_the_fake_hub(
    tmp_path: Path, hub: FakeHub, files: Files
) -> None:
    """The fake speaks as the client expects: its own way is another one than ours."""
    commit = hub.add(NAME, files)
    hub.renamed["owner/old"] = NAME
    for name in (NAME, "owner/old"):
        folder = Path(huggingface_hub.snapshot_download(name, cache_dir=tmp_path / name))
        assert folder.name == commit
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files


def test_a_model_is_downloaded_without_what_nobody_needs(
    hub: FakeHub, files: Files, fetch: Callable[..., Path], lines: list[str]
) -> None:
    commit = hub.add(NAME, files)
    folder = fetch()
    check_is_whole(folder, files)
    assert read_origin(folder) == {"from": f"https://huggingface.co/{NAME}", "revision": commit}
    assert not hub.sent("README.md")
    assert not hub.cdn.sent("pytorch_model.bin")
    assert lines == [f"{folder}: {NAME} from the hub"]
    n_requests = len(hub.requests)
    assert fetch() == folder
    assert len(hub.requests) == n_requests


def test_a_renamed_model_is_found(hub: FakeHub, files: Files, fetch: Callable[..., Path]) -> None:
    hub.add(NAME, files)
    hub.renamed["owner/old"] = NAME
    check_is_whole(fetch("owner/old"), files)


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_cut_download_goes_on_where_it_stopped(
    hub: FakeHub, files: Files, fetch: Callable[..., Path], lines: list[str], is_reset: bool
) -> None:
    hub.add(NAME, files)
    hub.cdn.faults += [Fault(WEIGHTS, times=2, cut_after=CUT, reset=is_reset)]
    check_is_whole(fetch(), files)
    assert hub.cdn.sent(WEIGHTS) == [CUT, CUT, len(files[WEIGHTS]) - 2 * CUT]
    assert sum("trying again in 0.01 s" in line for line in lines) == 2


def test_cuts_are_counted_anew_after_every_received_byte(
    hub: FakeHub, files: Files, fetch: Callable[..., Path]
) -> None:
    hub.add(NAME, files)
    n_cuts = len(transfer.WAITS) + 4
    hub.cdn.faults += [Fault(WEIGHTS, times=n_cuts, cut_after=1000)]
    check_is_whole(fetch(), files)
    assert hub.cdn.sent(WEIGHTS)[:n_cuts] == [1000] * n_cuts


def test_the_next_run_fetches_no_byte_twice(
    hub: FakeHub, files: Files, fetch: Callable[..., Path], lines: list[str], tmp_path: Path
) -> None:
    hub.add(NAME, files)
    hub.cdn.faults += [Fault(WEIGHTS, cut_after=CUT), Fault(WEIGHTS, times=99, status=503)]
    with pytest.raises(HubError, match=r"out of order \(503\)\. Run the same command") as raised:
        fetch()
    kept = tmp_path / "assets" / ".tiny.download"
    assert str(raised.value).endswith(f"kept in {kept}: the same command goes on from there")
    assert names_in(tmp_path / "assets") == [kept.name]
    hub.cdn.faults.clear()
    check_is_whole(fetch(), files)
    assert sum(hub.cdn.sent(WEIGHTS)) == len(files[WEIGHTS])
    assert len(hub.sent("config.json")) == 1
    assert any(line.startswith(f"going on with {NAME}: ") for line in lines)


def test_ctrl_c_says_what_is_kept(
    hub: FakeHub, files: Files, fetch: Callable[..., Path], lines: list[str], tmp_path: Path
) -> None:
    hub.add(NAME, files)

    def stop(_: Any, n_bytes: int) -> None:
        if n_bytes >= 1000:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloading._Download, "_count", stop)
        with pytest.raises(KeyboardInterrupt):
            fetch()
    assert lines[-1].endswith("the same command goes on from there")
    assert names_in(tmp_path / "assets") == [".tiny.download"]
    check_is_whole(fetch(), files)
    assert sum(hub.cdn.sent(WEIGHTS)) >= len(files[WEIGHTS])


def test_a_server_that_ignores_the_range_starts_the_file_again(
    hub: FakeHub, files: Files, fetch: Callable[..., Path]
) -> None:
    hub.add(NAME, files)
    hub.cdn.faults += [Fault(WEIGHTS, cut_after=CUT), Fault(WEIGHTS, ignores_range=True)]
    check_is_whole(fetch(), files)
    assert hub.cdn.sent(WEIGHTS) == [CUT, len(files[WEIGHTS])]


def test_a_connection_without_bytes_is_given_up_and_a_slow_one_is_not(
    hub: FakeHub,
    files: Files,
    fetch: Callable[..., Path],
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer, "TIMEOUT_SECONDS", 0.5)
    hub.add(NAME, files)
    hub.cdn.faults += [Fault(WEIGHTS, pause=1.0)]
    hub.faults += [Fault("tokenizer.json", pause=0.05, block=len(files["tokenizer.json"]) // 15)]
    check_is_whole(fetch(), files)
    assert len([line for line in lines if "trying again" in line]) == 1
    assert len(hub.sent("tokenizer.json")) == 1


def test_a_file_that_is_changed_on_the_way_is_refused(
    hub: FakeHub, files: Files, fetch: Callable[..., Path], lines: list[str], tmp_path: Path
) -> None:
    hub.add(NAME, files)
    other = bytes(len(files[WEIGHTS]))
    hub.cdn.faults += [Fault(WEIGHTS, times=2, body=other)]
    with pytest.raises(HubError, match=r"model\.safetensors has the digest .*, but the hub lists"):
        fetch()
    assert names_in(tmp_path / "assets") == []
    hub.cdn.faults += [Fault(WEIGHTS, body=other)]
    hub.faults += [Fault("config.json", body=bytes(len(files["config.json"])))]
    check_is_whole(fetch(), files)
    assert "config.json is not the file that the hub lists: fetching it again" in lines


class Bar:
    """A progress bar that remembers its highest position, of all bars."""

    highest = 0

    def __init__(self, total: int, initial: int, **_: Any) -> None:
        self.total, self.n = total, initial

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        assert self.n == self.total

    def update(self, n_bytes: int) -> None:
        """Move."""
        self.n += n_bytes
        Bar.highest = max(Bar.highest, self.n)

    def clear(self) -> None:
        """Nothing is shown."""


def test_the_bar_goes_back_when_a_file_is_fetched_again(
    hub: FakeHub, files: Files, fetch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloading, "tqdm", Bar)
    monkeypatch.setattr(Bar, "highest", 0)
    hub.add(NAME, files)
    hub.cdn.faults += [Fault(WEIGHTS, body=bytes(len(files[WEIGHTS])))]
    folder = fetch()
    downloaded = [path for path in folder.iterdir() if path.name != "origin.json"]
    assert Bar.highest == sum(path.stat().st_size for path in downloaded)


@pytest.mark.parametrize(
    ("digest", "expected", "is_checkable"),
    [
        ("e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", None, True),  # git's of an empty file
        ("0" * 40, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391", True),
        ("0" * 64, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", True),
        ("../../evil", None, False),  # a mirror's own tag
    ],
)
def test_digests_are_of_the_hub_s_kind(
    tmp_path: Path, digest: str, expected: str | None, is_checkable: bool
) -> None:
    (tmp_path / "empty").touch()
    file = HubFile("empty", "http://x", digest, 0)
    assert file.digest_of(tmp_path / "empty") == (expected or digest)
    assert file.is_checkable is is_checkable
    assert "/" not in file.key


def test_a_pinned_model_is_the_same_after_its_branch_has_moved(
    hub: FakeHub, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    name = "openai/whisper-small"
    pinned = hub.add(name, files)
    newer = files | {WEIGHTS: files[WEIGHTS][::-1]}
    newest = hub.add(name, newer)
    monkeypatch.setitem(REVISIONS, name, pinned)
    folder = pretrained.resolve(name, tmp_path / "assets", lines.append)
    check_is_whole(folder, files)
    assert read_origin(folder)["revision"] == pinned
    other = pretrained.download_model(name, tmp_path / "b", lines.append, revision="main")
    check_is_whole(other, newer)
    assert read_origin(other)["revision"] == newest
    with pytest.raises(HearbackError, match=f"is there already, of {newest}: remove it"):
        pretrained.download_model(name, tmp_path / "b", lines.append, revision=pinned)


def test_a_branch_that_moves_between_two_runs_is_not_mixed(
    hub: FakeHub, files: Files, fetch: Callable[..., Path]
) -> None:
    hub.add(NAME, files)
    hub.cdn.faults += [Fault(WEIGHTS, cut_after=CUT), Fault(WEIGHTS, times=99, status=503)]
    with pytest.raises(HubError, match="503"):
        fetch()
    hub.cdn.faults.clear()
    newer = files | {WEIGHTS: files[WEIGHTS][::-1], "config.json": files["config.json"] + b"\n"}
    commit = hub.add(NAME, newer)
    folder = fetch()
    check_is_whole(folder, newer)
    assert read_origin(folder)["revision"] == commit


def test_a_branch_that_moves_during_a_run_is_not_mixed(
    hub: FakeHub, files: Files, fetch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, files)
    read_file = transfer.read_file

    def move(*arguments: str) -> HubFile:
        hub.add(NAME, files | {WEIGHTS: b"newer"})
        return read_file(*arguments)

    monkeypatch.setattr(transfer, "read_file", move)
    check_is_whole(fetch(), files)


def test_pins_are_whole_commits_of_known_models() -> None:
    assert {model.hub_id for model in PUBLISHED.values()} <= REVISIONS.keys()
    assert {"openai/whisper-small", "openai/whisper-medium"} <= REVISIONS.keys()
    assert all(len(commit) == 40 and int(commit, 16) for commit in REVISIONS.values())


def test_files_outside_of_the_directory_are_not_written(
    hub: FakeHub, files: Files, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    hub.add(NAME, files | {"model-/../../../evil.safetensors": b"x"})
    check_is_whole(fetch(), files)
    assert not list(tmp_path.rglob("evil*"))


def test_two_names_of_one_content_are_fetched_once(
    hub: FakeHub, files: Files, fetch: Callable[..., Path]
) -> None:
    hub.add(NAME, files | {"vocab.json": files["tokenizer.json"]})
    folder = fetch()
    assert (folder / "vocab.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert len(hub.sent("tokenizer.json") + hub.sent("vocab.json")) == 1


def test_two_processes_download_once(hub: FakeHub, files: Files, tmp_path: Path) -> None:
    hub.add(NAME, files)
    hub.cdn.faults += [Fault(WEIGHTS, pause=0.05)]
    model = HubModel(NAME, None, pretrained.HUB_FILES)
    lines: list[str] = []
    target = tmp_path / "assets" / "tiny"
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(downloading.download, model, target, lines.append) for _ in range(2)]
        for each in both:
            each.result()
    check_is_whole(target, files)
    assert hub.cdn.sent(WEIGHTS) == [len(files[WEIGHTS])]
    parts = target.with_name(".tiny.download")
    assert lines == [f"waiting for another process, which downloads to {parts}"]


def test_a_disk_without_room_is_noticed_before_the_download(
    hub: FakeHub, files: Files, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    hub.add(NAME, files)
    full = type("Usage", (), {"free": 1000})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloading.shutil, "disk_usage", lambda _: full)
        with pytest.raises(OSError, match=r"the download needs .* kB, and 1 kB are free") as raised:
            fetch()
    assert raised.value.filename == str(tmp_path / "assets" / "tiny")
    assert not hub.cdn.sent(WEIGHTS)
    assert names_in(tmp_path / "assets") == []


def test_a_full_disk_leaves_no_file_that_counts_as_whole(
    hub: FakeHub, files: Files, fetch: Callable[..., Path], tmp_path: Path
) -> None:
    hub.add(NAME, files)
    limit = len(files[WEIGHTS]) - 5000
    with files_no_longer_than(limit), pytest.raises(OSError, match="File too large") as raised:
        fetch()
    assert raised.value.filename == str(tmp_path / "assets" / "tiny")
    assert names_in(tmp_path / "assets") == [".tiny.download"]
    check_is_whole(fetch(), files)
    assert hub.cdn.sent(WEIGHTS)[-1] == 5000


def test_a_full_disk_is_no_reason_to_take_the_wheel(
    hub: FakeHub, files: Files, fetch: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("openai/whisper-base", files)
    monkeypatch.setitem(REVISIONS, "openai/whisper-base", "main")
    monkeypatch.setattr(pretrained, "convert_wheels", None)
    with files_no_longer_than(CUT), pytest.raises(OSError, match="File too large"):
        fetch("whisper-base")


def test_the_hub_s_cache_spares_a_download(
    hub: FakeHub, files: Files, fetch: Callable[..., Path]
) -> None:
    hub.add(NAME, files)
    cached = Path(huggingface_hub.hf_hub_download(NAME, WEIGHTS))
    hub.cdn.requests.clear()
    folder = fetch()
    check_is_whole(folder, files)
    assert not hub.cdn.requests
    assert cached.is_file()


def test_offline_the_hub_s_cache_is_taken_or_the_switch_named(
    hub: FakeHub, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    assets = tmp_path / "assets"
    commit = hub.add(NAME, files)
    snapshot = huggingface_hub.snapshot_download(NAME)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = pretrained.download_model(NAME, assets, lines.append)
    check_is_whole(folder, files)
    assert read_origin(folder)["revision"] == commit
    assert lines[0] == f"{folder}: copied from {snapshot}, because HF_HUB_OFFLINE is set"
    with pytest.raises(HubError, match=r"HF_HUB_OFFLINE is set, which .* Unset HF_HUB_OFFLINE"):
        pretrained.download_model("owner/other", assets, lines.append)
    cure = f"On a machine with a network run .* then copy {assets / 'other'} here"
    with pytest.raises(HearbackError, match=cure):
        pretrained.resolve("owner/other", assets, lines.append)
    assert names_in(assets) == ["tiny"]
    assert not hub.requests
