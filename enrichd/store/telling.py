"""The part of a statement that puts what it did into the webhook outbox.

A delivery is written by the statement that moves the job, so it exists exactly when that move
committed, and a run that lost its claim tells nothing. Most installations have no endpoint: the
condition in front is asked once a statement then, and costs a row a null check. A result above
8 KiB is left to be fetched, so that an event stays below 20 kB.
"""

from __future__ import annotations

from typing import LiteralString

ENDED_DATA = """
    jsonb_build_object('jobId', cause.id, 'type', cause.type, 'status', cause.status,
                       'attempt', cause.attempts, 'progressDone', cause.progress_done,
                       'progressTotal', cause.progress_total, 'error', cause.error)"""

CREATED_DATA = """
    jsonb_build_object('jobId', cause.id, 'type', cause.type, 'status', cause.status,
                       'priority', cause.priority, 'providerId', cause.provider_id,
                       'tags', cause.tags, 'createdAt', cause.created_at,
                       'scheduledAt', cause.scheduled_at)"""

PROGRESS_DATA = """
    jsonb_build_object('jobId', cause.id, 'type', cause.type, 'status', 'processing',
                       'attempt', cause.attempts, 'progressDone', cause.progress_done,
                       'progressTotal', cause.progress_total)"""

ITEM_DATA = """
    jsonb_build_object('jobId', cause.id, 'type', cause.type, 'itemKey', cause.item_key,
                       'status', cause.status, 'error', cause.error)
    || case when octet_length(cause.result) <= 8192
            then jsonb_build_object('result', cause.result::jsonb)
            when cause.result is not null
            then jsonb_build_object('resultPath', '/api/enrichment/jobs/' || cause.id || '/items')
            else '{}' end"""


def telling(
    cause: LiteralString,
    *,
    event: LiteralString,
    data: LiteralString,
    item_key: LiteralString = "null::text",
    where: LiteralString = "true",
) -> LiteralString:
    """Return an INSERT for the rows of `cause`, a name in the same WITH.

    `cause` has id, workspace_id, webhook_url and what `event` and `data` speak of, as `cause`.
    """
    return f"""
        insert into enrichment_webhook_deliveries
               (workspace_id, webhook_id, target, url, event, job_id, item_key, data)
        select cause.workspace_id, heard.webhook_id, heard.target, heard.url, {event}, cause.id,
               {item_key}, {data}
          from {cause} as cause
         cross join lateral enrichment_webhook_targets(
               cause.workspace_id, cause.webhook_url, {event}) as heard
         where (cause.webhook_url is not null
                or exists (select 1 from enrichment_webhooks where enabled))
           and {where}
    """  # noqa: S608 - made of constants


# The turn's two stand in RETURNING, where `job` is the row as it is now.
TELL_ENDED = """
    case when job.completed_at is not null
          and (job.webhook_url is not null
               or (select exists (select 1 from enrichment_webhooks where enabled)))
         then enrichment_tell(
                  job.workspace_id, job.webhook_url, 'job.' || job.status, job.id,
                  jsonb_build_object(
                      'jobId', job.id, 'type', job.type, 'status', job.status,
                      'attempt', job.attempts, 'progressDone', job.progress_done,
                      'progressTotal', job.progress_total, 'error', job.error)
                  || case when octet_length(ended.result) <= 8192
                          then jsonb_build_object('result', job.result)
                          when ended.result is not null
                          then jsonb_build_object('resultPath',
                                                  '/api/enrichment/jobs/' || job.id)
                          else '{}' end)
    end"""

TELL_STARTED = """
    case when job.webhook_url is not null
           or (select exists (select 1 from enrichment_webhooks where enabled))
         then enrichment_tell(
                  job.workspace_id, job.webhook_url, 'job.started', job.id,
                  jsonb_build_object('jobId', job.id, 'type', job.type, 'status', job.status,
                                     'attempt', job.attempts))
    end"""

# What COPY inserts, and the SQL function, is told of by the function enrichment_tell_created.
TELL_CREATED = telling("created", event="'job.created'", data=CREATED_DATA)

TELL_MOVED = telling(
    "moved",
    event="'job.' || cause.status",
    data=ENDED_DATA,
    where="cause.status in ('dead_letter', 'cancelled')",
)

TELL_ITEMS = telling(
    "finished", event="'batch.item_completed'", data=ITEM_DATA, item_key="cause.item_key"
)

# Progress is written once a second; should it be more often, one event a second is told of a job.
TELL_PROGRESS = telling(
    "moved",
    event="'job.progress'",
    data=PROGRESS_DATA,
    where="""not exists (
        select 1
          from enrichment_webhook_deliveries as earlier
         where earlier.job_id = cause.id
           and earlier.event = 'job.progress'
           and earlier.created_at > now() - interval '1 second')""",
)
