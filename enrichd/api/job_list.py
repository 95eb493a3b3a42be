"""The list of a workspace's jobs, and its figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BeforeValidator, Field, StringConstraints

from enrichd.api.cursors import bad_cursor, cursor_of, place_of
from enrichd.api.job_models import ApiModel, JobLine
from enrichd.api.job_shapes import figures_of, line_of
from enrichd.api.messages import Answer, json_response
from enrichd.api.routing import Access, Call, route
from enrichd.api.transactions import at_large, in_workspace
from enrichd.domain.jobs import JobStatus
from enrichd.store import job_figures, job_pages
from enrichd.store.database import Connection
from enrichd.store.job_figures import Figures
from enrichd.store.job_pages import PAGE_MAX, Page, Wanted

UNESCAPED_PLUS = re.compile(r" (?=\d\d:?\d\d$)")

Word = Annotated[str, StringConstraints(min_length=1, max_length=100)]


def split(given: object) -> object:
    """Return the parts of a parameter that may stand several times, or once with commas."""
    texts = given if isinstance(given, list) else [given]
    parts = [part for text in texts for part in str(text)[:1000].split(",")]
    return tuple(part.strip() for part in parts if part.strip())


def with_plus(given: object) -> object:
    """Return a time whose `+` was not escaped and came as a space: `…T09:00:00 01:00`."""
    return UNESCAPED_PLUS.sub("+", given) if isinstance(given, str) else given


Moment = Annotated[AwareDatetime, BeforeValidator(with_plus)]


class JobsQuery(ApiModel):
    """Which jobs."""

    status: (
        Annotated[tuple[JobStatus, ...], Field(min_length=1, max_length=20), BeforeValidator(split)]
        | None
    ) = None
    """One or several, by commas or repeated."""
    type: Word | None = None
    provider: Word | None = None
    tag: Word | None = None
    text: Word | None = None
    """Part of an id, type, lane, key, tag, error or payload, in any case."""
    created_after: Moment | None = None
    """ISO 8601 with a time zone."""
    created_before: Moment | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 50
    cursor: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    """The nextCursor of the page before."""
    counts: bool = False
    """Whether to count the workspace's jobs by state, too."""


class JobsPage(ApiModel):
    """Jobs, newest first. A page may be short, or empty, before the last: nextCursor says."""

    jobs: Sequence[JobLine]
    next_cursor: str | None
    counts: Mapping[JobStatus, int] | None = None


@route("GET", "/jobs", Access.READ, query=JobsQuery, answers={200: JobsPage})
async def list_jobs(call: Call) -> Answer:
    """List jobs, newest first."""
    query: JobsQuery = call.query
    before = None if query.cursor is None else job_at(query.cursor)
    wanted = Wanted(
        call.workspace_id,
        query.status,
        query.type,
        query.provider,
        query.tag,
        query.text,
        query.created_after,
        query.created_before,
    )

    async def work(conn: Connection) -> tuple[Page, Figures | None]:
        page = await job_pages.page(conn, wanted, before=before, limit=query.limit)
        if not query.counts:
            return page, None
        return page, await job_figures.figures(conn, workspace_id=call.workspace_id, live_workers=0)

    page, figures = await in_workspace(call, work)
    document: dict[str, Any] = {
        "jobs": [line_of(job) for job in page.jobs],
        "nextCursor": cursor_of(str(page.next_before)) if page.next_before else None,
    }
    if figures is not None:
        document["counts"] = {str(status): figures.totals[status] for status in JobStatus}
    return json_response(document)


def job_at(cursor: str) -> UUID:
    """Return the job that a cursor names. Raises Problem 422."""
    try:
        return UUID(place_of(cursor))
    except ValueError:
        raise bad_cursor() from None


class TypeFigure(ApiModel):
    """The jobs of a type in a state."""

    type: str
    status: JobStatus
    jobs: int


class PaceFigures(ApiModel):
    """The last hour; times in seconds, null where there is nothing to measure."""

    completed_last_minute: int
    completed_last_hour: int
    failed_last_hour: int
    run_p50_seconds: Annotated[float | None, Field(alias="runP50Seconds")]
    run_p95_seconds: Annotated[float | None, Field(alias="runP95Seconds")]
    oldest_ready_seconds: float | None
    live_workers: int


class JobMetrics(ApiModel):
    """The queue of one workspace."""

    workspace_id: str
    totals: Mapping[JobStatus, int]
    counts: Sequence[TypeFigure]
    pace: PaceFigures
    is_exact: bool
    """False from 10,000 jobs on: large counts are then estimates."""


@route("GET", "/jobs/metrics", Access.READ, answers={200: JobMetrics})
async def metrics(call: Call) -> Answer:
    """Count jobs by type and state, and tell the pace of the last hour."""
    workers = await at_large(call, job_figures.live_workers)
    found = await in_workspace(
        call,
        lambda conn: job_figures.figures(
            conn, workspace_id=call.workspace_id, live_workers=workers
        ),
    )
    document = figures_of(call.workspace_id, found.counts, found.totals, found.pace)
    return json_response(document | {"isExact": found.is_exact})
