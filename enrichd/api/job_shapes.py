"""The JSON shapes of jobs: what the API answers and `enrichctl --json` prints.

The pydantic models describe the same shapes for OpenAPI. Answers are made by the functions, which
take a tenth of the time of a model; a test holds that each answer fits its model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StringConstraints

from enrichd.domain.jobs import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_PRIORITY,
    MAX_RETRIES_LIMIT,
    TAGS_MAX,
    Job,
    JobStatus,
    iso,
)
from enrichd.domain.payloads import CamelModel
from enrichd.errors import EnrichdError
from enrichd.store.items import Item
from enrichd.store.job_reads import Attempt
from enrichd.store.stats import Pace, TypeCount

Priority = Annotated[int, Field(ge=1, le=5, strict=True)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Tags = Annotated[tuple[Tag, ...], Field(max_length=TAGS_MAX)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
WebhookUrl = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=255)]

BULK_MAX = 1000


class JobToEnqueue(CamelModel):
    """A job to put on the queue; `payload` is what its type takes."""

    type: Name
    payload: dict[str, Any]
    id: UUID | None = None
    """A UUID of the caller's own, version 7 if possible: enqueueing it twice adds it once."""
    workspace_id: Name | None = None
    """The key's own workspace, if it is given at all."""
    priority: Priority = DEFAULT_PRIORITY
    """1 runs first, 5 last."""
    provider_id: Name | None = None
    """The lane; absent: the payload's `providerId`."""
    max_retries: Annotated[int, Field(ge=0, le=MAX_RETRIES_LIMIT, strict=True)] = (
        DEFAULT_MAX_RETRIES
    )
    tags: Tags = ()
    webhook_url: WebhookUrl | None = None
    idempotency_key: IdempotencyKey | None = None
    scheduled_at: datetime | None = None
    delay_ms: Annotated[float, Field(ge=0)] | None = None


class Progress(CamelModel):
    """How far a batch is."""

    done: int
    total: int


class JobLine(CamelModel):
    """A job as lists show it, without payload and result."""

    id: UUID
    workspace_id: str
    type: str
    status: JobStatus
    priority: int
    provider_id: str
    tags: Sequence[str]
    attempts: int
    max_retries: int
    progress: Progress
    error: Any
    webhook_url: str | None
    idempotency_key: str | None
    worker_id: UUID | None
    cancel_requested_at: datetime | None
    scheduled_at: datetime | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class JobDocument(JobLine):
    """A whole job."""

    payload: Any
    result: Any


class EnqueuedJob(JobDocument):
    """A job that was put on the queue, or was there already."""

    is_new: bool


class AttemptDocument(CamelModel):
    """One run of a job; `outcome` is null while it runs."""

    attempt: int
    outcome: str | None
    worker_id: UUID | None
    started_at: datetime | None
    finished_at: datetime | None
    error: Any


class JobDetails(JobDocument):
    """A job with its attempts, oldest first, and how many of its leads ended how."""

    attempt_log: Sequence[AttemptDocument]
    item_counts: Mapping[str, int]


class ItemDocument(CamelModel):
    """A finished lead of a batch."""

    key: str
    status: str
    result: Any
    error: Any


class Moved(CamelModel):
    """A job that was moved, and its state now; null when it is deleted."""

    id: UUID
    status: JobStatus | None


class NotMoved(CamelModel):
    """A job that was not moved, and why."""

    given: str
    code: str
    message: str


class Moves(CamelModel):
    """What became of each job of a bulk move."""

    moved: Sequence[Moved]
    refused: Sequence[NotMoved]


def line_of(job: Job) -> dict[str, Any]:
    """Return a job as lists show it: null would say that it has no payload and no result."""
    line = job.to_json()
    del line["payload"], line["result"]
    return line


def enqueued_of(job_id: UUID, is_new: bool, job: Job | None) -> dict[str, Any]:
    """Return what enqueue did; with the job, unless it is gone again."""
    document: dict[str, Any] = {"id": str(job_id), "isNew": is_new}
    return document | (job.to_json() if job else {})


def details_of(
    job: Job, attempts: Sequence[Attempt], item_counts: Mapping[str, int]
) -> dict[str, Any]:
    """Return a job, its attempts and how many of its leads ended how."""
    document = job.to_json()
    document["attemptLog"] = [attempt_of(attempt) for attempt in attempts]
    document["itemCounts"] = dict(item_counts)
    return document


def attempt_of(attempt: Attempt) -> dict[str, Any]:
    """Return one run of a job."""
    return {
        "attempt": attempt.attempt,
        "outcome": attempt.outcome,
        "workerId": str(attempt.worker_id) if attempt.worker_id else None,
        "startedAt": iso(attempt.started_at),
        "finishedAt": iso(attempt.finished_at),
        "error": attempt.error,
    }


def item_of(item: Item) -> dict[str, Any]:
    """Return a finished lead."""
    return {
        "key": item.item_key,
        "status": item.status,
        "result": item.result,
        "error": item.error,
    }


def moves_of(
    moved: Sequence[tuple[UUID, JobStatus | None]], refused: Sequence[tuple[str, EnrichdError]]
) -> dict[str, Any]:
    """Return what was moved and what was not; a job without a state is deleted."""
    return {
        "moved": [{"id": str(job_id), "status": status} for job_id, status in moved],
        "refused": [
            {"given": text, "code": error.code, "message": error.message} for text, error in refused
        ],
    }


def figures_of(
    workspace_id: str, counts: Sequence[TypeCount], totals: Mapping[str, int], pace: Pace
) -> dict[str, Any]:
    """Return a workspace's figures; times in seconds, null where there is nothing to measure."""
    return {
        "workspaceId": workspace_id,
        "totals": {str(status): totals[status] for status in JobStatus},
        "counts": [asdict(count) for count in counts],
        "pace": {
            "completedLastMinute": pace.completed_1m,
            "completedLastHour": pace.completed_1h,
            "failedLastHour": pace.failed_1h,
            "runP50Seconds": pace.run_p50_s,
            "runP95Seconds": pace.run_p95_s,
            "oldestReadySeconds": pace.oldest_ready_s,
            "liveWorkers": pace.workers,
        },
    }
