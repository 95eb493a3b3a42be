"""JSON lines: one object a line, with bounds on a line and its line number kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from enrichd.ctl.sheet_records import ROW_CHARS_MAX, TOO_LARGE, UNDECODABLE
from enrichd.ctl.sheet_text import LINE_CHARS_MAX, LOST_BYTE, without_lost_bytes

Object: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class JsonLine:
    """One line that is not blank: its number from 1, its text, and its object or what is wrong."""

    line: int
    text: str | None
    """None if the line was too long to keep."""
    value: Object | None
    problem: str | None = None


def read_json_lines(lines: Iterator[str]) -> Iterator[JsonLine | None]:
    """Yield each line's object, or None for a blank line."""
    number, is_inside = 0, False
    for line in lines:
        # A line too long to keep comes in pieces: its first is reported, the others passed over.
        was_inside = is_inside
        is_inside = not line.endswith(("\n", "\r")) and len(line) >= LINE_CHARS_MAX
        number += not was_inside
        if was_inside:
            continue
        if is_inside or len(line) > ROW_CHARS_MAX:
            yield JsonLine(number, None, None, TOO_LARGE)
        elif line.isspace():
            yield None
        else:
            yield _read_line(number, line.strip())


def _read_line(number: int, text: str) -> JsonLine:
    if not text.isascii() and LOST_BYTE.search(text):
        return JsonLine(number, without_lost_bytes(text), None, UNDECODABLE)
    value = parse_object(text)
    if isinstance(value, str):
        return JsonLine(number, text, None, value)
    return JsonLine(number, text, value)


def parse_object(text: str) -> Object | str:
    """Parse one JSON line: the object, or why it is none."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return f"not JSON: {error.msg} at column {error.colno}"
    return value if isinstance(value, dict) else "not a JSON object"


def flat_cells(value: Object) -> Iterator[tuple[str, str]]:
    """Yield an object's texts and numbers as (key, text); one level down, keys are `a.b`."""
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from (
                (f"{key}.{inner_key}", str(leaf))
                for inner_key, leaf in inner.items()
                if _is_cell(leaf)
            )
        elif _is_cell(inner):
            yield key, str(inner)


def _is_cell(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
