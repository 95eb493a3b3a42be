-- Live updates: who listens. Incoming webhooks: what was said already.

-- Nobody tells of a change while nobody listens. A gateway with listeners says so here and says it
-- again every few seconds; workers see it when they read the lanes. `realtime` is one name for all
-- hosts, so that one of them broadcasts and the others stand by.
create table enrichment_listeners (
    name       text        not null primary key,
    holder     uuid        not null,
    workspaces text[]      not null,
    expires_at timestamptz not null
) with (fillfactor = 50);
comment on column enrichment_listeners.workspaces is 'Whose jobs are listened for; * is everybody''s.';

-- One row for each message of a provider that had an effect, or for each one about a job.
create table enrichment_incoming_events (
    source       text        not null,
    event_id     text        not null,
    workspace_id text,
    job_id       uuid,
    event        text        not null default '',
    data         text,
    received_at  timestamptz not null default now(),
    primary key (source, event_id)
);
comment on table enrichment_incoming_events is
    'Webhooks that came in: kept so that one that is sent again changes nothing.';
comment on column enrichment_incoming_events.source is
    'The provider whose signature was right; `job` for the generic form, sent with an API key.';
comment on column enrichment_incoming_events.data is
    'PII. What the generic form brought for its job, as JSON text; null for providers.';
create index enrichment_incoming_events_age on enrichment_incoming_events (received_at);
create index enrichment_incoming_events_job on enrichment_incoming_events (job_id)
    where job_id is not null;

select enrichment_protect('enrichment_listeners', 'daemon');
select enrichment_protect('enrichment_incoming_events', 'workspace', 'select, insert');
-- Whoever has a key may answer what a job of its workspace waits for, and need not read the answers.
select enrichment_protect('enrichment_callbacks', 'workspace',
                          'select (job_id, workspace_id, state), update (state, answer, received_at)');
