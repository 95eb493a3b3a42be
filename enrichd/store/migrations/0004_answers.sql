-- What providers answered, and what it cost.

-- One row a question. Without an answer it says who is asking right now, so that nobody else pays
-- for the same: the owner's lease ends by itself.
create table enrichment_provider_cache (
    workspace_id text        not null,
    cache_key    bytea       not null,
    provider_id  text        not null,
    operation    text        not null,
    outcome      text        check (outcome in ('found', 'noMatch', 'suppressed')),
    answer       jsonb,
    subjects     bytea[]     not null default '{}',
    cost_credits numeric     not null default 0,
    fetched_at   timestamptz,
    expires_at   timestamptz,
    asked_by     uuid,
    asked_until  timestamptz,
    primary key (workspace_id, cache_key)
) with (fillfactor = 70, toast_tuple_target = 256);
comment on column enrichment_provider_cache.subjects is
    'Keyed hashes of the email addresses in the question and the answer: what erasure looks for.';
create index enrichment_provider_cache_expiry on enrichment_provider_cache (expires_at);
create index enrichment_provider_cache_subjects on enrichment_provider_cache using gin (subjects);

-- What a cap counts: `day:2026-11-23` (everybody), `day:2026-11-23:acme`, `month:2026-11:acme`, `job:<id>`.
create table enrichment_credit_counters (
    counter    text        not null primary key,
    spent      numeric     not null default 0,
    reserved   numeric     not null default 0,
    updated_at timestamptz not null default now()
) with (fillfactor = 50);

-- Credits promised to calls that have not ended. A call whose process died is counted as spent when
-- its time is over: it may have been paid.
create table enrichment_credit_reservations (
    id           uuid        not null primary key,
    workspace_id text        not null,
    job_id       uuid,
    provider_id  text        not null,
    operation    text        not null,
    credits      numeric     not null,
    counters     text[]      not null,
    expires_at   timestamptz not null
);
create index enrichment_credit_reservations_expiry on enrichment_credit_reservations (expires_at);

-- What a workspace may spend where the common caps are not the right ones.
create table enrichment_budgets (
    workspace_id          text        not null primary key,
    credits_per_day_max   numeric     check (credits_per_day_max >= 0),
    credits_per_month_max numeric     check (credits_per_month_max >= 0),
    updated_at            timestamptz not null default now()
);

-- Use by day, workspace and provider, for `enrichctl providers` and for the bill.
create table enrichment_provider_use (
    day          date    not null,
    workspace_id text    not null,
    provider_id  text    not null,
    operation    text    not null,
    calls        bigint  not null default 0,
    answered     bigint  not null default 0,
    no_match     bigint  not null default 0,
    errors       bigint  not null default 0,
    cache_hits   bigint  not null default 0,
    credits      numeric not null default 0,
    primary key (day, workspace_id, provider_id, operation)
) with (fillfactor = 50);
