"""Why a job was not moved: it is not there, or its state forbids it."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from enrichd.domain.jobs import JobStatus
from enrichd.errors import EnrichdError, IllegalMove, JobNotFound, Refused


def refusal(
    job_id: UUID, status: JobStatus | None, wanted: str, sources: Collection[JobStatus]
) -> EnrichdError:
    """Return the error of a job that could not become `wanted` from any of `sources`.

    `status` is where it stands now, None for a job that is not there.
    """
    if status is None:
        return JobNotFound(f"There is no job {job_id}.")
    if status in sources:
        return Refused(f"job {job_id} changed its state just now; try again")
    shown = ", ".join(source for source in JobStatus if source in sources)
    return IllegalMove(
        f"job {job_id} is {status} and cannot become {wanted}; only {shown} jobs can"
    )
