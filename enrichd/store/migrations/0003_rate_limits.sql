-- Rate limits: one truth for all processes and hosts.

-- What a provider allows a credential in a window of time, and the calls given out, counted by
-- hundredths of the window. operation is * for a limit that all operations share.
create table enrichment_rate_limits (
    bucket       text        not null,
    operation    text        not null default '*',
    window_s     integer     not null check (window_s > 0),
    calls_max    integer     not null check (calls_max > 0),
    calls_seen   integer     check (calls_seen > 0),
    ring         integer[]   not null default '{}',
    head         bigint      not null default 0,
    not_before   timestamptz,
    updated_at   timestamptz not null default now(),
    primary key (bucket, operation, window_s)
) with (fillfactor = 50);
comment on column enrichment_rate_limits.bucket is 'A credential: `hunter`, or `hunter#acme`.';
comment on column enrichment_rate_limits.calls_seen is
    'A lower limit than ours that the provider itself told us; the lower of both counts.';
