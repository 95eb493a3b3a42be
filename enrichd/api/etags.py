"""ETags of jobs, so that nobody overwrites a change that they have not seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from enrichd.api.problems import Problem
from enrichd.domain.jobs import Job

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TAGS_MAX = 50


def etag_of(job: Job) -> str:
    """Return a job's ETag: every change moves `updated_at`."""
    return f'"{(job.updated_at - EPOCH) // timedelta(microseconds=1):x}-{job.attempts}"'


def require_match(wanted: str, job: Job) -> None:
    """Raise Problem 412 unless an If-Match header, if there is one, names the job as it is."""
    if not wanted or wanted.strip() == "*":
        return
    tag = etag_of(job)
    if tag not in [part.strip() for part in wanted.split(",")[:TAGS_MAX]]:
        raise Problem(
            412,
            "stale_etag",
            f"job {job.id} was changed since it was read.",
            hint="Read it again and repeat the change with its new ETag.",
            headers={"ETag": tag},
        )


def is_known(known: str, job: Job) -> bool:
    """Say whether an If-None-Match header names the job as it is."""
    if not known:
        return False
    tags = [part.strip().removeprefix("W/") for part in known.split(",")[:TAGS_MAX]]
    return "*" in tags or etag_of(job) in tags
