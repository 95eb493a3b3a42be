"""Durations as people write them: `250ms`, `90s`, `5m`, `1h30m`, `2d`.

A number without a unit is refused: environment variables count milliseconds and people mean
anything from seconds to days.
"""

from __future__ import annotations

import re
from typing import Any

import click

UNITS_S = {"w": 604_800.0, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
"""Seconds of each unit, largest first: the order in which the parts of a duration stand."""

DURATION_S_MAX = 100 * 366 * UNITS_S["d"]

_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*(ms|[wdhms])\s*", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?", re.ASCII)


def parse_duration(text: str) -> float:
    """Return a duration in seconds. Raises ValueError, saying what would be right."""
    text = text.strip()
    if re.fullmatch(r"0+", text):
        return 0.0
    if _NUMBER.fullmatch(text):
        raise ValueError(f"has no unit; write {text}s, {text}m, {text}h or {text}d")
    seconds, place, units_left = 0.0, 0, list(UNITS_S)
    while place < len(text):
        part = _PART.match(text, place)
        if part is None or part[2] not in units_left:
            raise ValueError("is not a duration; write it like 250ms, 90s, 5m, 1h30m or 2d")
        seconds += float(part[1]) * UNITS_S[part[2]]
        units_left = units_left[units_left.index(part[2]) + 1 :]
        place = part.end()
    if not place:
        raise ValueError("is empty; write a duration like 90s, 5m or 1h30m")
    if seconds > DURATION_S_MAX:
        raise ValueError("is more than 100 years")
    return seconds


class Duration(click.ParamType[float]):
    """An option's duration, in seconds as float."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds; a number (a default in code) passes as it is."""
        if isinstance(value, (int, float)):
            return float(value)
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


DURATION = Duration()
