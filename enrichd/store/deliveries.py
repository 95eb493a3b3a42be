"""The outbox at work: claim what is due, fairly over receivers, and record what came of it.

Any number of hosts do this and none leads. An attempt is a lease: the claim counts it and moves
the due time past the longest an attempt can take, so what a host took with it when it died is due
again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

from enrichd.store.arrays import plain_array, text_array
from enrichd.store.database import Connection

LEASE_S = 60.0
TARGETS_MAX = 1_000
"""Receivers that one claim looks at; the next goes on behind them."""
FAILING_MAX_S = 5 * 86_400.0
"""An endpoint that took nothing for this long is disabled."""
ATTEMPTS_RECORDED_MAX = 500
HISTORY_MAX = 20
"""Attempts whose answers are kept; the schedule has ten, replays add more."""
KEPT = f"$[last - {HISTORY_MAX - 1} to last]"


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is to be attempted now."""

    id: UUID
    target: str
    workspace_id: str
    webhook_id: UUID | None
    url: str | None
    """None when its endpoint is gone."""
    is_wanted: bool
    """False when its endpoint is disabled or gone."""
    secrets: str | None
    """The endpoint's, as JSON text; None for a job's own URL."""
    event: str
    sequence: int
    job_id: UUID | None
    data: str | None
    attempt: int
    created_at: datetime
    waited_s: float
    """Since it was due."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim took, and where the next one goes on."""

    due: Sequence[Due]
    now: datetime | None
    """The database's time; None when nothing was taken."""
    after: str
    """The last receiver looked at, or "" when all were."""


# The walk goes from one receiver to the next by the index `due`, and from each takes the head of
# what is due, up to its quota: two probes a receiver, whatever its backlog. The start moves on from
# claim to claim, so that with little room nobody is always last.
CLAIM: LiteralString = """
    with recursive walk as (
        (select target
           from enrichment_webhook_deliveries
          where status = 'pending'
            and target > %(after)s collate "C"
          order by target
          limit 1)
        union all
        select (select next.target
                  from enrichment_webhook_deliveries as next
                 where next.status = 'pending'
                   and next.target > walk.target
                 order by next.target
                 limit 1)
          from walk
         where walk.target is not null
    ),
    seen as materialized (
        select target from walk limit %(targets_max)s
    ),
    open as materialized (
        select seen.target, coalesce(known.quota, %(quota)s::int) as quota
          from seen
          left join unnest(%(targets)s::text[], %(quotas)s::int[]) as known(target, quota)
            on known.target collate "C" = seen.target
         where seen.target is not null
    ),
    picked as materialized (
        select head.id, head.next_attempt_at
          from open
         cross join lateral (
               select id, next_attempt_at
                 from enrichment_webhook_deliveries
                where status = 'pending'
                  and target = open.target
                  and next_attempt_at <= now()
                order by next_attempt_at
                limit open.quota
                  for update skip locked) as head
         limit %(room)s
    ),
    leased as (
        update enrichment_webhook_deliveries as delivery
           set attempts = delivery.attempts + 1, attempted_at = now(),
               next_attempt_at = now() + make_interval(secs => %(lease_s)s)
         where delivery.id = any(array(select id from picked))
        returning delivery.*
    )
    select leased.id, leased.target, leased.workspace_id, leased.webhook_id,
           coalesce(leased.url, hook.url),
           leased.webhook_id is null or coalesce(hook.enabled, false), hook.secrets::text,
           leased.event, leased.sequence, leased.job_id, leased.data::text, leased.attempts,
           leased.created_at,
           extract(epoch from now() - picked.next_attempt_at)::float8,
           now(), (select case when count(*) < %(targets_max)s then '' else max(target) end
                     from seen)
      from leased
      join picked on picked.id = leased.id
      left join enrichment_webhooks as hook on hook.id = leased.webhook_id
     order by leased.target, leased.sequence
"""


