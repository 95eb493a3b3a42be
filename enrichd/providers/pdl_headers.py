"""What People Data Labs says of its limits: JSON in headers, at times as Python would print it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import orjson

from enrichd.domain.facts import Json
from enrichd.providers.client import RETRY_AFTER_S_MAX, Answer
from enrichd.providers.contracts import Standing, WindowSeen
from enrichd.providers.json_parts import credits

HEADER_CHARS_MAX: Final = 1_000
CALLS_MAX: Final = 1_000_000_000
WINDOWS: Final = (("minute", 60), ("hour", 3_600), ("day", 86_400))
"""A month is a plan's, not a window to slide: when it is used up, PDL answers 402."""


def standing_of(answer: Answer) -> Standing:
    """Return what an answer says of its key's limits and credits."""
    headers = answer.headers
    limits = _by_window(headers.get("x-ratelimit-limit"))
    left = _by_window(headers.get("x-ratelimit-remaining"))
    reset_s = reset_after_s(headers)
    seen = [
        WindowSeen(
            seconds,
            limits.get(name),
            left.get(name),
            # The moment is that of the window of calls, which is a minute.
            reset_s if name == "minute" else None,
        )
        for name, seconds in WINDOWS
        if name in limits or name in left
    ]
    return Standing(tuple(seen), credits(headers.get("x-totallimit-remaining")))


def reset_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until `x-ratelimit-reset`, by the server's own clock; at least 1."""
    until = _moment(headers.get("x-ratelimit-reset", ""))
    if until is None:
        return None
    since = _date(headers.get("date", "")) or datetime.now(UTC)  # noqa: TID251 - theirs, not due
    return min(max((until - since).total_seconds(), 1.0), RETRY_AFTER_S_MAX)


def _by_window(text: str | None) -> dict[str, int]:
    """Read `{"minute": 100, "day": null}`, or a bare number, which is the minute's."""
    value = _json(text)
    entries = value if isinstance(value, dict) else {"minute": value}
    return {name: count for name, part in entries.items() if (count := _count(part)) is not None}


def _json(text: str | None) -> Json:
    if not text or len(text) > HEADER_CHARS_MAX:
        return None
    plain = text.replace("'", '"').replace("None", "null")
    try:
        return orjson.loads(plain)
    except orjson.JSONDecodeError:
        return None


def _count(value: Json) -> int | None:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and 0 <= value <= CALLS_MAX else None


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
