"""What is said of a job in a line or less: times, errors, notes."""

from __future__ import annotations

from datetime import UTC, datetime

from enrichd.ctl import render
from enrichd.domain.jobs import Job, JobStatus

NOTE_CHARS = 200


def note_of(job: Job, now: datetime) -> str:
    """Return half a line about a job: when it is due, how far it is, why it failed."""
    parts = []
    if job.cancel_requested_at and job.status is JobStatus.PROCESSING:
        parts.append("being cancelled")
    if job.status in (JobStatus.SCHEDULED, JobStatus.WAITING) and job.scheduled_at:
        due = render.age(job.scheduled_at, now)
        parts.append(due if due.startswith("in ") else f"due {due} ago")
    if job.progress_total and job.status is not JobStatus.COMPLETED:
        parts.append(f"{job.progress_done:,}/{job.progress_total:,}")
    if job.error is not None:
        parts.append(error_text(job.error))
    note = "; ".join(parts)
    return note if len(note) <= NOTE_CHARS else f"{note[: NOTE_CHARS - 1]}…"


def error_text(error: object) -> str:
    """Return a job's error in one line, whatever stands in its column."""
    if isinstance(error, dict):
        kind, message = error.get("type"), error.get("message")
        return ": ".join(str(part) for part in (kind, message) if part) or "(no message)"
    return str(error)


def moment(at: datetime | None, now: datetime) -> str:
    """Return a time as ISO 8601 in UTC with how long ago it is."""
    if at is None:
        return ""
    distance = render.age(at, now)
    ago = distance if distance.startswith("in ") else f"{distance} ago"
    return f"{second(at)} ({ago})"


def second(at: datetime | None) -> str:
    """Return a time in UTC to the second, empty for None."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%SZ}" if at else ""


def took(started_at: datetime | None, ended_at: datetime | None) -> str:
    """Return how long a run lasted, empty while it has not."""
    if started_at is None or ended_at is None or ended_at < started_at:
        return ""
    return render.duration((ended_at - started_at).total_seconds())
