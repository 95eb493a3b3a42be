-- Data providers: keys of a workspace's own, breakers, people who want to be left alone, callbacks.

-- A key is sealed before it comes here (AES-GCM); sealed_with names the secret that opens it.
create table enrichment_provider_keys (
    workspace_id text        not null,
    provider_id  text        not null,
    sealed       bytea       not null,
    sealed_with  text        not null,
    hint         text        not null default '',
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    primary key (workspace_id, provider_id)
);
comment on column enrichment_provider_keys.hint is 'The last four characters, to tell keys apart.';

-- The lane of a workspace's jobs at a provider: its own where it brings its own key, since that key has
-- limits and a breaker of its own.
create function enrichment_lane_of(in_workspace text, in_provider text) returns text
language sql stable parallel safe
as $$
    select case when exists (select from enrichment_provider_keys as brought
                              where brought.workspace_id = in_workspace
                                and brought.provider_id = in_provider)
                then in_provider || '#' || in_workspace
                else in_provider end
$$;

-- provider_id is a credential here: `hunter`, or `hunter#acme` where a workspace brings its own key.
alter table enrichment_provider_state
    add column failures          integer     not null default 0,
    add column opened_at         timestamptz,
    add column opened_for        interval,
    add column is_set_by_hand    boolean     not null default false,
    add column credits_left      numeric,
    add column credits_seen_at   timestamptz;

-- Secrets of this installation that every host must share, made with the tables.
create table enrichment_installation (
    is_only boolean not null primary key default true check (is_only),
    pepper  bytea   not null default decode(
        replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex')
);
insert into enrichment_installation default values;

-- People who are never to be asked about again, by keyed hash: HMAC-SHA256 of the normalised address.
create table enrichment_suppressions (
    workspace_id text        not null,
    email_hmac   bytea       not null,
    reason       text        not null check (reason in ('erased', 'opted_out', 'by_hand')),
    provider_id  text,
    created_at   timestamptz not null default now(),
    primary key (workspace_id, email_hmac)
);
comment on column enrichment_suppressions.workspace_id is
    'The workspace, or * for a person whom a provider told us to leave alone everywhere.';

-- One question that a provider answers later. The row exists before the request is sent, so that an
-- answer cannot come too early for it. `early` is the answer of a provider that calls one address for
-- all: it names a request that nobody has noted yet, and waits without a job for whoever does.
create table enrichment_callbacks (
    token_hash   bytea       not null primary key,
    workspace_id text        not null,
    job_id       uuid        check (job_id is not null or state = 'early'),
    provider_id  text        not null,
    operation    text        not null,
    cache_key    bytea       not null,
    request_id   text,
    state        text        not null default 'asked'
                             check (state in ('asked', 'received', 'used', 'expired', 'early')),
    answer       text,
    poll_at      timestamptz,
    resumed_at   timestamptz,
    deadline     timestamptz not null,
    created_at   timestamptz not null default now(),
    received_at  timestamptz
);
comment on column enrichment_callbacks.answer is
    'What was called back, as text: hostile JSON is for the reader to find out, not for the table.';
comment on column enrichment_callbacks.resumed_at is
    'When the job was last taken out of its wait for this row: not again and again for the same news.';
create index enrichment_callbacks_job on enrichment_callbacks (job_id);
create index enrichment_callbacks_request on enrichment_callbacks (provider_id, request_id);
create index enrichment_callbacks_poll on enrichment_callbacks (poll_at) where state = 'asked';
create index enrichment_callbacks_received on enrichment_callbacks (received_at) where state = 'received';
create index enrichment_callbacks_deadline on enrichment_callbacks (deadline);
