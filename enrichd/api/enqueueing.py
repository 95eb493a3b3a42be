"""Putting jobs on the queue over HTTP: one, or up to 1,000, all or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated
from uuid import UUID

from pydantic import Discriminator, Field, Tag

from enrichd import metrics
from enrichd.api.estimating import estimates_of
from enrichd.api.job_models import BULK_MAX, ApiModel, EnqueuedJob, JobToEnqueue
from enrichd.api.job_shapes import enqueued_of
from enrichd.api.jobs import GET_JOB
from enrichd.api.live import note_changed
from enrichd.api.messages import Answer, json_response
from enrichd.api.problems import Problem
from enrichd.api.routing import PREFIX, Access, Call, route
from enrichd.api.transactions import ask, in_workspace
from enrichd.domain import payloads
from enrichd.domain.jobs import Enqueued, Job, NewJob
from enrichd.errors import FieldProblem, InvalidPayload
from enrichd.queue.intake import problems_of, row_of
from enrichd.store import job_reads, job_views, new_jobs
from enrichd.store.database import Connection
from enrichd.store.new_jobs import Row
from enrichd.store.one_trip import Prepared

KEY_HEADER = "idempotency-key"
KEY_CHARS_MAX = 255
PLACE_CHARS = len(":1000")

ENQUEUE_FRESH = Prepared("enrichd_enqueue_fresh", new_jobs.ENQUEUE_FRESH)
ENQUEUE_READY = Prepared("enrichd_enqueue_ready", new_jobs.ENQUEUE_READY)

Many = Annotated[tuple[JobToEnqueue, ...], Field(min_length=1, max_length=BULK_MAX)]
OneOrMany = Annotated[
    Annotated[JobToEnqueue, Tag("(one)")] | Annotated[Many, Tag("(many)")],
    Discriminator(lambda given: "(many)" if isinstance(given, list | tuple) else "(one)"),
]


class EnqueuedLine(ApiModel):
    """Which job one of many became, and whether it was added now."""

    id: UUID
    is_new: bool


class EnqueuedMany(ApiModel):
    """The jobs of an array, in its order."""

    jobs: Sequence[EnqueuedLine]
    new: int
    already_there: int


class EnqueueQuery(ApiModel):
    """How to enqueue."""

    dry_run: bool = False
    """Say what it would cost at most, and put nothing on the queue."""


class EstimateDocument(ApiModel):
    """What a job may cost; null and nothing else where nobody can say."""

    is_dry_run: bool
    max_cost_credits: float | None
    """With the answers that are known now."""
    max_cost_credits_uncached: float = 0
    leads: int = 0
    unique_leads: int = 0
    questions: int = 0
    cached_answers: int = 0
    by_provider: Mapping[str, float] | None = None
    skipped: Mapping[str, str] | None = None
    """Providers that would not be asked, and why."""


class EstimateOfMany(ApiModel):
    """What each job of an array may cost, in its order, and all of them."""

    is_dry_run: bool
    max_cost_credits: float | None
    """null if nobody can say what one of them costs."""
    jobs: Sequence[EstimateDocument]


@route(
    "POST",
    "/jobs",
    Access.WRITE,
    query=EnqueueQuery,
    body=OneOrMany,
    answers={
        200: EnqueuedJob | EnqueuedMany | EstimateDocument | EstimateOfMany,
        201: EnqueuedJob | EnqueuedMany,
    },
    headers={"Idempotency-Key": "A text of the caller's own: repeating the request adds nothing."},
)
async def enqueue(call: Call) -> Answer:
    """Put one job or up to 1,000 on the queue, all or none."""
    if call.query.dry_run:
        return await estimate(call)
    if isinstance(call.body, JobToEnqueue):
        return await enqueue_one(call, call.body)
    return await enqueue_many(call, call.body)


async def enqueue_one(call: Call, wanted: JobToEnqueue) -> Answer:
    """Enqueue one job; 201 with the job, 200 if it was there already."""
    key = key_of(call, KEY_CHARS_MAX)
    row = checked_row(new_job(call, wanted, key), "")

    done, job = await enqueued_at_once(call, row) or await enqueued_by_steps(
        call, row, is_checked=key is not None
    )
    await tell_enqueued(call, {done.id: row.type} if done.is_new else {})
    return json_response(
        enqueued_of(done.id, done.is_new, job),
        201 if done.is_new else 200,
        Location=f"{PREFIX}/jobs/{done.id}",
    )


async def enqueued_at_once(call: Call, row: Row) -> tuple[Enqueued, Job] | None:
    """Enqueue a new job that is ready, in one trip; None if it is not as simple as that."""
    if not row.is_plain:
        return None
    statement = ENQUEUE_FRESH if row.is_fresh else ENQUEUE_READY
    added, found = await ask(
        call,
        (statement, new_jobs.enqueue_values(row)),
        (GET_JOB, {"id": row.id.hex, "workspace_id": row.workspace_id}),
    )
    if not added.count:
        return None
    return Enqueued(row.id, True), job_reads.job_of(found.rows[0])


async def enqueued_by_steps(
    call: Call, row: Row, *, is_checked: bool
) -> tuple[Enqueued, Job | None]:
    """Enqueue any job, or find the one that is there; `is_checked`: which must be the same."""

    async def work(conn: Connection) -> tuple[Enqueued, Job | None]:
        done = await new_jobs.enqueue(conn, row)
        if is_checked:
            await require_same(conn, [row], [done])
        job = await job_reads.get(conn, workspace_id=row.workspace_id, job_id=done.id)
        return done, job

    return await in_workspace(call, work)


async def enqueue_many(call: Call, wanted: Sequence[JobToEnqueue]) -> Answer:
    """Enqueue jobs, all or none; 201 if any is new."""
    key = key_of(call, KEY_CHARS_MAX - PLACE_CHARS)
    rows = [
        checked_row(new_job(call, one, key and f"{key}:{place}"), f"{place}.")
        for place, one in enumerate(wanted)
    ]

    async def work(conn: Connection) -> list[Enqueued]:
        done = await new_jobs.enqueue_many(conn, rows)
        if key is not None:
            await require_same(conn, rows, done)
        return done

    done = await in_workspace(call, work)
    new = {one.id: row.type for row, one in zip(rows, done, strict=True) if one.is_new}
    await tell_enqueued(call, new)
    document = {
        "jobs": [{"id": str(one.id), "isNew": one.is_new} for one in done],
        "new": len(new),
        "alreadyThere": len(done) - len(new),
    }
    return json_response(document, 201 if new else 200)


async def estimate(call: Call) -> Answer:
    """Say what jobs would cost; 200, and nothing is enqueued."""
    if isinstance(call.body, JobToEnqueue):
        (found,) = await estimates_of(call, [checked_row(new_job(call, call.body, None), "")])
        return json_response(found)
    rows = [
        checked_row(new_job(call, one, None), f"{place}.") for place, one in enumerate(call.body)
    ]
    jobs = await estimates_of(call, rows)
    costs = [one["maxCostCredits"] for one in jobs]
    total = None if None in costs else sum(costs)
    return json_response({"isDryRun": True, "maxCostCredits": total, "jobs": jobs})


def key_of(call: Call, chars_max: int) -> str | None:
    """Return the Idempotency-Key header, None without one."""
    key = call.request.headers.get(KEY_HEADER)
    if key is None:
        return None
    if not 1 <= len(key) <= chars_max or not key.isprintable():
        problem = f"must have 1 to {chars_max} printable characters"
        raise Problem(
            422,
            "invalid_header",
            f"Idempotency-Key {problem}.",
            fields=[FieldProblem("Idempotency-Key", problem)],
        )
    return key


def new_job(call: Call, wanted: JobToEnqueue, key: str | None) -> NewJob:
    """Return the job to enqueue in the key's workspace. Raises Problem 403 for another one."""
    if wanted.workspace_id not in (None, call.workspace_id):
        raise Problem(
            403,
            "wrong_workspace",
            "This key enqueues in its own workspace alone; leave workspaceId out.",
            fields=[FieldProblem("workspaceId", "is not the key's workspace")],
        )
    return NewJob(
        wanted.type,
        wanted.payload,
        call.workspace_id,
        wanted.id,
        wanted.priority,
        wanted.provider_id,
        wanted.max_retries,
        wanted.tags,
        wanted.webhook_url,
        wanted.idempotency_key or key,
        wanted.scheduled_at,
        None if wanted.delay_ms is None else wanted.delay_ms / 1000,
    )


