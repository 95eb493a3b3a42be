"""One finding of `doctor`: how it is, what that means, what to do.

`fail`: jobs stand still or get lost, now. `warn`: it works, and will hurt, or somebody should know.
`skip`: not looked at, and why.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Check:
    """One check and its outcome."""

    name: str
    """Snake_case and stable: `clock_skew`."""
    status: Status
    message: str
    hint: str | None = None
    """What to do about it."""


def ok(name: str, message: str) -> Check:
    """Return a check that is as it should be."""
    return Check(name, Status.OK, message)


def warn(name: str, message: str, hint: str | None = None) -> Check:
    """Return a check that somebody should know about."""
    return Check(name, Status.WARN, message, hint)


def fail(name: str, message: str, hint: str | None = None) -> Check:
    """Return a check that stops the queue."""
    return Check(name, Status.FAIL, message, hint)


def skip(name: str, reason: str) -> Check:
    """Return a check that was not made."""
    return Check(name, Status.SKIP, reason)
