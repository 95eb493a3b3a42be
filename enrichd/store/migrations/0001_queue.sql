-- The queue: jobs, a batch's leads, attempts, workers, lanes, provider state.

-- Version 7 ids grow with time, so the primary key and the lists only grow at their right end.
-- PostgreSQL 18 has uuidv7(); this one serves 14 and newer alike.
create function enrichment_uuid7() returns uuid
language sql volatile parallel safe
as $$
    select encode(
        set_bit(
            set_bit(
                overlay(
                    uuid_send(gen_random_uuid())
                    placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
                    from 1 for 6
                ), 52, 1
            ), 53, 1
        ), 'hex'
    )::uuid
$$;

-- Few checks on purpose: twelve of them took a fifth of a bulk insert and ran again at each of a
-- job's two updates. Lengths and ranges are checked by whoever inserts, the function below included.
create table enrichment_jobs (
    id                  uuid        not null primary key,
    workspace_id        text        not null default 'default',
    type                text        not null,
    status              text        not null default 'pending'
                                    check (status in ('pending', 'processing', 'completed', 'scheduled',
                                                      'failed', 'dead_letter', 'cancelled', 'waiting')),
    priority            smallint    not null default 3 check (priority between 1 and 5),
    provider_id         text        not null default '-',
    payload             jsonb       not null,
    result              jsonb,
    error               jsonb,
    tags                text[]      not null default '{}',
    attempts            integer     not null default 0 check (attempts >= 0),
    crashes             smallint    not null default 0,
    max_retries         integer     not null default 3,
    cost                integer     not null default 1,
    fair_rank           bigint      not null default 0,
    webhook_url         text,
    idempotency_key     text,
    progress_done       integer     not null default 0,
    progress_total      integer     not null default 0,
    worker_id           uuid,
    cancel_requested_at timestamptz,
    scheduled_at        timestamptz,
    created_at          timestamptz not null default now(),
    updated_at          timestamptz not null default now(),
    started_at          timestamptz,
    completed_at        timestamptz,
    constraint enrichment_jobs_scheduled_has_a_time
        check (status not in ('scheduled', 'waiting') or scheduled_at is not null),
    constraint enrichment_jobs_processing_has_a_worker
        check (status <> 'processing' or worker_id is not null)
) with (
    fillfactor = 85,
    toast_tuple_target = 256,
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 0
);
comment on table enrichment_jobs is
    'One unit of work. worker_id stays set after the end of a run that worker recorded itself.';
comment on column enrichment_jobs.cost is 'Leads in the job: what fair sharing charges the workspace.';
comment on column enrichment_jobs.crashes is
    'Workers that died while they had the job. Above 0 it runs alone, so that it harms no other.';
comment on column enrichment_jobs.fair_rank is
    'Place in the lane and priority by start-time fair queueing; only pending rows use it.';

-- The claim reads this one and no other: it leads with the lane, so a throttled lane costs nothing.
create index enrichment_jobs_ready on enrichment_jobs (provider_id, priority, fair_rank, id)
    where status = 'pending';
-- enqueue asks it for a workspace's highest rank in a lane.
create index enrichment_jobs_fair on enrichment_jobs (workspace_id, provider_id, priority, fair_rank)
    where status = 'pending';
create index enrichment_jobs_due on enrichment_jobs (scheduled_at, id) where status = 'scheduled';
create index enrichment_jobs_running on enrichment_jobs (worker_id) where status = 'processing';
create index enrichment_jobs_waiting on enrichment_jobs (scheduled_at) where status = 'waiting';
create unique index enrichment_jobs_idempotency on enrichment_jobs (workspace_id, idempotency_key)
    where idempotency_key is not null;
-- Read backwards, newest first; kept ascending because new ids then go to a page's end and split off
-- full pages.
create index enrichment_jobs_list on enrichment_jobs (workspace_id, id);
create index enrichment_jobs_prune on enrichment_jobs (completed_at)
    where status in ('completed', 'failed', 'cancelled', 'dead_letter');

-- A batch's leads that are done, so that a batch resumes where it stopped.
create table enrichment_job_items (
    job_id       uuid        not null,
    item_key     text        not null,
    workspace_id text        not null,
    status       text        not null check (status in ('completed', 'failed')),
    result       jsonb,
    error        jsonb,
    finished_at  timestamptz not null default now(),
    primary key (job_id, item_key)
);

-- Attempts that are over while their job goes on (retry, snooze, crash …). The attempt that ended a
-- job is in the job's own row, so a job that succeeds at once costs no row here: one insert less on
-- the hot path. The view below shows both.
create table enrichment_attempt_log (
    id           bigint      generated always as identity primary key,
    job_id       uuid        not null,
    workspace_id text        not null,
    attempt      integer     not null,
    worker_id    uuid,
    started_at   timestamptz,
    finished_at  timestamptz not null default now(),
    outcome      text        not null check (outcome in ('completed', 'failed', 'retry', 'snoozed', 'parked',
                                                         'cancelled', 'released', 'crashed')),
    error        jsonb
);
create index enrichment_attempt_log_job on enrichment_attempt_log (job_id);

