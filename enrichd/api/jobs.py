"""One job: read, change, cancel, retry."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any
from uuid import UUID

from enrichd.api.etags import etag_of, is_known, require_match
from enrichd.api.job_models import ApiModel, JobDetails, JobDocument, Priority, Tags, WebhookUrl
from enrichd.api.job_shapes import details_of
from enrichd.api.live import note_changed
from enrichd.api.messages import Answer, Response, json_response
from enrichd.api.problems import Problem
from enrichd.api.routing import Access, Call, route
from enrichd.api.transactions import ask, in_workspace
from enrichd.domain.jobs import (
    CANCELLABLE,
    RETRYABLE,
    TERMINAL,
    Job,
    JobStatus,
)
from enrichd.errors import FieldProblem, JobNotFound, Refused
from enrichd.queue.intake import (
    text_problem_of,
    time_problem_of,
    url_problem_of,
)
from enrichd.queue.refusals import refusal
from enrichd.store import job_changes, job_moves, job_reads, job_views
from enrichd.store.database import Connection
from enrichd.store.job_changes import Change
from enrichd.store.job_reads import Attempt
from enrichd.store.json_text import loads
from enrichd.store.one_trip import Prepared

ID = re.compile(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}")
GET_JOB = Prepared("enrichd_job", job_reads.GET)
GET_ATTEMPTS = Prepared("enrichd_attempts", job_reads.ATTEMPTS)
GET_ITEM_COUNTS = Prepared("enrichd_item_counts", job_views.ITEM_COUNTS)
NO_NULL = "must not be null; leave it out to keep it"


@route(
    "GET",
    "/jobs/{id}",
    Access.READ,
    answers={200: JobDetails},
    headers={"If-None-Match": "An ETag: the answer is 304 while the job is as it was."},
)
async def read(call: Call) -> Answer:
    """Read one job with its payload, result, attempts and progress."""
    job_id = id_of(call)

    found, attempts, counts = await ask(
        call,
        (GET_JOB, {"id": job_id.hex, "workspace_id": call.workspace_id}),
        (GET_ATTEMPTS, {"job_id": job_id.hex}),
        (GET_ITEM_COUNTS, {"job_id": job_id.hex}),
    )
    if not found.rows:
        raise not_found(job_id)
    job = job_reads.job_of(found.rows[0])
    if is_known(call.request.header("if-none-match"), job):
        return Response(304, headers={"ETag": etag_of(job)})
    log = [attempt_of(row) for row in attempts.rows]
    return json_response(details_of(job, log, dict(counts.rows)), ETag=etag_of(job))


def attempt_of(row: tuple[Any, ...]) -> Attempt:
    """Make an attempt of a row of ATTEMPTS."""
    return Attempt(*[*row[:5], loads(row[5])])


class JobChange(ApiModel):
    """What is to become of a job that has not ended; what is absent stays as it is."""

    priority: Priority | None = None
    tags: Tags | None = None
    webhook_url: WebhookUrl | None = None
    """null takes it away."""
    scheduled_at: datetime | None = None
    """null is at once; only for a pending or scheduled job."""


@route(
    "PUT",
    "/jobs/{id}",
    Access.WRITE,
    body=JobChange,
    answers={200: JobDocument},
    headers={"If-Match": "The ETag of the job as it was read: 412 if it was changed since."},
)
async def change(call: Call) -> Answer:
    """Change the priority, tags, webhook or time of a job that has not ended."""
    job_id = id_of(call)
    wanted = change_of(call.body)

    async def work(conn: Connection) -> Job:
        job = await job_changes.get_locked(conn, workspace_id=call.workspace_id, job_id=job_id)
        if job is None:
            raise not_found(job_id)
        require_match(call.request.header("if-match"), job)
        require_changeable(job, wanted)
        await job_changes.change(conn, workspace_id=call.workspace_id, job_id=job_id, to=wanted)
        return await still_there(conn, call, job_id)

    job = await in_workspace(call, work)
    note_changed(call, (job_id,))
    if job.status is JobStatus.PENDING:
        await call.api.hints.tell(1)
    return json_response(job.to_json(), ETag=etag_of(job))


def change_of(wanted: JobChange) -> Change:
    """Return a change whose values are right. Raises Problem 422 with each wrong field."""
    given = wanted.model_fields_set
    checks = {
        "webhookUrl": wanted.webhook_url and url_problem_of(wanted.webhook_url),
        "scheduledAt": wanted.scheduled_at and time_problem_of(wanted.scheduled_at),
        "priority": NO_NULL if "priority" in given and wanted.priority is None else None,
        "tags": NO_NULL if "tags" in given and wanted.tags is None else None,
    }
    for place, tag in enumerate(wanted.tags or ()):
        checks[f"tags.{place}"] = text_problem_of(tag, 100)
    problems = [FieldProblem(path, problem) for path, problem in checks.items() if problem]
    if problems:
        shown = "; ".join(map(str, problems[:3]))
        raise Problem(422, "invalid_body", f"The body is wrong: {shown}", fields=problems)
    return Change(
        wanted.priority,
        wanted.tags,
        "webhook_url" in given,
        wanted.webhook_url,
        "scheduled_at" in given,
        wanted.scheduled_at,
    )


def require_changeable(job: Job, wanted: Change) -> None:
    """Raise Refused, naming the state that forbids a change."""
    if job.status in TERMINAL:
        raise Refused(f"job {job.id} is {job.status}: what has ended is not changed any more")
    if wanted.sets_time and job.status not in (JobStatus.PENDING, JobStatus.SCHEDULED):
        raise Refused(
            f"job {job.id} is {job.status}; scheduledAt of pending and scheduled jobs can be set"
        )


@route("DELETE", "/jobs/{id}", Access.WRITE, answers={200: JobDocument, 202: JobDocument})
async def cancel(call: Call) -> Answer:
    """Cancel a job; 202 while its worker is being told to stop the run."""
    job_id = id_of(call)

    async def work(conn: Connection) -> Job:
        workspace_id = call.workspace_id
        if not await job_moves.cancel(conn, workspace_id=workspace_id, ids=[job_id]):
            found = await job_reads.statuses(conn, workspace_id=workspace_id, ids=[job_id])
            raise refusal(job_id, found.get(job_id), JobStatus.CANCELLED, CANCELLABLE)
        return await still_there(conn, call, job_id)

    job = await in_workspace(call, work)
    note_changed(call, (job_id,))
    status = 202 if job.status is JobStatus.PROCESSING else 200
    return json_response(job.to_json(), status, ETag=etag_of(job))


@route("POST", "/jobs/{id}/retry", Access.WRITE, answers={200: JobDocument})
async def retry(call: Call) -> Answer:
    """Run a failed, dead or cancelled job again, its attempts starting again."""
    job_id = id_of(call)

    async def work(conn: Connection) -> Job:
        workspace_id = call.workspace_id
        if not await job_moves.retry(conn, workspace_id=workspace_id, ids=[job_id]):
            found = await job_reads.statuses(conn, workspace_id=workspace_id, ids=[job_id])
            raise refusal(job_id, found.get(job_id), JobStatus.PENDING, RETRYABLE)
        return await still_there(conn, call, job_id)

    job = await in_workspace(call, work)
    note_changed(call, (job_id,))
    await call.api.hints.tell(1)
    return json_response(job.to_json(), ETag=etag_of(job))


async def still_there(conn: Connection, call: Call, job_id: UUID) -> Job:
    """Return a job that this transaction has just changed."""
    job = await job_reads.get(conn, workspace_id=call.workspace_id, job_id=job_id)
    assert job is not None
    return job


def id_of(call: Call) -> UUID:
    """Return the path's id. What is no id names no job: 404, as for one that is not there."""
    text = call.path["id"]
    if ID.fullmatch(text) is None:
        raise not_found(text)
    return UUID(text)


def not_found(job_id: object) -> JobNotFound:
    """Return the one answer to an id that is missing, misspelt or another workspace's."""
    return JobNotFound(f"There is no job {str(job_id)[:60]}.")
