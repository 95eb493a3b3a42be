"""The JSON shapes of jobs: what the API answers and `enrichctl --json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from enrichd.domain.jobs import Job, JobStatus, iso
from enrichd.errors import EnrichdError
from enrichd.store.items import Item
from enrichd.store.job_reads import Attempt
from enrichd.store.stats import Pace, TypeCount


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
