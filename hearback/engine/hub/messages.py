"""What an error of the hub means, and what to do about it."""

import contextlib
import json
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from hearback.engine.errors import HearbackError, nearest

HUB = "https://huggingface.co"
_LOGIN = "set HF_TOKEN, or run `hf auth login`"
_N_REASON = 200  # characters of an error's own text


class CutError(ConnectionError):
    """A connection that ended before the file did."""


class HubError(HearbackError):
    """A model that the hub did not provide; the message says why and what to do.

    Attributes:
        is_unreachable: nothing is wrong with the model's name: another machine may get it.
    """

    def __init__(self, hub_id: str, reason: str, *, is_unreachable: bool = False) -> None:
        super().__init__(f"the hub did not provide {hub_id}: {reason}")
        self.hub_id = hub_id
        self.reason = reason
        self.is_unreachable = is_unreachable

    def followed_by(self, hint: str) -> "HubError":
        """Return the error with one more sentence."""
        return HubError(self.hub_id, self.reason + hint, is_unreachable=self.is_unreachable)


def explain(error: Exception, hub_id: str, revision: str | None, known: Iterable[str]) -> HubError:
    """Return the error to show for an error of the hub's client.

    Args:
        error: an exception that `is_expected`.
        hub_id: the model's id.
        revision: the branch, tag or commit that was asked for.
        known: ids of models that exist, for suggestions.
    """
    status = status_of(error)
    if is_offline():
        return HubError(
            hub_id,
            "HF_HUB_OFFLINE is set, which forbids downloads, and the hub's cache does not have it. "
            "Unset HF_HUB_OFFLINE to download it",
            is_unreachable=True,
        )
    if status is not None:
        return _explain_answer(error, status, hub_id, revision, known)
    if type(error).__name__ == "HFValidationError":
        return HubError(hub_id, f"that is no id of a model ({reason_of(error)}). Check the name")
    if isinstance(error, ValueError) or type(error).__name__ == "FileMetadataError":
        return _not_the_hub(error, hub_id, reason_of(error))
    reason = reason_of(error)
    if "CERTIFICATE_VERIFY_FAILED" in f"{error}{reason}":
        return HubError(
            hub_id,
            f"the certificate of {_address(error)} is not accepted ({reason}). In a network that "
            "reads HTTPS, set SSL_CERT_FILE and REQUESTS_CA_BUNDLE to the file of its certificate",
            is_unreachable=True,
        )
    return HubError(
        hub_id,
        f"{_address(error)} cannot be reached ({reason}). Check the network, the proxy "
        "(HTTPS_PROXY) and, for a mirror, HF_ENDPOINT; then run the same command again",
        is_unreachable=True,
    )


def _explain_answer(
    error: Exception, status: int, hub_id: str, revision: str | None, known: Iterable[str]
) -> HubError:
    """Return the error to show for an answer with an error status."""
    if reason := _explain_refusal(error, status, hub_id, known):
        return HubError(hub_id, reason)
    if header_of(error, "X-Error-Code") == "RevisionNotFound":
        return HubError(
            hub_id,
            f"it has no revision {revision or 'main'}. {HUB}/{hub_id}/commits/main lists them; "
            "`--revision main` takes what the hub has now",
        )
    if status == 429:
        seconds = seconds_to_wait(error)
        wait = "a few minutes" if seconds is None else f"{seconds:g} seconds"
        reason = (
            f"too many requests for now (429). Wait {wait}, and run the same command again; with a "
            f"token the hub allows more: {_LOGIN}"
        )
    elif status >= 500:
        reason = f"{_address(error)} is out of order ({status}). Run the same command again later"
    else:
        return _not_the_hub(error, hub_id, f"status {status}")
    return HubError(hub_id, reason, is_unreachable=True)


def _explain_refusal(
    error: Exception, status: int, hub_id: str, known: Iterable[str]
) -> str | None:
    """Return what to do about a model that this user cannot read; None for other errors."""
    page = f"{HUB}/{hub_id}"
    code, message = header_of(error, "X-Error-Code"), header_of(error, "X-Error-Message") or ""
    if code == "GatedRepo":
        return _gated(page)
    if status == 401 and "credentials" in message:
        return (
            f"it does not accept your token. Make a new one on {HUB}/settings/tokens and {_LOGIN}; "
            "open models need none: unset HF_TOKEN, and run `hf auth logout`"
        )
    if code == "RepoNotFound" or status == 401 or (status == 404 and code is None):
        hint = did_you_mean_id(hub_id, known) or ". Check the name."
        return (
            f"there is no such model{hint} For a private one give a token that may read it: "
            f"{_LOGIN}"
        )
    if status == 403:
        return (
            f"{_address(error)} refuses access ({message or status}). Check on {page} what your "
            "account may read (a fine-grained token needs leave to read public gated models), and "
            "whether your network blocks that address"
        )
    return None