create view enrichment_job_attempts as
    select job_id, workspace_id, attempt, worker_id, started_at, finished_at, outcome, error
      from enrichment_attempt_log
    union all
    select id, workspace_id, attempts, worker_id, started_at, completed_at,
           case status when 'processing' then null when 'dead_letter' then 'failed' else status end,
           error
      from enrichment_jobs
     where worker_id is not null
       and status in ('processing', 'completed', 'failed', 'cancelled', 'dead_letter');

-- One row a worker process. No foreign key points here: deleting a worker must never touch jobs.
create table enrichment_workers (
    id           uuid        not null primary key,
    host         text        not null,
    pid          integer     not null,
    version      text        not null,
    state        text        not null default 'running'
                             check (state in ('starting', 'running', 'idle', 'draining', 'dead')),
    concurrency  integer     not null,
    running      integer     not null default 0,
    completed    bigint      not null default 0,
    failed       bigint      not null default 0,
    started_at   timestamptz not null default now(),
    heartbeat_at timestamptz not null default now(),
    turned_at    timestamptz,
    alone_job    uuid,
    job_types    text[]
) with (fillfactor = 50);
comment on column enrichment_workers.job_types is
    'The types of jobs that the worker has handlers for; null for one that did not say.';
comment on column enrichment_workers.alone_job is
    'The suspect that the worker runs alone: if it dies now, no other job of its is to blame.';
comment on column enrichment_workers.turned_at is
    'When the worker last asked for jobs and got an answer: a heart may beat while the hands are stuck.';

-- A lane is what is throttled together; one row by priority. Made at the first enqueue.
create table enrichment_lanes (
    provider_id text     not null,
    priority    smallint not null,
    vtime       bigint   not null default 0,
    floor_rank  bigint   not null default 0,
    floor_next  bigint   not null default 0,
    floor_at    timestamptz not null default now(),
    primary key (provider_id, priority)
) with (fillfactor = 50);
comment on column enrichment_lanes.vtime is 'Highest rank claimed so far, at most a second old.';
comment on column enrichment_lanes.floor_rank is
    'No pending job ranks below it, so the claim never walks over what is finished. floor_next is the one to come.';

create table enrichment_provider_state (
    provider_id   text    not null primary key,
    breaker       text    not null default 'closed' check (breaker in ('closed', 'open', 'half_open')),
    blocked_until timestamptz,
    probe_owner   uuid,
    probe_until   timestamptz,
    inflight_cap  integer check (inflight_cap >= 1),
    reason        text,
    updated_at    timestamptz not null default now()
) with (fillfactor = 50);

-- Where a new job's rank starts: after everything its workspace has pending in the lane, and not
-- before what was claimed last. `fair_rank >= floor` keeps the search off dead index entries.
create function enrichment_rank_base(in_workspace text, in_provider text, in_priority smallint)
returns bigint
language sql stable
as $$
    select greatest(
               coalesce(lane.vtime, 0),
               coalesce((select job.fair_rank
                           from enrichment_jobs as job
                          where job.status = 'pending'
                            and job.workspace_id = in_workspace
                            and job.provider_id = in_provider
                            and job.priority = in_priority
                            and job.fair_rank >= coalesce(lane.floor_rank, 0)
                          order by job.fair_rank desc
                          limit 1), 0))
      from (select 1) as one
      left join enrichment_lanes as lane
        on lane.provider_id = in_provider and lane.priority = in_priority
$$;

-- Put one job on the queue, from any language, inside the caller's transaction. Answers the job's id
-- and whether it is new: an id or an idempotency key that was there before answers the earlier job.
create function enrichment_enqueue_job(
    type            text,
    payload         jsonb,
    workspace_id    text        default 'default',
    priority        integer     default 3,
    provider_id     text        default null,
    max_retries     integer     default 3,
    tags            text[]      default '{}',
    webhook_url     text        default null,
    idempotency_key text        default null,
    scheduled_at    timestamptz default null,
    delay           interval    default null,
    id              uuid        default null,
    cost            integer     default null,
    out job_id      uuid,
    out is_new      boolean
)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
    lane   text        := coalesce(enrichment_enqueue_job.provider_id, payload ->> 'providerId', '-');
    ws     text        := coalesce(enrichment_enqueue_job.workspace_id, 'default');
    prio   smallint;
    due    timestamptz := coalesce(enrichment_enqueue_job.scheduled_at, now() + delay);
    leads  integer     := cost;
    wanted uuid        := coalesce(id, enrichment_uuid7());
    base    bigint;
    lowest  bigint;
    highest bigint;
    rank    bigint     := 0;