async def claim(
    conn: Connection,
    *,
    room: int,
    quota: int,
    quotas: Mapping[str, int],
    after: str = "",
    lease_s: float = LEASE_S,
) -> Claim:
    """Lease up to `room` due deliveries, of each receiver up to its quota.

    `quotas` are those of receivers that differ from `quota`; 0 leaves one out. The walk begins
    behind the receiver `after`.
    """
    cursor = await conn.execute(
        CLAIM,
        {
            "after": after,
            "targets_max": TARGETS_MAX,
            "quota": quota,
            "targets": text_array(quotas),
            "quotas": plain_array(quotas.values()),
            "room": room,
            "lease_s": lease_s,
        },
    )
    rows = await cursor.fetchall()
    if not rows:
        return Claim([], None, "")
    return Claim([Due(*row[:14]) for row in rows], rows[0][14], rows[0][15])


@dataclass(slots=True)
class Attempted:
    """What came of one attempt, as the table takes it. Not frozen: made thousands a second."""

    id: UUID
    attempt: int
    status: str
    """`delivered`, `failed`, or `pending` to be tried again after `delay_s`."""
    delay_s: float = 0.0
    answer_status: int | None = None
    answer: str | None = None
    latency_ms: int | None = None
    error: str | None = None
    is_gone: bool = False
    """The receiver answered that it wants nothing more."""
    is_sent: bool = True
    """False gives the attempt back: nothing went out, and the endpoint is not to blame."""


@dataclass(frozen=True, slots=True)
class Disabled:
    """An endpoint that was given up."""

    webhook_id: UUID
    workspace_id: str
    url: str
    reason: str


# Fenced by the attempt: a host that comes back after its lease changes nothing. `was` is 'pending'
# out of the planner's sight, or it would read the whole index of pending ones. One success in a
# batch clears the endpoint's record; only where nothing was taken does the streak grow. Endpoints
# are locked in id order. One that is given up is told of to the others of its workspace.
RECORD: LiteralString = """
    with ended as materialized (
        select *, 'pending' as was from unnest(
            %(ids)s::uuid[], %(attempts)s::int[], %(statuses)s::text[], %(delays)s::float8[],
            %(answer_statuses)s::int[], %(answers)s::text[], %(latencies)s::int[],
            %(errors)s::text[], %(gones)s::bool[], %(sents)s::bool[])
            as ended(id, attempt, status, delay_s, answer_status, answer, latency_ms, error,
                     is_gone, is_sent)
    ),
    recorded as (
        update enrichment_webhook_deliveries as delivery
           set status = ended.status,
               attempts = delivery.attempts - (not ended.is_sent)::int,
               next_attempt_at = case when ended.status = 'pending'
                                      then now() + make_interval(secs => ended.delay_s)
                                      else delivery.next_attempt_at end,
               answer_status = case when ended.is_sent then ended.answer_status
                                    else delivery.answer_status end,
               answer = case when ended.is_sent then ended.answer else delivery.answer end,
               latency_ms = case when ended.is_sent then ended.latency_ms
                                 else delivery.latency_ms end,
               error = case when ended.is_sent or ended.status = 'failed' then ended.error
                            else delivery.error end,
               history = case when ended.is_sent and ended.status <> 'delivered'
                              then jsonb_path_query_array(
                                  coalesce(delivery.history, '[]') || jsonb_build_object(
                                      'attempt', ended.attempt, 'at', delivery.attempted_at,
                                      'answerStatus', ended.answer_status,
                                      'answer', ended.answer, 'latencyMs', ended.latency_ms,
                                      'error', ended.error),
                                  %(kept)s::jsonpath)
                              else delivery.history end,
               finished_at = case when ended.status <> 'pending' then now() end
          from ended
         where delivery.id = ended.id
           and delivery.attempts = ended.attempt
           and delivery.status = ended.was
        returning delivery.id, delivery.webhook_id, ended.status = 'delivered' as is_taken,
                  ended.is_gone, ended.is_sent
    ),
    health as materialized (
        select webhook_id, bool_or(is_taken) as is_taken, bool_or(is_gone) as is_gone,
               count(*)::int as attempts
          from recorded
         where webhook_id is not null
           and is_sent
         group by webhook_id
    ),
    touched as materialized (
        select hook.id, health.is_taken, health.is_gone, health.attempts
          from health
          join enrichment_webhooks as hook on hook.id = health.webhook_id
         where hook.enabled
           and (health.is_gone or not health.is_taken or hook.failing_since is not null)
         order by hook.id
           for update of hook
    ),
    changed as (
        update enrichment_webhooks as hook
           set failure_streak = case when touched.is_taken then 0
                                     else hook.failure_streak + touched.attempts end,
               failing_since = case when not touched.is_taken
                                    then coalesce(hook.failing_since, now()) end,
               enabled = not verdict.is_over,
               disabled_at = case when verdict.is_over then now() end,
               disabled_reason = case when not verdict.is_over then null
                                      when touched.is_gone then 'gone' else 'failing' end
          from touched
         cross join lateral (
               select touched.is_gone
                      or (not touched.is_taken
                          and coalesce((select failing_since
                                          from enrichment_webhooks
                                         where id = touched.id), now())
                              < now() - make_interval(secs => %(failing_max_s)s)) as is_over)
               as verdict
         where hook.id = touched.id
        returning hook.id, hook.workspace_id, hook.url, hook.disabled_reason, hook.failing_since
    ),
    told as (
        insert into enrichment_webhook_deliveries
               (workspace_id, webhook_id, target, event, data)
        select changed.workspace_id, heard.webhook_id, heard.target, 'endpoint.disabled',
               jsonb_build_object('webhookId', changed.id, 'url', changed.url,
                                  'reason', changed.disabled_reason,
                                  'failingSince', changed.failing_since)
          from changed
         cross join lateral enrichment_webhook_targets(
               changed.workspace_id, null, 'endpoint.disabled') as heard
         where changed.disabled_reason is not null
           and heard.webhook_id <> changed.id
    )
    select id, workspace_id, url, disabled_reason
      from changed
     where disabled_reason is not null
"""


