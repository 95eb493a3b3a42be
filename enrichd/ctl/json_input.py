"""JSON that people hand in, read strictly.

Standard readers keep the last of two equal keys, round big integers and take NaN. A job's payload
is kept as it was given or refused, with the place of what is wrong.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from enrichd.domain.jobs import PAYLOAD_BYTES_MAX
from enrichd.errors import FieldProblem, Invalid, InvalidFile, InvalidPayload

TEXT_BYTES_MAX = 8 * PAYLOAD_BYTES_MAX
"""Bound of the text as given; spaces and escapes make it longer than what is kept."""

INTEGER_MAX = 2**63 - 1
NEAR_CHARS = 12


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return a JSON object. Raises InvalidPayload, `…is not JSON: …`, to put a subject before."""
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise unreadable(f"is not UTF-8 text (byte {error.start + 1})") from None
    if not text.strip():
        raise unreadable("is empty")
    try:
        value = json.loads(
            text,
            object_pairs_hook=object_of,
            parse_int=integer_of,
            parse_float=number_of,
            parse_constant=constant_of,
        )
    except json.JSONDecodeError as error:
        near = text[max(error.pos - NEAR_CHARS, 0) : error.pos + NEAR_CHARS]
        raise unreadable(
            f"is not JSON: {error.msg} at line {error.lineno} column {error.colno}, near {near!r}"
        ) from None
    except RecursionError:
        raise unreadable("is nested too deep") from None
    if not isinstance(value, dict):
        raise unreadable(f"must be a JSON object, not {json_kind(value)}")
    return value


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; refuse a key that stands twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise unreadable(f"has the key {twice[:80]!r} twice")
    return made


def integer_of(text: str) -> int:
    """Read an integer; refuse one that would come back rounded."""
    # The length first: Python refuses to read more than 4,300 digits.
    if len(text) > 20 or abs(int(text)) > INTEGER_MAX:
        shown = text if len(text) <= 30 else f"{text[:20]}… ({len(text):,} characters)"
        raise unreadable(f"holds the integer {shown}, which does not fit 64 bits; write it as text")
    return int(text)


def number_of(text: str) -> float:
    """Read a number with a point or an exponent; refuse one past what a double holds."""
    number = float(text)
    if math.isinf(number):
        raise unreadable(f"holds the number {text[:30]}, which is too large; write it as text")
    return number


def constant_of(text: str) -> float:
    """Refuse NaN and the infinities, which are not JSON."""
    raise unreadable(f"holds {text}, which is not JSON")


def unreadable(problem: str) -> InvalidPayload:
    """Return the error of a text that is no payload."""
    return InvalidPayload(problem, fields=[FieldProblem("", problem)])


def json_kind(value: object) -> str:
    """Return JSON's name for a value's kind."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "an array"
        case _:
            return "an object"


def read_payload(given: str) -> dict[str, Any]:
    """Read `--payload`: JSON, `@FILE`, or `-` for standard input. Raises Invalid, naming which."""
    text: str | bytes
    if given in ("-", "@-"):
        what, text = "the payload on standard input", bounded(sys.stdin.buffer, "standard input")
    elif given.startswith("@"):
        what, text = f"the payload in {given[1:]}", read_file(given[1:])
    else:
        what, text = "the payload", given
    try:
        return parse_object(text)
    except InvalidPayload as error:
        quoting = """Quote it for the shell: --payload '{"leadId": "1"}', or use @FILE."""
        raise InvalidPayload(
            f"{what} {error.message}",
            fields=[FieldProblem("payload", error.message)],
            hint=quoting if what == "the payload" and "not JSON" in error.message else None,
        ) from None


def read_file(name: str) -> bytes:
    """Read a file of bounded size. Raises InvalidFile."""
    try:
        with Path(name).open("rb") as file:
            return bounded(file, name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidFile(f"cannot read {name}: {reason}") from error


def bounded(file: BinaryIO, name: str) -> bytes:
    """Read all of a file that is not too large. Raises Invalid."""
    data = file.read(TEXT_BYTES_MAX + 1)
    if len(data) > TEXT_BYTES_MAX:
        raise Invalid(f"{name} has more than {TEXT_BYTES_MAX:,} bytes; that is no payload")
    return data
