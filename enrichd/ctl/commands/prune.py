"""`enrichctl prune`: delete jobs that ended long ago."""

from __future__ import annotations

from collections.abc import Sequence

import click

from enrichd.ctl import render
from enrichd.ctl.choices import status_option
from enrichd.ctl.confirming import confirm
from enrichd.ctl.durations import DURATION
from enrichd.ctl.invocation import Invocation, Session, command
from enrichd.ctl.terminal import safe
from enrichd.domain.jobs import TERMINAL, JobStatus
from enrichd.store import prune

AGE_S_MIN = 60.0
DECLINED = 1
ALL_TERMINAL = tuple(status for status in JobStatus if status in TERMINAL)


@command(name="prune", epilog="Example: enrichctl prune --older-than 30d --dry-run")
@click.option(
    "--older-than",
    "age_s",
    type=DURATION,
    required=True,
    metavar="TIME",
    help="Jobs that ended longer ago than this: 12h, 30d. At least 1m.",
)
@status_option(
    "Only jobs that ended so. Default: all four.",
    allowed=TERMINAL,
    verb="be pruned",
)
@click.option("--dry-run", is_flag=True, help="Count only; delete nothing.")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
def prune_command(
    invocation: Invocation,
    age_s: float,
    statuses: tuple[JobStatus, ...],
    dry_run: bool,
    is_sure: bool,
) -> int:
    """Delete jobs that ended long ago.

    Their results, attempts and leads go with them. It works in small batches beside the workers
    and may be interrupted and run again. What is deleted is gone, and idempotency keys of deleted
    jobs may be used again.
    """
    if age_s < AGE_S_MIN:
        raise click.UsageError(
            "--older-than must be at least 1m: somebody may still wait for a job that just ended"
        )
    return invocation.run(
        lambda: work(invocation, age_s, statuses or ALL_TERMINAL, dry_run, is_sure)
    )


async def work(
    invocation: Invocation,
    age_s: float,
    statuses: Sequence[JobStatus],
    is_dry: bool,
    is_sure: bool,
) -> int:
    """Count, ask, delete and tell; return the exit code."""
    async with invocation.session() as session:
        async with session.database.connection() as conn:
            found = await prune.count(
                conn, statuses=statuses, age_s=age_s, workspace_id=session.workspace
            )
        deed = (
            f"This deletes {jobs(found)} of workspace {session.workspace}"
            f" ({', '.join(statuses)}) for ever."
        )
        deleted = 0
        if found and not is_dry:
            if not confirm(safe(deed), is_sure=is_sure, count=found):
                return DECLINED
            deleted = await delete(session, age_s, statuses, found)
    if invocation.is_json:
        render.json_document({"found": found, "deleted": deleted, "isDryRun": is_dry})
    elif is_dry:
        render.line(f"would delete {jobs(found)} ({', '.join(statuses)})")
    elif found:
        render.line(f"deleted {jobs(deleted)}")
    else:
        render.line("nothing to do: no job ended that long ago")
    return 0


async def delete(session: Session, age_s: float, statuses: Sequence[JobStatus], found: int) -> int:
    """Delete batch by batch until nothing is left that is old enough; return how many went."""
    deleted = 0
    try:
        # Jobs grow old meanwhile: the end is a batch that is not full, not the first count.
        while True:
            async with session.database.connection() as conn:
                went = await prune.prune(
                    conn, statuses=statuses, age_s=age_s, workspace_id=session.workspace
                )
            deleted += went
            render.progress(f"deleted {deleted:,} of {found:,}")
            if went < prune.BATCH:
                return deleted
    finally:
        render.progress("")


def jobs(count: int) -> str:
    """Return `1 job`, `2,000 jobs`."""
    return "1 job" if count == 1 else f"{count:,} jobs"
