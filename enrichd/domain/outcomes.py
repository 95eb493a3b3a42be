"""What a run of a job ends in.

A handler returns an outcome (or a plain dict, which completes the job); `processing/run.py` makes
one of every error. How each is written down is decided in `queue/endings.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class JobError:
    """An error as a job keeps it: `{type, message, provider, retryable}`, and the wrong fields."""

    type: str
    message: str
    provider: str | None = None
    retryable: bool = False
    fields: tuple[tuple[str, str], ...] = ()
    """(dotted path, problem) pairs of a payload that does not fit."""

    def to_json(self) -> dict[str, Any]:
        """Return the shape of the column `error`."""
        shape: dict[str, Any] = {
            "type": self.type,
            "message": self.message,
            "provider": self.provider,
            "retryable": self.retryable,
        }
        if self.fields:
            shape["fields"] = [{"path": path, "problem": problem} for path, problem in self.fields]
        return shape


@dataclass(frozen=True, slots=True)
class Completed:
    """The work is done; `result` is kept with the job."""

    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failed:
    """An error that no retry can mend."""

    error: JobError


@dataclass(frozen=True, slots=True)
class Retry:
    """An error that a later attempt may mend, if one is left; else the job is a dead letter.

    `delay_s` overrides the backoff (a server said when to come back).
    """

    error: JobError
    delay_s: float | None = None


@dataclass(frozen=True, slots=True)
class Snooze:
    """Run again in `delay_s` seconds without using an attempt (rate limit, provider outage)."""

    delay_s: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Park:
    """Wait for a provider's callback, for `deadline_s` seconds at the most."""

    deadline_s: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The run stopped because somebody cancelled its job."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class Released:
    """The run was given up at a shutdown; the job is pending again, no attempt used."""


Outcome: TypeAlias = Completed | Failed | Retry | Snooze | Park | Cancelled | Released
