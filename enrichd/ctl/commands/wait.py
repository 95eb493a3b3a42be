"""`enrichctl wait ID…`: until jobs have ended."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

import click

from enrichd.ctl import render
from enrichd.ctl.durations import DURATION
from enrichd.ctl.invocation import Invocation, Session, command
from enrichd.ctl.job_ids import resolve_all
from enrichd.ctl.job_text import error_text, took
from enrichd.domain.jobs import TERMINAL, Job, JobStatus
from enrichd.errors import EnrichdError, JobNotFound
from enrichd.store import job_reads

LOOK_AGAIN_S = 0.05
LOOK_AGAIN_S_MAX = 1.0


class WaitTimedOut(EnrichdError):
    """Some jobs had not ended in time."""

    code = "wait_timed_out"


@command(name="wait", epilog="Example: enrichctl wait 01a20a33-3bea --timeout 5m")
@click.argument("job_ids", metavar="ID…", nargs=-1, required=True)
@click.option("--timeout", type=DURATION, metavar="TIME", help="Give up after this long: 90s, 5m.")
def wait_command(invocation: Invocation, job_ids: tuple[str, ...], timeout: float | None) -> int:
    """Wait until jobs have ended.

    Exits with 0 if all of them completed, with 1 if one failed, was cancelled or is a dead letter,
    and with 1 when the time is up. With --json the jobs are printed as lines.
    """
    return invocation.run(lambda: work(invocation, job_ids, timeout))


async def work(invocation: Invocation, texts: Sequence[str], timeout_s: float | None) -> int:
    """Wait for the jobs, print how they ended, and return the exit code."""
    async with invocation.session() as session:
        async with session.database.connection() as conn:
            ids = await resolve_all(conn, workspace_id=session.workspace, texts=list(texts))
        try:
            statuses = await wait_for_all(session, ids, timeout_s)
        finally:
            render.progress("")
        await print_ends(session, ids, is_json=invocation.is_json)
    missing = [status for status in statuses.values() if status not in TERMINAL]
    if missing:
        raise WaitTimedOut(
            f"timed out after {render.duration(timeout_s)}: {len(missing):,} of {len(ids):,} jobs"
            f" have not ended ({counted(missing)})",
            hint="They go on; wait again, or stop them with enrichctl cancel.",
        )
    return 0 if set(statuses.values()) == {JobStatus.COMPLETED} else 1


async def wait_for_all(
    session: Session, ids: Sequence[UUID], timeout_s: float | None
) -> Mapping[UUID, JobStatus]:
    """Return where the jobs stand once all have ended or the time is up.

    Raises JobNotFound for a job that is deleted meanwhile.
    """
    began, pause_s = time.monotonic(), LOOK_AGAIN_S
    while True:
        async with session.database.connection() as conn:
            found = await job_reads.statuses(conn, workspace_id=session.workspace, ids=ids)
        if gone := next((job_id for job_id in ids if job_id not in found), None):
            raise JobNotFound(f"job {gone} was deleted while it was waited for")
        took_s = time.monotonic() - began
        has_ended = all(status in TERMINAL for status in found.values())
        if has_ended or (timeout_s is not None and took_s >= timeout_s):
            return found
        render.progress(f"waiting {render.duration(took_s)}: {counted(found.values())}")
        left_s = pause_s if timeout_s is None else timeout_s - took_s
        await asyncio.sleep(min(pause_s, max(left_s, 0.0)))
        pause_s = min(pause_s * 1.5, LOOK_AGAIN_S_MAX)


def counted(statuses: Iterable[JobStatus]) -> str:
    """Return `3 completed, 1 pending`, in the states' own order."""
    counts = Counter(statuses)
    return ", ".join(f"{counts[status]:,} {status}" for status in JobStatus if counts[status])


async def print_ends(session: Session, ids: Sequence[UUID], *, is_json: bool) -> None:
    """Print each job as it stands, in the order given."""
    for job_id in ids:
        async with session.database.connection() as conn:
            job = await job_reads.get(conn, workspace_id=session.workspace, job_id=job_id)
        if job is None:
            continue
        if is_json:
            render.json_line(job.to_json())
        else:
            render.line(end_line(job))


def end_line(job: Job) -> str:
    """Return how a job ended, in one line."""
    parts = [str(job.id), f"{job.status:<11}"]
    if lasted := took(job.started_at, job.completed_at):
        parts.append(lasted)
    if job.error is not None:
        parts.append(error_text(job.error)[:200])
    return "  ".join(parts).rstrip()