async def record(
    conn: Connection, *, attempted: Sequence[Attempted], failing_max_s: float = FAILING_MAX_S
) -> list[Disabled]:
    """Write down what came of attempts; return the endpoints that were given up for it.

    Bound `attempted` by ATTEMPTS_RECORDED_MAX.
    """
    cursor = await conn.execute(
        RECORD,
        {
            "ids": plain_array([one.id for one in attempted]),
            "attempts": plain_array([one.attempt for one in attempted]),
            "statuses": plain_array([one.status for one in attempted]),
            "delays": plain_array([one.delay_s for one in attempted]),
            "answer_statuses": plain_array([one.answer_status for one in attempted]),
            "answers": text_array([one.answer for one in attempted]),
            "latencies": plain_array([one.latency_ms for one in attempted]),
            "errors": text_array([one.error for one in attempted]),
            "gones": plain_array([one.is_gone for one in attempted]),
            "sents": plain_array([one.is_sent for one in attempted]),
            "failing_max_s": failing_max_s,
            "kept": KEPT,
        },
    )
    return [Disabled(*row) async for row in cursor]


NEXT_DUE: LiteralString = """
    select extract(epoch from min(next_attempt_at) - now())::float8
      from enrichment_webhook_deliveries
     where status = 'pending'
"""


async def next_due_s(conn: Connection) -> float | None:
    """Return the seconds until the next attempt is due, negative if one is; None for none."""
    row = await (await conn.execute(NEXT_DUE)).fetchone()
    assert row is not None
    due_s: float | None = row[0]
    return due_s


# A job's row takes its deliveries along when it is pruned; what belongs to no job goes here.
PRUNE: LiteralString = """
    with old as materialized (
        select id, job_id
          from enrichment_webhook_deliveries
         where finished_at < now() - make_interval(secs => %(age_s)s)
           and finished_at is not null
           and data is not null
         order by finished_at
         limit %(limit)s
           for update skip locked
    ),
    deleted as (
        delete from enrichment_webhook_deliveries as delivery
         using old
         where delivery.id = old.id
           and old.job_id is null
    ),
    emptied as (
        update enrichment_webhook_deliveries as delivery
           set data = null, answer = null, history = null
          from old
         where delivery.id = old.id
           and old.job_id is not null
    )
    select count(*) from old
"""

PRUNE_BATCH = 1_000


async def prune(conn: Connection, *, age_s: float, limit: int = PRUNE_BATCH) -> int:
    """Forget what was said in deliveries that ended more than `age_s` ago; return how many."""
    row = await (await conn.execute(PRUNE, {"age_s": age_s, "limit": limit})).fetchone()
    assert row is not None
    return int(row[0])
