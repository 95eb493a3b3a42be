"""`enrichctl list`: the jobs of a workspace, newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import click

from enrichd.api.job_shapes import line_of
from enrichd.ctl import render
from enrichd.ctl.choices import JOB_TYPE, nearest_type, status_option
from enrichd.ctl.invocation import Invocation, Session, command
from enrichd.ctl.job_ids import resolve, short
from enrichd.ctl.job_text import note_of
from enrichd.domain.jobs import Job, JobStatus
from enrichd.store import job_reads, job_views
from enrichd.store.job_reads import LIST_MAX, Filter

LIMIT_MAX = 100_000
DIGITS_SHOWN_MIN = 12
"""The digits of a version 7 id that tell its millisecond: fewer fit later jobs tomorrow."""


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs to show, and what is needed to show them."""

    jobs: Sequence[Job]
    is_cut: bool
    digits: int
    now: datetime


@command(name="list", epilog="Example: enrichctl list --status failed,dead_letter --limit 50")
@status_option("Only jobs in this state; several with commas.")
@click.option("--type", "job_type", type=JOB_TYPE, metavar="TYPE", help="Only jobs of this type.")
@click.option("--provider", metavar="NAME", help="Only jobs of this provider's lane.")
@click.option("--tag", metavar="TAG", help="Only jobs with this tag.")
@click.option(
    "--limit",
    type=click.IntRange(1, LIMIT_MAX),
    default=20,
    show_default=True,
    metavar="N",
    help=f"How many to show, up to {LIMIT_MAX:,}.",
)
@click.option("--before", metavar="ID", help="Only jobs older than this one: the next page.")
def list_command(
    invocation: Invocation,
    statuses: tuple[JobStatus, ...],
    job_type: str | None,
    provider: str | None,
    tag: str | None,
    limit: int,
    before: str | None,
) -> None:
    """List jobs, newest first.

    An id is shown as far as it is needed to name the job in other commands. With --json each job
    is a line, without its payload and result, which `enrichctl show` has.
    """
    wanted = Filter(
        workspace_id=invocation.workspace,
        statuses=statuses or None,
        type=job_type,
        provider_id=provider,
        tag=tag,
    )
    if invocation.is_json:
        invocation.run(lambda: print_lines(invocation, wanted, limit, before))
        return
    page = invocation.run(lambda: read_page(invocation, wanted, limit, before))
    if page.jobs:
        render_page(page)
    else:
        tell_empty(wanted)


async def print_lines(
    invocation: Invocation, wanted: Filter, limit: int, before: str | None
) -> None:
    """Print the jobs as JSON lines, page by page, so that memory does not grow with the limit."""
    async with invocation.session() as session:
        wanted = await starting_at(session, wanted, before)
        while limit > 0:
            async with session.database.connection() as conn:
                jobs = await job_reads.list_jobs(conn, wanted, limit=min(limit, LIST_MAX))
            for job in jobs:
                render.json_line(line_of(job))
            if len(jobs) < LIST_MAX:
                return
            limit -= len(jobs)
            wanted = replace(wanted, before=jobs[-1].id)


async def read_page(invocation: Invocation, wanted: Filter, limit: int, before: str | None) -> Page:
    """Read the jobs of a table, one more than it shows to know whether there are more."""
    async with invocation.session() as session:
        wanted = await starting_at(session, wanted, before)
        jobs: list[Job] = []
        async with session.database.connection() as conn:
            while (left := limit + 1 - len(jobs)) > 0:
                asked = min(left, LIST_MAX)
                found = await job_reads.list_jobs(conn, wanted, limit=asked)
                jobs += found
                if len(found) < asked:
                    break
                wanted = replace(wanted, before=found[-1].id)
            shown = jobs[:limit]
            digits = await job_views.distinct_digits(
                conn, workspace_id=wanted.workspace_id, ids=[job.id for job in shown]
            )
            now = await job_views.now(conn)
        return Page(shown, len(jobs) > limit, max(digits, DIGITS_SHOWN_MIN), now)


async def starting_at(session: Session, wanted: Filter, before: str | None) -> Filter:
    """Return the filter with the job that `--before` names."""
    if before is None:
        return wanted
    async with session.database.connection() as conn:
        job_id = await resolve(conn, workspace_id=wanted.workspace_id, text=before)
    return replace(wanted, before=job_id)


def render_page(page: Page) -> None:
    """Print the table; a wide terminal and a pipe get more columns."""
    is_wide = render.console().width >= 120
    headings = ["Id", "Status", "Type", "Tries", "Age"]
    headings += ["Prio", "Provider", "Tags"] if is_wide else []
    rows = []
    for job in page.jobs:
        row = [
            short(job.id, page.digits),
            str(job.status),
            job.type,
            f"{job.attempts}/{job.max_retries + 1}",
            render.age(job.created_at, page.now),
        ]
        if is_wide:
            row += [str(job.priority), job.provider_id, ",".join(job.tags)]
        rows.append([*row, note_of(job, page.now)])
    render.table([*headings, "Note"], rows, right=[3, 4], whole=[0, 1, 3, 4])
    if page.is_cut:
        last = short(page.jobs[-1].id, page.digits)
        click.echo(f"More: enrichctl list --before {last}", err=True)


def tell_empty(wanted: Filter) -> None:
    """Say that nothing fits, and what was perhaps meant."""
    has_filter = wanted.statuses or wanted.type or wanted.provider_id or wanted.tag
    what = "No job fits" if has_filter else "There are no jobs"
    render.line(f"{what} in workspace {wanted.workspace_id}.")
    if wanted.type is not None and (meant := nearest_type(wanted.type)):
        render.line(f"Did you mean --type {meant}?")
