"""Answers that providers give later: who waits for them, and what came.

A row is `asked` before its request is sent, `received` when something was called back, `used` once
the answer is kept elsewhere, `expired` when nobody waits any more. `early` is an answer that names
a request which nobody has noted yet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString
from uuid import UUID

from enrichd.store.changes import Moved
from enrichd.store.database import Connection
from enrichd.store.faults import around

BATCH = 500
EARLY_S = 3600.0
"""How long an answer waits for its request to be noted."""
KEEP_S = 7 * 86_400.0
"""How long a token is still known after its deadline, to tell late from never asked."""
RESUME_AGAIN_S = 30.0
"""After which a job that parks again with the same news is resumed again."""


EXPECT: LiteralString = """
    insert into enrichment_callbacks
           (token_hash, workspace_id, job_id, provider_id, operation, cache_key, deadline)
    values (%(token_hash)s, %(workspace_id)s, %(job_id)s, %(provider_id)s, %(operation)s,
            %(cache_key)s, now() + make_interval(secs => %(deadline_s)s))
"""


async def expect(
    conn: Connection,
    *,
    token_hash: bytes,
    workspace_id: str,
    job_id: UUID,
    provider_id: str,
    operation: str,
    cache_key: bytes,
    deadline_s: float,
) -> None:
    """Note that an answer will be called back."""
    await conn.execute(
        EXPECT,
        {
            "token_hash": token_hash,
            "workspace_id": workspace_id,
            "job_id": job_id,
            "provider_id": provider_id,
            "operation": operation,
            "cache_key": cache_key,
            "deadline_s": deadline_s,
        },
    )


# Between noting a request's id and keeping an answer that names it, one must see the other.
LOCK_REQUEST: LiteralString = """
    select pg_advisory_xact_lock(hashtextextended('enrichd callback ' || %(request_id)s, 0))
"""


async def lock_request(conn: Connection, *, request_id: str) -> None:
    """Keep everybody else away from a provider's request until the transaction ends."""
    await conn.execute(LOCK_REQUEST, {"request_id": request_id})


# What was called back under the request's id before that id was noted here is taken over.
ASKED: LiteralString = """
    with early as (
        delete from enrichment_callbacks
         where state = 'early'
           and provider_id = (select provider_id
                                from enrichment_callbacks
                               where token_hash = %(token_hash)s)
           and request_id = %(request_id)s
        returning answer, received_at
    )
    update enrichment_callbacks as callback
       set request_id = %(request_id)s,
           poll_at = now() + make_interval(secs => %(poll_after_s)s),
           state = case when callback.state = 'asked' and early.answer is not null
                        then 'received' else callback.state end,
           answer = case when callback.state = 'asked' and early.answer is not null
                         then early.answer else callback.answer end,
           received_at = coalesce(callback.received_at, early.received_at)
      from (select 1) as one
      left join (select answer, received_at from early limit 1) as early on true
     where callback.token_hash = %(token_hash)s
       and callback.state in ('asked', 'received')
"""


async def asked(
    conn: Connection, *, token_hash: bytes, request_id: str | None, poll_after_s: float
) -> None:
    """Note the id that the provider gave to the request, and when to ask it for the answer.

    Call it in a transaction.
    """
    if request_id is not None:
        await lock_request(conn, request_id=request_id)
    await conn.execute(
        ASKED,
        {"token_hash": token_hash, "request_id": request_id, "poll_after_s": poll_after_s},
    )


POLL_AGAIN: LiteralString = """
    update enrichment_callbacks
       set poll_at = now() + make_interval(secs => %(poll_after_s)s)
     where job_id = %(job_id)s
       and cache_key = %(cache_key)s
       and state = 'asked'
"""


