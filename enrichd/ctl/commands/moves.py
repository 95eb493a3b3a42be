"""`enrichctl retry` and `enrichctl cancel`: the moves that people make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from uuid import UUID

import click

from enrichd.api.job_shapes import moves_of
from enrichd.ctl import render
from enrichd.ctl.choices import JOB_TYPE, status_option
from enrichd.ctl.confirming import confirm
from enrichd.ctl.invocation import Invocation, Session, command
from enrichd.ctl.job_ids import resolve
from enrichd.ctl.terminal import safe
from enrichd.domain.jobs import CANCELLABLE, RETRYABLE, JobStatus
from enrichd.errors import EnrichdError, Invalid, NotFound, Refused
from enrichd.store import job_reads
from enrichd.store.job_reads import Filter

BULK_MAX = 100_000
BULK_BATCH = 1_000
DECLINED = 1
EXIT_CODES: tuple[tuple[type[EnrichdError], int], ...] = ((Refused, 4), (NotFound, 3), (Invalid, 2))

Verb = Literal["retry", "cancel"]
Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Selection:
    """Which jobs to move: those named, or all that fit."""

    texts: tuple[str, ...]
    is_all: bool
    statuses: tuple[JobStatus, ...]
    job_type: str | None
    provider: str | None
    tag: str | None
    is_sure: bool

    def check(self) -> None:
        """Raise UsageError if it names jobs in two ways or in none."""
        has_filter = self.statuses or self.job_type or self.provider or self.tag
        if self.texts and (self.is_all or has_filter):
            raise click.UsageError("give ids, or --all with what the jobs have in common; not both")
        if not self.texts and not self.is_all:
            hint = "add --all to mean every job that fits" if has_filter else "give ids, or --all"
            raise click.UsageError(f"which jobs? {hint}")


def selecting(verb: str, allowed: frozenset[JobStatus], default: str) -> Callable[..., Any]:
    """Add the argument and options that select jobs."""

    def decorate(function: Function) -> Function:
        for option in reversed(
            [
                click.argument("texts", metavar="[ID…]", nargs=-1),
                click.option("--all", "is_all", is_flag=True, help="Every job that fits."),
                status_option(
                    f"With --all: jobs in this state. Default: {default}.",
                    allowed=allowed,
                    verb=verb,
                ),
                click.option(
                    "--type",
                    "job_type",
                    type=JOB_TYPE,
                    metavar="TYPE",
                    help="With --all: jobs of this type.",
                ),
                click.option("--provider", metavar="NAME", help="With --all: jobs of this lane."),
                click.option("--tag", metavar="TAG", help="With --all: jobs with this tag."),
                click.option("--yes", "is_sure", is_flag=True, help="Do not ask."),
            ]
        ):
            function = option(function)
        return function

    return decorate


@command(name="retry", epilog="Example: enrichctl retry --all --status dead_letter --tag import-7")
@selecting("be retried", RETRYABLE, "failed, dead_letter")
def retry_command(invocation: Invocation, **given: Any) -> int:
    """Run failed, dead or cancelled jobs again.

    Their attempts start again and what happened before stays in `enrichctl show --attempts`. A
    batch runs its failed leads only.
    """
    default = (JobStatus.FAILED, JobStatus.DEAD_LETTER)
    return move(invocation, "retry", Selection(**given), default)


@command(name="cancel", epilog="Example: enrichctl cancel 01a20a33-3bea")
@selecting("be cancelled", CANCELLABLE, "all that have not ended")
def cancel_command(invocation: Invocation, **given: Any) -> int:
    """Cancel jobs that have not ended.

    A job that runs is stopped by its worker, soon: it stays `processing` until then. What a batch
    has finished is kept.
    """
    default = tuple(status for status in JobStatus if status in CANCELLABLE)
    return move(invocation, "cancel", Selection(**given), default)


def move(
    invocation: Invocation, verb: Verb, chosen: Selection, default: tuple[JobStatus, ...]
) -> int:
    """Move the jobs that are named, or all that fit."""
    chosen.check()
    if chosen.is_all:
        return invocation.run(lambda: move_all(invocation, verb, chosen, default))
    return invocation.run(lambda: move_named(invocation, verb, chosen.texts))


async def move_named(invocation: Invocation, verb: Verb, texts: Sequence[str]) -> int:
    """Move jobs one by one, tell how each went, and return the worst exit code."""
    moved: list[tuple[UUID, JobStatus]] = []
    refused: list[tuple[str, EnrichdError]] = []
    async with invocation.session() as session:
        for text in dict.fromkeys(texts):
            try:
                moved.append(await move_one(session, verb, text))
            except (Invalid, NotFound, Refused) as error:
                if len(texts) == 1:
                    raise
                refused.append((text, error))
                if not invocation.is_json:
                    tell_refused(error)
            else:
                if not invocation.is_json:
                    render.line(moved_line(*moved[-1]))
    if invocation.is_json:
        render.json_document(moves_of(moved, refused))
    return max((exit_code(error) for _, error in refused), default=0)


async def move_one(session: Session, verb: Verb, text: str) -> tuple[UUID, JobStatus]:
    """Move one job; return its id and its state now."""
    async with session.database.connection() as conn:
        job_id = await resolve(conn, workspace_id=session.workspace, text=text)
    if verb == "cancel":
        return job_id, await session.queue.cancel(workspace_id=session.workspace, job_id=job_id)
    await session.queue.retry(workspace_id=session.workspace, job_id=job_id)
    return job_id, JobStatus.PENDING


def moved_line(job_id: UUID, status: JobStatus) -> str:
    """Return where a job stands after its move."""
    note = " (its worker was asked to stop it)" if status is JobStatus.PROCESSING else ""
    return f"{job_id}  {status}{note}"


def tell_refused(error: EnrichdError) -> None:
    """Print why one of several jobs was not moved."""
    click.echo(f"error: {safe(error.message)}", err=True)
    if error.hint and isinstance(error, Invalid):
        click.echo(safe(error.hint, block=True), err=True)


def exit_code(error: EnrichdError) -> int:
    """Return the exit code of an error, as main would."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