def checked_row(new: NewJob, prefix: str) -> Row:
    """Return a job as a row. Raises InvalidPayload with each field's path in the request's body."""
    try:
        return row_of(new)
    except InvalidPayload as error:
        is_inside = new.type in payloads.MODELS and not problems_of(new)
        within = f"{prefix}payload." if is_inside else prefix
        raise InvalidPayload(
            error.message,
            fields=[
                FieldProblem(
                    f"{prefix}payload" if field.path in ("", "payload") else within + field.path,
                    field.problem,
                )
                for field in error.fields
            ],
            hint=error.hint,
        ) from None


async def require_same(conn: Connection, rows: Sequence[Row], done: Sequence[Enqueued]) -> None:
    """Raise Problem 422 if a key comes again with another job: the caller mixed something up."""
    there = [place for place, one in enumerate(done) if not one.is_new]
    if not there:
        return
    wanted = [(done[place].id, rows[place].type, rows[place].payload) for place in there]
    unlike = await job_views.first_unlike(conn, workspace_id=rows[0].workspace_id, wanted=wanted)
    if unlike is not None:
        place, job_id = there[unlike[0]], unlike[1]
        which = f" of job {place} of the array" if len(rows) > 1 else ""
        raise Problem(
            422,
            "idempotency_key_reused",
            f"The Idempotency-Key{which} is that of job {job_id}, of another type or payload.",
            fields=[FieldProblem("Idempotency-Key", "was used for another job")],
        )


async def tell_enqueued(call: Call, type_by_id: Mapping[UUID, str]) -> None:
    """Count jobs that were committed, wake the workers, and tell who listens."""
    if type_by_id:
        metrics.enqueued(type_by_id.values())
        note_changed(call, type_by_id)
        await call.api.hints.tell(len(type_by_id))