begin
    if priority is null or priority not between 1 and 5 then
        raise exception 'priority is %; it must be 1 (highest) to 5 (lowest)', coalesce(priority::text, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    if max_retries is null or max_retries not between 0 and 100 then
        raise exception 'max_retries is %; it must be 0 to 100', coalesce(max_retries::text, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    if payload is null or jsonb_typeof(payload) <> 'object' then
        raise exception 'the payload must be a JSON object' using errcode = 'invalid_parameter_value';
    end if;
    if type is null or length(type) not between 1 and 100 then
        raise exception 'type must have 1 to 100 characters' using errcode = 'invalid_parameter_value';
    end if;
    if length(ws) not between 1 and 100 or length(lane) not between 1 and 100 then
        raise exception 'workspace_id and provider_id must have 1 to 100 characters'
            using errcode = 'invalid_parameter_value';
    end if;
    if length(idempotency_key) not between 1 and 255 then
        raise exception 'idempotency_key must have 1 to 255 characters'
            using errcode = 'invalid_parameter_value';
    end if;
    if length(webhook_url) > 2048 then
        raise exception 'webhook_url may have 2048 characters' using errcode = 'invalid_parameter_value';
    end if;
    -- Readers cannot hold every moment that PostgreSQL can, infinity among them.
    if due not between '2000-01-01 00:00+00' and '9999-12-31 00:00+00' then
        raise exception 'scheduled_at is %; it must be between the years 2000 and 9999', due
            using errcode = 'invalid_parameter_value';
    end if;
    -- jsonb prints spaces that compact JSON has not, up to half as many bytes again: what passed the
    -- limit of 1 MiB outside must pass here.
    if octet_length(payload::text) > 2 * 1048576 then
        raise exception 'the payload has % bytes; 1 MiB of compact JSON is the limit', octet_length(payload::text)
            using errcode = 'program_limit_exceeded';
    end if;
    prio := priority;
    -- enrichment_lane_of, written out like the rank below: jobs with a key of their own have a lane
    -- of their own.
    if lane <> '-' and exists (select from enrichment_provider_keys as brought
                                where brought.workspace_id = ws and brought.provider_id = lane) then
        lane := lane || '#' || ws;
    end if;
    if leads is null then
        leads := greatest(
            case when jsonb_typeof(payload -> 'leadIds') = 'array' then jsonb_array_length(payload -> 'leadIds') end,
            case when jsonb_typeof(payload -> 'leads') = 'array' then jsonb_array_length(payload -> 'leads') end,
            case when jsonb_typeof(payload -> 'emails') = 'array' then jsonb_array_length(payload -> 'emails') / 10 end,
            1);
    end if;

    -- enrichment_rank_base, written out: the call alone took a third of the whole enqueue.
    select l.vtime, l.floor_rank into base, lowest
      from enrichment_lanes as l
     where l.provider_id = lane and l.priority = prio;
    if not found then
        insert into enrichment_lanes (provider_id, priority) values (lane, prio) on conflict do nothing;
    end if;
    if due is null or due <= now() then
        select job.fair_rank into highest
          from enrichment_jobs as job
         where job.status = 'pending'
           and job.workspace_id = ws
           and job.provider_id = lane
           and job.priority = prio
           and job.fair_rank >= coalesce(lowest, 0)
         order by job.fair_rank desc
         limit 1;
        rank := greatest(base, highest, 0) + leads;
    end if;

    insert into enrichment_jobs as job
           (id, workspace_id, type, status, priority, provider_id, payload, tags, max_retries, cost,
            fair_rank, webhook_url, idempotency_key, scheduled_at)
    values (wanted, ws, enrichment_enqueue_job.type,
            case when due > now() then 'scheduled' else 'pending' end,
            prio, lane, enrichment_enqueue_job.payload, coalesce(enrichment_enqueue_job.tags, '{}'),
            enrichment_enqueue_job.max_retries, leads, rank, enrichment_enqueue_job.webhook_url,
            enrichment_enqueue_job.idempotency_key, due)
        on conflict do nothing
    returning job.id, true into job_id, is_new;

    if is_new and (webhook_url is not null
                   or exists (select 1 from enrichment_webhooks as hook where hook.enabled)) then
        perform enrichment_tell_created(array[job_id]);
    end if;
    if job_id is null then
        is_new := false;
        select job.id into job_id
          from enrichment_jobs as job
         where job.workspace_id = ws
           and (job.id = wanted or job.idempotency_key = enrichment_enqueue_job.idempotency_key)
         order by job.id = wanted desc
         limit 1;
        if job_id is null then
            raise exception 'job id % is taken', wanted using errcode = 'unique_violation';
        end if;
    end if;
end
$$;

-- The public face for SQL callers: the same, answering only the id.
create function enrichment_enqueue(
    type            text,
    payload         jsonb,
    workspace_id    text        default 'default',
    priority        integer     default 3,
    provider_id     text        default null,
    max_retries     integer     default 3,
    tags            text[]      default '{}',
    webhook_url     text        default null,
    idempotency_key text        default null,
    scheduled_at    timestamptz default null,
    delay           interval    default null,
    id              uuid        default null
) returns uuid
language sql volatile
as $$
    select job_id
      from enrichment_enqueue_job(type, payload, workspace_id, priority, provider_id, max_retries, tags,
                                  webhook_url, idempotency_key, scheduled_at, delay, id)
$$;
