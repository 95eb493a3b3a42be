-- Webhooks: the endpoints a workspace has configured, and the outbox of what is to be told.

create table enrichment_webhooks (
    id              uuid        not null primary key,
    workspace_id    text        not null,
    url             text        not null check (length(url) <= 2048),
    events          text[]      not null default '{*}' check (cardinality(events) between 1 and 50),
    description     text        check (length(description) <= 500),
    secrets         jsonb       not null check (jsonb_typeof(secrets) = 'array'),
    enabled         boolean     not null default true,
    disabled_reason text        check (disabled_reason in ('gone', 'failing', 'manual')),
    disabled_at     timestamptz,
    failure_streak  integer     not null default 0,
    failing_since   timestamptz,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    constraint enrichment_webhooks_disabled_for_a_reason
        check (enabled = (disabled_reason is null) and enabled = (disabled_at is null))
);
comment on column enrichment_webhooks.events is 'Names of events; * is every one.';
comment on column enrichment_webhooks.secrets is
    'Newest first: {"sealed": base64, "sealedWith": key id, "until": time or null}; each signs until then.';
comment on column enrichment_webhooks.failing_since is
    'The first failure since the last success; five days of it disable the endpoint.';
create index enrichment_webhooks_list on enrichment_webhooks (workspace_id, id);

-- The outbox and its log in one: a row is written with what it tells of, in the same transaction, and
-- stays when it was delivered. The id is the header webhook-id, the same at every attempt.
create table enrichment_webhook_deliveries (
    id              uuid        not null primary key default enrichment_uuid7(),
    sequence        bigint      generated always as identity,
    workspace_id    text        not null,
    webhook_id      uuid,
    target          text        collate "C" not null,
    url             text,
    event           text        not null,
    job_id          uuid,
    item_key        text,
    data            jsonb,
    status          text        not null default 'pending'
                                check (status in ('pending', 'delivered', 'failed')),
    attempts        smallint    not null default 0,
    next_attempt_at timestamptz not null default now(),
    answer_status   smallint,
    answer          text,
    latency_ms      integer,
    error           text,
    history         jsonb,
    created_at      timestamptz not null default now(),
    attempted_at    timestamptz,
    finished_at     timestamptz
) with (
    fillfactor = 85,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);
comment on column enrichment_webhook_deliveries.webhook_id is
    'The endpoint, whose url and secrets hold at the time of sending; null for a job''s own webhook_url.';
comment on column enrichment_webhook_deliveries.target is
    'What is slow or fast together: the endpoint, or a workspace, the origin of its jobs'' urls and one '
    'of 32 shares of their paths.';
comment on column enrichment_webhook_deliveries.attempts is
    'Attempts begun. With next_attempt_at in the future it is also the lease of the one that is under way.';
comment on column enrichment_webhook_deliveries.data is
    'What the event says, maybe with a person''s data; null once pruned or erased.';
comment on column enrichment_webhook_deliveries.answer is
    'The last answer''s first KiB, without control characters.';
comment on column enrichment_webhook_deliveries.history is
    'What came of attempts that were not taken, and of those before a replay, oldest first; 20 at most. '
    'One that is delivered at once, as most are, has none: its answer stands in the columns.';

-- The claim walks from target to target and takes the head of each, so that the backlog of one that
-- hangs is never read; the other says in one probe whether anything is due at all.
create index enrichment_webhook_deliveries_due
    on enrichment_webhook_deliveries (target, next_attempt_at) where status = 'pending';
create index enrichment_webhook_deliveries_next
    on enrichment_webhook_deliveries (next_attempt_at) where status = 'pending';
create index enrichment_webhook_deliveries_job
    on enrichment_webhook_deliveries (job_id, event, created_at) where job_id is not null;
create index enrichment_webhook_deliveries_list
    on enrichment_webhook_deliveries (workspace_id, sequence);
create index enrichment_webhook_deliveries_webhook
    on enrichment_webhook_deliveries (webhook_id, sequence) where webhook_id is not null;
create index enrichment_webhook_deliveries_prune
    on enrichment_webhook_deliveries (finished_at) where finished_at is not null and data is not null;

-- Who hears of an event: the endpoints of the workspace that asked for it, and the job's own url. The
-- planner writes it out where it is called. A url's origin is what comes before its path. Urls of one
-- origin are told apart by their paths, in 32 lines and no more: many have a path for each job, and the
-- claim walks from line to line.
create function enrichment_webhook_targets(in_workspace text, in_url text, in_event text)
returns table (webhook_id uuid, target text, url text)
language sql stable
as $$
    select hook.id, hook.id::text, null::text
      from enrichment_webhooks as hook
     where hook.workspace_id = in_workspace
       and hook.enabled
       and (in_event = any(hook.events) or '*' = any(hook.events))
    union all
    select null::uuid,
           in_workspace || ' ' || coalesce(lower(substring(in_url from '^[^:/?#]*://[^/?#]*')), '?')
               || ' ' || (hashtextextended(
                              coalesce(substring(in_url from '^[^:/?#]*://[^/?#]*([^?#]*)'), ''), 0)
                          & 31),
           in_url
     where in_url is not null
$$;

-- Tell of one event. The turn calls it in RETURNING, for jobs that somebody may hear of alone: an INSERT
-- in the statement itself was planned at every turn, for half a millisecond.
create function enrichment_tell(
    in_workspace text, in_url text, in_event text, in_job uuid, in_data jsonb
) returns void
language plpgsql volatile
as $$
begin
    insert into enrichment_webhook_deliveries
           (workspace_id, webhook_id, target, url, event, job_id, data)
    select in_workspace, heard.webhook_id, heard.target, heard.url, in_event, in_job, in_data
      from enrichment_webhook_targets(in_workspace, in_url, in_event) as heard;
end
$$;

-- Tell of new jobs. Called inside the transaction that inserts them, for those that somebody hears of.
create function enrichment_tell_created(in_jobs uuid[]) returns void
language sql volatile
as $$
    insert into enrichment_webhook_deliveries
           (workspace_id, webhook_id, target, url, event, job_id, data)
    select job.workspace_id, heard.webhook_id, heard.target, heard.url, 'job.created', job.id,
           jsonb_build_object('jobId', job.id, 'type', job.type, 'status', job.status,
                              'priority', job.priority, 'providerId', job.provider_id,
                              'tags', job.tags, 'createdAt', job.created_at,
                              'scheduledAt', job.scheduled_at)
      from unnest(in_jobs) with ordinality as new(id, place)
      join enrichment_jobs as job on job.id = new.id
     cross join lateral enrichment_webhook_targets(job.workspace_id, job.webhook_url, 'job.created')
           as heard
     order by new.place
$$;
