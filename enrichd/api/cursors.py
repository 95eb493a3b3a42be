"""Cursors: where a list goes on. Opaque to the caller, checked when they come back."""

from __future__ import annotations

import base64
import binascii

from enrichd.api.problems import Problem
from enrichd.errors import FieldProblem

TEXT_MAX = 2000


def cursor_of(place: str) -> str:
    """Return a place as a cursor."""
    return base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")


def place_of(cursor: str) -> str:
    """Return the place that a cursor stands for. Raises Problem 422."""
    try:
        padded = cursor[:TEXT_MAX].encode("ascii") + b"=" * (-len(cursor[:TEXT_MAX]) % 4)
        place = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (UnicodeError, binascii.Error, ValueError):
        raise bad_cursor() from None
    if "\0" in place:
        # No name that PostgreSQL holds has one.
        raise bad_cursor()
    return place


def bad_cursor() -> Problem:
    """Return the problem of a cursor that was not made here."""
    problem = "must be the nextCursor of an earlier answer"
    return Problem(
        422,
        "invalid_query",
        f"The query is wrong: cursor {problem}",
        fields=[FieldProblem("cursor", problem)],
    )