async def move_all(
    invocation: Invocation, verb: Verb, chosen: Selection, default: tuple[JobStatus, ...]
) -> int:
    """Move all jobs that fit, oldest first, after asking."""
    async with invocation.session() as session:
        wanted = Filter(
            workspace_id=session.workspace,
            statuses=chosen.statuses or default,
            type=chosen.job_type,
            provider_id=chosen.provider,
            tag=chosen.tag,
        )
        # All ids first: a job that fails again meanwhile must not come round a second time.
        async with session.database.connection() as conn:
            ids = await job_reads.ids(conn, wanted, limit=BULK_MAX)
        if ids and not confirm(
            question(verb, len(ids), wanted),
            is_sure=chosen.is_sure,
            count=len(ids),
            free=1,
        ):
            return DECLINED
        counts = await move_batches(session, verb, ids)
    tell_bulk(invocation, verb, len(ids), counts)
    return 0


def question(verb: Verb, count: int, wanted: Filter) -> str:
    """Return what a bulk move is about to do, as a sentence."""
    deed = "puts back" if verb == "retry" else "cancels"
    jobs = "1 job" if count == 1 else f"{count:,} jobs"
    filters = [("type", wanted.type), ("provider", wanted.provider_id), ("tag", wanted.tag)]
    also = "".join(f", {name} {value}" for name, value in filters if value)
    most = " (more than that at once is not done)" if count == BULK_MAX else ""
    states = " or ".join(wanted.statuses or ())
    return safe(
        f"This {deed} {jobs}{most} of workspace {wanted.workspace_id} that are {states}{also}."
    )


async def move_batches(session: Session, verb: Verb, ids: Sequence[UUID]) -> Counter[JobStatus]:
    """Move jobs by the batch, each in a transaction of its own; count their states now."""
    counts: Counter[JobStatus] = Counter()
    try:
        for start in range(0, len(ids), BULK_BATCH):
            counts.update(await move_batch(session, verb, ids[start : start + BULK_BATCH]))
            render.progress(f"{verb}: {start + BULK_BATCH:,} of {len(ids):,}")
    finally:
        render.progress("")
    return counts


async def move_batch(session: Session, verb: Verb, ids: Sequence[UUID]) -> Sequence[JobStatus]:
    """Move those of the jobs that can be; return their states now."""
    if verb == "cancel":
        moved = await session.queue.cancel_many(workspace_id=session.workspace, ids=ids)
        return list(moved.values())
    retried = await session.queue.retry_many(workspace_id=session.workspace, ids=ids)
    return [JobStatus.PENDING] * len(retried)


def tell_bulk(invocation: Invocation, verb: Verb, count: int, counts: Counter[JobStatus]) -> None:
    """Print what a bulk move did."""
    done = counts.total()
    if invocation.is_json:
        render.json_document(
            {
                "found": count,
                "moved": done,
                "statuses": {str(status): number for status, number in counts.items()},
            }
        )
        return
    if not count:
        render.line("nothing to do: no job fits")
        return
    shown = ", ".join(f"{number:,} now {status}" for status, number in counts.items())
    render.line(f"{verb}: {shown}" if shown else f"{verb}: none")
    if done < count:
        render.line(f"{count - done:,} had changed their state meanwhile and were left alone")
    if count == BULK_MAX:
        render.line("There may be more: run it again.")
