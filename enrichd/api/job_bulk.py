"""One move for many jobs at once, each with its own outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import Field, model_validator

from enrichd.api.job_models import BULK_MAX, ApiModel, Moves, Priority
from enrichd.api.job_shapes import moves_of
from enrichd.api.live import note_changed
from enrichd.api.messages import Answer, json_response
from enrichd.api.routing import Access, Call, route
from enrichd.api.transactions import in_workspace
from enrichd.domain.jobs import CANCELLABLE, RETRYABLE, TERMINAL, JobStatus
from enrichd.errors import EnrichdError
from enrichd.queue.refusals import refusal
from enrichd.store import job_changes, job_moves, job_reads
from enrichd.store.database import Connection

Action = Literal["cancel", "retry", "delete", "reprioritise"]
Moved = dict[UUID, JobStatus | None]

# What each action makes of a job, for the message of a refusal, and which jobs it may be done to.
AIMS = {
    "cancel": ("cancelled", CANCELLABLE),
    "retry": ("pending", RETRYABLE),
    "delete": ("deleted", TERMINAL),
    "reprioritise": ("reprioritised", CANCELLABLE),
}


class BulkMove(ApiModel):
    """A move and the jobs that it is for; an id that comes twice counts once."""

    action: Action
    ids: Annotated[tuple[UUID, ...], Field(min_length=1, max_length=BULK_MAX)]
    priority: Priority | None = None
    """For `reprioritise`, and only for it."""

    @model_validator(mode="after")
    def _priority_belongs_to_its_action(self) -> Self:
        if (self.priority is not None) != (self.action == "reprioritise"):
            raise ValueError("priority is for the action reprioritise, which needs it")
        return self


@route("POST", "/jobs/bulk", Access.WRITE, body=BulkMove, answers={200: Moves})
async def move_many(call: Call) -> Answer:
    """Cancel, retry, delete or reprioritise up to 1,000 jobs, and say what became of each."""
    wanted: BulkMove = call.body
    ids = list(dict.fromkeys(wanted.ids))
    goal, sources = AIMS[wanted.action]

    async def work(conn: Connection) -> tuple[Moved, list[tuple[str, EnrichdError]]]:
        moved = await move(conn, call.workspace_id, wanted, ids)
        left = [job_id for job_id in ids if job_id not in moved]
        found = await job_reads.statuses(conn, workspace_id=call.workspace_id, ids=left)
        refused = [
            (str(job_id), refusal(job_id, found.get(job_id), goal, sources)) for job_id in left
        ]
        return moved, refused

    moved, refused = await in_workspace(call, work)
    note_changed(call, moved)
    ready = sum(status is JobStatus.PENDING for status in moved.values())
    if ready:
        await call.api.hints.tell(ready)
    in_order = [(job_id, moved[job_id]) for job_id in ids if job_id in moved]
    return json_response(moves_of(in_order, refused))


async def move(conn: Connection, workspace_id: str, wanted: BulkMove, ids: Sequence[UUID]) -> Moved:
    """Move those of the jobs that can be; return their states now, None for a deleted one."""
    match wanted.action:
        case "cancel":
            pairs = await job_moves.cancel(conn, workspace_id=workspace_id, ids=ids)
            return {job_id: JobStatus(status) for job_id, status in pairs}
        case "retry":
            retried = await job_moves.retry(conn, workspace_id=workspace_id, ids=ids)
            return dict.fromkeys(retried, JobStatus.PENDING)
        case "delete":
            gone = await job_changes.delete(conn, workspace_id=workspace_id, ids=ids)
            return dict.fromkeys(gone, None)
        case "reprioritise":
            assert wanted.priority is not None
            pairs = await job_changes.reprioritise(
                conn, workspace_id=workspace_id, ids=ids, priority=wanted.priority
            )
            return {job_id: JobStatus(status) for job_id, status in pairs}