async def poll_again(
    conn: Connection, *, job_id: UUID, cache_key: bytes, poll_after_s: float
) -> None:
    """Note when to ask for an answer again."""
    values = {"job_id": job_id, "cache_key": cache_key, "poll_after_s": poll_after_s}
    await conn.execute(POLL_AGAIN, values)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a question stands whose answer comes later."""

    answer: str | None
    """What was called back; None: nothing yet."""
    request_id: str | None
    poll_due: bool
    deadline_s: float
    """Seconds until nobody waits any more; negative when that is over."""


# A question that was put twice (the first run died) has two rows: whichever was answered counts.
STANDING: LiteralString = """
    select case when state = 'received' then answer end, request_id,
           coalesce(poll_at <= now(), false), extract(epoch from deadline - now())::float8
      from enrichment_callbacks
     where job_id = %(job_id)s
       and cache_key = %(cache_key)s
       and state in ('asked', 'received')
     order by state = 'received' desc, created_at desc
     limit 1
"""


async def standing(conn: Connection, *, job_id: UUID, cache_key: bytes) -> Standing | None:
    """Return how a job's question stands; None if nothing is waited for."""
    cursor = await conn.execute(STANDING, {"job_id": job_id, "cache_key": cache_key})
    row = await cursor.fetchone()
    return Standing(*row) if row else None


USED: LiteralString = """
    update enrichment_callbacks
       set state = 'used', answer = null, poll_at = null
     where job_id = %(job_id)s
       and cache_key = %(cache_key)s
       and state in ('asked', 'received')
"""


async def used(conn: Connection, *, job_id: UUID, cache_key: bytes) -> None:
    """Wait no more: the answer is kept, or there will be none."""
    await conn.execute(USED, {"job_id": job_id, "cache_key": cache_key})


# The first body wins: what a second one says is not looked at.
RECEIVE: LiteralString = """
    update enrichment_callbacks
       set state = 'received', answer = %(answer)s, received_at = now()
     where token_hash = %(token_hash)s
       and state = 'asked'
    returning workspace_id, job_id::text
"""

RECEIVE_BY_REQUEST: LiteralString = """
    update enrichment_callbacks
       set state = 'received', answer = %(answer)s, received_at = now()
     where provider_id = %(provider_id)s
       and request_id = %(request_id)s
       and (%(workspace_id)s::text is null or workspace_id = %(workspace_id)s)
       and state = 'asked'
    returning workspace_id, job_id::text
"""


async def receive(conn: Connection, *, token_hash: bytes, answer: str) -> Moved:
    """Keep what was called back; return the job it is for, nobody's if it is no news."""
    cursor = await conn.execute(RECEIVE, {"token_hash": token_hash, "answer": answer})
    return await cursor.fetchall()


async def receive_by_request(
    conn: Connection,
    *,
    provider_id: str,
    request_id: str,
    answer: str,
    workspace_id: str | None = None,
) -> Moved:
    """Do the same for a provider that names its request in place of a token.

    With a workspace only its own jobs are answered. Call it in a transaction, which `keep_early`
    may then be part of.
    """
    await lock_request(conn, request_id=request_id)
    values = {
        "provider_id": provider_id,
        "request_id": request_id,
        "answer": answer,
        "workspace_id": workspace_id,
    }
    return await (await conn.execute(RECEIVE_BY_REQUEST, values)).fetchall()


STATE: LiteralString = """
    select state from enrichment_callbacks where token_hash = %(token_hash)s
"""

STATE_BY_REQUEST: LiteralString = """
    select state
      from enrichment_callbacks
     where provider_id = %(provider_id)s
       and request_id = %(request_id)s
     order by created_at desc
     limit 1
"""


async def state(conn: Connection, *, token_hash: bytes) -> str | None:
    """Return where a token stands; None if nobody ever gave it out."""
    row = await (await conn.execute(STATE, {"token_hash": token_hash})).fetchone()
    return row[0] if row else None


async def state_by_request(conn: Connection, *, provider_id: str, request_id: str) -> str | None:
    """Return where a provider's request stands; None if it is unknown."""
    values = {"provider_id": provider_id, "request_id": request_id}
    row = await (await conn.execute(STATE_BY_REQUEST, values)).fetchone()
    return row[0] if row else None


