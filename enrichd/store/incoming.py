"""Webhooks that came in: which were there before, and what they brought for a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

from enrichd.domain.jobs import JobStatus
from enrichd.store.database import Connection
from enrichd.store.json_text import loads

FROM_KEY: Final = "job"
"""The source of what came with an API key."""
KEEP_S: Final = 7 * 86_400.0
EVENTS_MAX: Final = 100
FORGET_BATCH: Final = 1_000

IS_FIRST: LiteralString = """
    insert into enrichment_incoming_events (source, event_id, workspace_id, job_id, event, data)
    values (%(source)s, %(event_id)s, %(workspace_id)s, %(job_id)s, %(event)s, %(data)s)
        on conflict do nothing
"""


async def is_first(
    conn: Connection,
    *,
    source: str,
    event_id: str,
    workspace_id: str | None = None,
    job_id: UUID | None = None,
    event: str = "",
    data: str | None = None,
) -> bool:
    """Note a message and say whether it is news; call it in the transaction of its effect."""
    cursor = await conn.execute(
        IS_FIRST,
        {
            "source": source,
            "event_id": event_id,
            "workspace_id": workspace_id,
            "job_id": job_id,
            "event": event,
            "data": data,
        },
    )
    return cursor.rowcount == 1


LOCK_JOB: LiteralString = """
    select status
      from enrichment_jobs
     where id = %(job_id)s
       and workspace_id = %(workspace_id)s
       for update
"""


async def lock_job(conn: Connection, *, workspace_id: str, job_id: UUID) -> JobStatus | None:
    """Return where a workspace's job stands, and keep it there; None if there is none."""
    cursor = await conn.execute(LOCK_JOB, {"job_id": job_id, "workspace_id": workspace_id})
    row = await cursor.fetchone()
    return JobStatus(row[0]) if row else None


# A provider's question that the job waits for is answered by what came: it is the job's own
# workspace that says so.
ANSWER: LiteralString = """
    update enrichment_callbacks
       set state = 'received', answer = %(answer)s, received_at = now()
     where job_id = %(job_id)s
       and workspace_id = %(workspace_id)s
       and state = 'asked'
"""


async def answer(conn: Connection, *, workspace_id: str, job_id: UUID, answer: str) -> bool:
    """Answer what a job asked a provider; False if it asked nothing."""
    cursor = await conn.execute(
        ANSWER, {"job_id": job_id, "workspace_id": workspace_id, "answer": answer}
    )
    return cursor.rowcount > 0


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What somebody sent for a job."""

    event: str
    data: Any


EVENTS: LiteralString = """
    select event, data
      from enrichment_incoming_events
     where job_id = %(job_id)s
     order by received_at
     limit %(limit)s
"""


async def events(conn: Connection, *, job_id: UUID) -> list[JobEvent]:
    """Return what came for a job, oldest first, at most 100."""
    cursor = await conn.execute(EVENTS, {"job_id": job_id, "limit": EVENTS_MAX})
    return [JobEvent(event, loads(data)) async for event, data in cursor]


FORGET: LiteralString = """
    delete from enrichment_incoming_events
     where (source, event_id) in (
               select source, event_id
                 from enrichment_incoming_events
                where received_at < now() - make_interval(secs => %(keep_s)s)
                order by received_at
                limit %(limit)s
                  for update skip locked)
"""


async def forget(conn: Connection, *, keep_s: float = KEEP_S, limit: int = FORGET_BATCH) -> int:
    """Delete what came long ago; return how many rows, at most `limit`."""
    return (await conn.execute(FORGET, {"keep_s": keep_s, "limit": limit})).rowcount
