"""The models of jobs and what belongs to them: what the API takes, and what OpenAPI says it gives.

Answers are made by the functions of `job_shapes`, which take a tenth of the time of a model; a test
holds that each answer fits its model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field, StringConstraints

from enrichd.domain.jobs import (
    DEFAULT_MAX_RETRIES,
    DEFAULT_PRIORITY,
    MAX_RETRIES_LIMIT,
    TAGS_MAX,
    JobStatus,
)
from enrichd.domain.payloads import CamelModel


class ApiModel(CamelModel):
    """A shape of the API's own, as job types' payloads are: camelCase, unknown fields refused."""


Priority = Annotated[int, Field(ge=1, le=5, strict=True)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Tags = Annotated[tuple[Tag, ...], Field(max_length=TAGS_MAX)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
WebhookUrl = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=255)]

BULK_MAX = 1000


class JobToEnqueue(ApiModel):
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


class Progress(ApiModel):
    """How far a batch is."""

    done: int
    total: int


class JobLine(ApiModel):
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


class AttemptDocument(ApiModel):
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


class ItemDocument(ApiModel):
    """A finished lead of a batch."""

    key: str
    status: str
    result: Any
    error: Any


class Moved(ApiModel):
    """A job that was moved, and its state now; null when it is deleted."""

    id: UUID
    status: JobStatus | None


class NotMoved(ApiModel):
    """A job that was not moved, and why."""

    given: str
    code: str
    message: str


class Moves(ApiModel):
    """What became of each job of a bulk move."""

    moved: Sequence[Moved]
    refused: Sequence[NotMoved]
