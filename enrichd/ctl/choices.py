"""Words of a known set as options: job states and job types, with completion and "did you mean"."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from enrichd.domain import payloads
from enrichd.domain.jobs import JobStatus

Function = TypeVar("Function", bound=Callable[..., Any])


class Statuses(click.ParamType[tuple[JobStatus, ...]]):
    """One state or several with commas: those whose jobs can do what `verb` says."""

    name = "status"

    def __init__(self, allowed: Collection[JobStatus], verb: str) -> None:
        self._allowed = [status for status in JobStatus if status in allowed]
        self._verb = verb

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[JobStatus, ...]:
        """Return the states; `dead-letter` is taken for `dead_letter`."""
        words = [word.strip().lower().replace("-", "_") for word in value.split(",")]
        return tuple(self._status(word, param, ctx) for word in words if word)

    def _status(
        self, word: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> JobStatus:
        shown = ", ".join(self._allowed)
        if word not in set(JobStatus):
            close = difflib.get_close_matches(word, list(JobStatus), n=1)
            hint = f"did you mean {close[0]}?" if close else f"states are {shown}"
            self.fail(f"{word!r} is not a state; {hint}", param, ctx)
        if word not in self._allowed:
            self.fail(f"{word} jobs cannot {self._verb}; only {shown} jobs can", param, ctx)
        return JobStatus(word)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the last state of the list."""
        done, comma, last = incomplete.rpartition(",")
        return [
            CompletionItem(done + comma + status)
            for status in self._allowed
            if status.startswith(last)
        ]


def status_option(
    help: str, *, allowed: Collection[JobStatus] = frozenset(JobStatus), verb: str = "be listed"
) -> Callable[[Function], Function]:
    """Add `--status`, which may be given several times; the function gets `statuses`, a tuple."""

    def flat(
        _ctx: click.Context, _param: click.Parameter, given: tuple[tuple[JobStatus, ...], ...]
    ) -> tuple[JobStatus, ...]:
        return tuple(dict.fromkeys(status for part in given for status in part))

    return click.option(
        "--status",
        "statuses",
        metavar="STATE[,…]",
        multiple=True,
        type=Statuses(allowed, verb),
        callback=flat,
        help=help,
    )


class JobType(click.ParamType[str]):
    """A job type's name; which ones there are depends on the plug-ins, so any text passes."""

    name = "job_type"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name as it is."""
        return str(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete the built-in types."""
        return [CompletionItem(name) for name in payloads.MODELS if name.startswith(incomplete)]


JOB_TYPE = JobType()


def nearest_type(name: str) -> str | None:
    """Return the known job type that an unknown name probably means, or None."""
    if name in payloads.MODELS:
        return None
    close = difflib.get_close_matches(name, payloads.MODELS, n=1)
    return close[0] if close else None