KEEP_EARLY: LiteralString = """
    insert into enrichment_callbacks
           (token_hash, workspace_id, provider_id, operation, cache_key, request_id, state, answer,
            received_at, deadline)
    values (%(token_hash)s, '', %(provider_id)s, '', '', %(request_id)s, 'early', %(answer)s,
            now(), now() + make_interval(secs => %(keep_s)s))
        on conflict (token_hash) do nothing
"""


async def keep_early(
    conn: Connection, *, token_hash: bytes, provider_id: str, request_id: str, answer: str
) -> None:
    """Keep what was called back for a request that is not noted yet; the first body wins."""
    await conn.execute(
        KEEP_EARLY,
        {
            "token_hash": token_hash,
            "provider_id": provider_id,
            "request_id": request_id,
            "answer": answer,
            "keep_s": EARLY_S,
        },
    )


# A callback that came while its job still ran found nobody parked, and polls have nobody else to
# wake their jobs. Each half reads its own small index; jobs are locked in id order, and those
# that somebody else moves are left to him.
RESUME_DUE: LiteralString = """
    with news as materialized (
        (select callback.token_hash, callback.job_id
           from enrichment_callbacks as callback
           join enrichment_jobs as job on job.id = callback.job_id
          where callback.state = 'received'
            and job.status = 'waiting'
            and (callback.resumed_at is null or callback.resumed_at < callback.received_at
                 or callback.resumed_at < now() - make_interval(secs => %(again_s)s))
          order by callback.received_at
          limit %(limit)s)
        union all
        (select callback.token_hash, callback.job_id
           from enrichment_callbacks as callback
           join enrichment_jobs as job on job.id = callback.job_id
          where callback.state = 'asked'
            and callback.poll_at <= now()
            and job.status = 'waiting'
            and (callback.resumed_at is null or callback.resumed_at < callback.poll_at
                 or callback.resumed_at < now() - make_interval(secs => %(again_s)s))
          order by callback.poll_at
          limit %(limit)s)
    ),
    parked as materialized (
        select job.id
          from enrichment_jobs as job
         where job.id in (select job_id from news)
           and job.status = 'waiting'
         order by job.id
           for update skip locked
    ),
    noted as (
        update enrichment_callbacks as callback
           set resumed_at = now()
          from news
          join parked on parked.id = news.job_id
         where callback.token_hash = news.token_hash
    )
    update enrichment_jobs as job
       set status = 'pending', scheduled_at = null, updated_at = now(),
           fair_rank = job.cost
                     + enrichment_rank_base(job.workspace_id, job.provider_id, job.priority)
      from parked
     where job.id = parked.id
    returning job.workspace_id, job.id::text
"""


@around("resume")
async def resume_received(conn: Connection, *, limit: int = BATCH) -> Moved:
    """Resume parked jobs whose callback has come or whose poll is due; return them."""
    values = {"limit": limit, "again_s": RESUME_AGAIN_S}
    return await (await conn.execute(RESUME_DUE, values)).fetchall()


EXPIRE: LiteralString = """
    with late as materialized (
        select token_hash
          from enrichment_callbacks
         where deadline <= now()
           and (state = 'asked'
                or (state = 'received' and deadline <= now() - interval '1 day'))
         order by deadline
         limit %(limit)s
           for update skip locked
    )
    update enrichment_callbacks as callback
       set state = 'expired', answer = null, poll_at = null
      from late
     where callback.token_hash = late.token_hash
"""

FORGET: LiteralString = """
    with old as materialized (
        select token_hash
          from enrichment_callbacks
         where deadline <= now()
           and (state = 'early'
                or (state in ('used', 'expired')
                    and deadline <= now() - make_interval(secs => %(keep_s)s)))
         order by deadline
         limit %(limit)s
           for update skip locked
    )
    delete from enrichment_callbacks as callback
     using old
     where callback.token_hash = old.token_hash
"""


async def expire(conn: Connection, *, limit: int = BATCH) -> int:
    """Give up on callbacks past their deadline and forget those of long ago; return how many."""
    late = await conn.execute(EXPIRE, {"limit": limit})
    old = await conn.execute(FORGET, {"limit": limit, "keep_s": KEEP_S})
    return late.rowcount + old.rowcount