def _gated(page: str) -> str:
    from huggingface_hub import get_token  # noqa: PLC0415  (inference has no network)

    if get_token():
        return (
            f"it is gated, and the account of your token has no access. Accept its terms on {page} "
            "with that account (some authors answer by hand), then run the same command again"
        )
    return (
        f"it is gated. Accept its terms on {page}, then give the command a token of the same "
        f"account: {_LOGIN}"
    )


def _not_the_hub(error: Exception, hub_id: str, reason: str) -> HubError:
    return HubError(
        hub_id,
        f"{_address(error)} does not answer as the hub does ({reason}). Check HF_ENDPOINT and the "
        "proxy (HTTPS_PROXY), and whether this network wants you to sign in on a page first",
        is_unreachable=True,
    )


def did_you_mean_id(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean owner/name?" if a known id is like `name`, else "".

    The last parts are compared, too: of `whisper-small` and another owner's `openai/whisper-small`.
    """
    known = list(known)
    by_name = {each.rsplit("/", 1)[-1]: each for each in known}
    near = nearest(name, known) or by_name.get(nearest(name.rsplit("/", 1)[-1], by_name) or "")
    return f"; did you mean {near}?" if near and near != name else ""


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE forbids requests."""
    from huggingface_hub import constants  # noqa: PLC0415

    return bool(constants.HF_HUB_OFFLINE)


def _address(error: BaseException) -> str:
    """Return the address that failed: large files come from another one than the hub's."""
    from huggingface_hub import constants  # noqa: PLC0415

    for name in ("response", "request"):
        # httpx raises a RuntimeError where there is none.
        with contextlib.suppress(AttributeError, RuntimeError):
            found = urlsplit(str(getattr(error, name).url))
            if found.netloc:
                return f"{found.scheme}://{found.netloc}"
    return constants.ENDPOINT


def is_network_error(error: BaseException) -> bool:
    """Return whether a connection failed, rather than what it brought."""
    if isinstance(error, CutError):
        return True
    # The client uses httpx or, before 1.0, requests; which of them is none of our business.
    module = type(error).__module__.partition(".")[0]
    return module in ("httpx", "requests", "urllib3") and not isinstance(error, ValueError)


def is_expected(error: BaseException) -> bool:
    """Return whether an error is one of the network, the hub or its client, and no bug of ours."""
    module = type(error).__module__.partition(".")[0]
    return is_network_error(error) or isinstance(error, ValueError) or module == "huggingface_hub"


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of an answer that is an error; None for other errors."""
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)


def header_of(error: BaseException, name: str) -> str | None:
    """Return a header of an answer that is an error, if it has it."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    return None if headers is None else headers.get(name)


def seconds_to_wait(error: BaseException) -> float | None:
    """Return the seconds after which the hub wants to be asked again, if it says so."""
    value = (header_of(error, "Retry-After") or "").strip()
    return float(value) if value.isdecimal() else None


def reason_of(error: BaseException) -> str:
    """Return an error's own words, one short line: of a failed connection those of the system."""
    if isinstance(error, json.JSONDecodeError):
        return "no JSON"
    texts = [line.strip() for line in str(error).splitlines() if line.strip()]
    if is_network_error(error):
        texts = [each.strerror for each in _chain(error) if each.strerror][-1:] or texts
    return texts[0].rstrip(".")[:_N_REASON] if texts else type(error).__name__


def _chain(error: BaseException | None) -> Iterator[OSError]:
    """Yield the system's errors among an error and its causes, the first cause last."""
    while error is not None:
        if isinstance(error, OSError):
            yield error
        error = error.__cause__ or error.__context__


def size(n_bytes: int) -> str:
    """Return a number of bytes in words: 3.06 GB."""
    for unit, n in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= n:
            return f"{n_bytes / n:.3g} {unit}"
    return f"{n_bytes} bytes"
