"""`enrichctl show ID`: everything about one job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click
import orjson

from enrichd.api.job_shapes import details_of, item_of
from enrichd.ctl import render
from enrichd.ctl.invocation import Invocation, command
from enrichd.ctl.job_ids import resolve
from enrichd.ctl.job_text import error_text, moment, second, took
from enrichd.domain.jobs import Job, JobStatus
from enrichd.errors import JobNotFound
from enrichd.store import items, job_reads, job_views
from enrichd.store.items import Item
from enrichd.store.job_reads import Attempt

NOT_YET = (JobStatus.SCHEDULED, JobStatus.WAITING)
JSON_LINES_SHOWN = 200
JSON_CHARS_SHOWN = 20_000


@dataclass(frozen=True, slots=True)
class View:
    """A job and what belongs to it."""

    job: Job
    attempts: Sequence[Attempt]
    counts: dict[str, int]
    now: datetime
    items: Sequence[Item] = field(default_factory=tuple)


@command(name="show", epilog="Example: enrichctl show 01a20a33-3bea --attempts")
@click.argument("job", metavar="ID")
@click.option("--attempts", "with_attempts", is_flag=True, help="Show every attempt.")
@click.option("--items", "with_items", is_flag=True, help="Show every finished lead of a batch.")
def show_command(invocation: Invocation, job: str, with_attempts: bool, with_items: bool) -> None:
    """Show everything about one job.

    A long payload or result is cut on a terminal, not in a pipe. With --json it is one document
    with the attempts in `attemptLog`, and with --items the leads in `items`.
    """
    view = invocation.run(lambda: read_view(invocation, job, with_items=with_items))
    if invocation.is_json:
        render.json_document(document_of(view, with_items=with_items))
        return
    render_job(view)
    if with_attempts:
        render_attempts(view)
    if with_items:
        render_items(view.items)


async def read_view(invocation: Invocation, text: str, *, with_items: bool) -> View:
    """Read a job. Raises JobNotFound, or Invalid for what is no id or fits several jobs."""
    async with invocation.session() as session, session.database.connection() as conn:
        job_id = await resolve(conn, workspace_id=session.workspace, text=text)
        job = await job_reads.get(conn, workspace_id=session.workspace, job_id=job_id)
        if job is None:
            raise JobNotFound(f"job {job_id} was deleted just now")
        return View(
            job,
            await job_reads.attempts(conn, job_id=job_id),
            await job_views.item_counts(conn, job_id=job_id),
            await job_views.now(conn),
            await items.list_all(conn, job_id=job_id) if with_items else (),
        )


def document_of(view: View, *, with_items: bool) -> dict[str, Any]:
    """Return the job in the API's shape, its attempts and, if wanted, its leads."""
    document = details_of(view.job, view.attempts, view.counts)
    if with_items:
        document["items"] = [item_of(item) for item in view.items]
    return document


def render_job(view: View) -> None:
    """Print a job's fields, then its error, payload and result."""
    job = view.job
    status = str(job.status)
    if job.cancel_requested_at and job.status is JobStatus.PROCESSING:
        status += " (being cancelled: its worker was asked to stop)"
    pairs = [
        ("id", str(job.id)),
        ("type", job.type),
        ("status", status),
        ("workspace", job.workspace_id),
        ("provider", job.provider_id),
        ("priority", f"{job.priority} (1 runs first, 5 last)"),
        ("attempts", f"{job.attempts} of {job.max_retries + 1}"),
        *progress_of(view),
        ("tags", ", ".join(job.tags)),
        ("key", job.idempotency_key or ""),
        ("webhook", job.webhook_url or ""),
        ("worker", str(job.worker_id or "")),
        ("created", moment(job.created_at, view.now)),
        ("due", moment(job.scheduled_at, view.now) if job.status in NOT_YET else ""),
        ("started", moment(job.started_at, view.now)),
        ("ended", moment(job.completed_at, view.now)),
        ("took", took(job.started_at, job.completed_at)),
        ("error", error_text(job.error) if job.error is not None else ""),
    ]
    render.fields([(name, value) for name, value in pairs if value])
    render_json("payload", job.payload)
    if job.result is not None:
        render_json("result", job.result)


def progress_of(view: View) -> list[tuple[str, str]]:
    """Return how far a batch is and how its leads ended."""
    pairs = []
    if view.job.progress_total:
        pairs.append(("progress", f"{view.job.progress_done:,} of {view.job.progress_total:,}"))
    if view.counts:
        pairs.append(("leads", ", ".join(f"{n:,} {status}" for status, n in view.counts.items())))
    return pairs


def render_json(name: str, value: Any) -> None:
    """Print a JSON value, indented; on a terminal not more of it than somebody reads."""
    lines = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode().split("\n")
    shown = lines
    if render.console().is_terminal:
        shown = lines[:JSON_LINES_SHOWN]
        while sum(map(len, shown)) > JSON_CHARS_SHOWN and len(shown) > 1:
            shown = shown[: len(shown) // 2]
        shown = [line if len(line) <= JSON_CHARS_SHOWN else f"{line[:1000]}…" for line in shown]
    render.line("")
    render.line(name)
    for line in shown:
        render.line(f"  {line}")
    if len(shown) < len(lines):
        render.line(f"  … {len(lines) - len(shown):,} more lines; --json shows all")


def render_attempts(view: View) -> None:
    """Print every attempt, oldest first."""
    render.line("")
    if not view.attempts:
        render.line("No attempt yet.")
        return
    rows = [
        [
            str(attempt.attempt),
            attempt.outcome or "running",
            second(attempt.started_at),
            took(attempt.started_at, attempt.finished_at) or "-",
            str(attempt.worker_id or "-")[-12:],
            "" if attempt.error is None else error_text(attempt.error),
        ]
        for attempt in view.attempts
    ]
    render.table(
        ["Try", "Outcome", "Started", "Took", "Worker", "Error"], rows, right=[0, 3], wrap=[5]
    )


def render_items(found: Sequence[Item]) -> None:
    """Print the leads of a batch that have ended."""
    render.line("")
    if not found:
        render.line("No lead of this job has ended, or it is not a batch.")
        return
    rows = []
    for item in found:
        outcome = item.result.get("outcome") if isinstance(item.result, dict) else None
        note = error_text(item.error) if item.error is not None else str(outcome or "")
        rows.append([item.item_key, item.status, note])
    render.table(["Lead", "Status", "Outcome"], rows)
