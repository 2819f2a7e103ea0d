"""JSON lines: an object for each recording, as NeMo's manifests have it.

    {"audio_filepath": "clips/a.wav", "duration": 2.4, "text": "the cat"}

The keys are the columns of a table, without a header.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from hearback.engine.data.table_rows import Row

# A table has a value for each row and column: a file with a new key on each line would fill the
# memory. Keys after these are left out.
_MAX_KEYS = 200

_N_LINES_TRIED = 10  # the first line may be damaged

_PATH, _OFFSET = "audio_filepath", "offset"
_CURE_OF_LINE = f'write an object on this line, such as {{"{_PATH}": "a.wav", "text": "the cat"}}'
_CURE_OF_SEGMENT = "cut that part into a recording of its own, name that, and leave out the offset"


def is_json_lines(lines: Iterable[str]) -> bool:
    """Return whether there is an object on a line, and the first line looks like one."""
    first_ones = list(islice(filter(None, map(str.strip, lines)), _N_LINES_TRIED))
    # A brace alone begins an object on several lines.
    if not first_ones or not first_ones[0].startswith("{") or first_ones[0] == "{":
        return False
    return any(map(_is_object, first_ones))


def _is_object(line: str) -> bool:
    try:
        _parse(line)
    except ValueError:
        return False
    return True


def read_json_lines(lines: Sequence[str]) -> list[Row]:
    """Return a header row with the keys, then a row for each line; [] if all lines are blank.

    Texts are stripped, and a null or a key that a line lacks is "". A line that is no object, or
    that refers to a part of a recording, has a fault.
    """
    objects: dict[int, dict[str, Any]] = {}
    faults: dict[int, tuple[str, str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        objects[number] = {}
        try:
            objects[number] = _parse(line.rstrip())
        except ValueError as error:
            faults[number] = f"not JSON: {error}", _CURE_OF_LINE
        if segment := _describe_segment(objects[number]):
            faults[number] = segment, _CURE_OF_SEGMENT
    keys = list(dict.fromkeys(key for each in objects.values() for key in each))[:_MAX_KEYS]
    rows = [
        Row(number, [_as_text(each.get(key)) for key in keys], *faults.get(number, ()))
        for number, each in objects.items()
    ]
    return [Row(0, [_as_text(key) for key in keys]), *rows] if rows else []


def _parse(line: str) -> dict[str, Any]:
    """Return the object on a line. Raises ValueError, which completes "not JSON: "."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise ValueError(f"{what} at character {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("no object in braces")
    return value


def _describe_segment(record: dict[str, Any]) -> str:
    """Return the fault of an object that means a part of a recording; "" if it means all of it."""
    offset = record.get(_OFFSET)
    if _PATH not in record or offset in (None, "", "0") or offset == 0:
        return ""
    return f"its {_OFFSET} is {_as_text(offset)[:20]}: only a part of the recording is meant"


def _as_text(value: object) -> str:
    """Return a value of JSON as the field of a table."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # JSON can escape halves of characters, which no file can be written with.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
