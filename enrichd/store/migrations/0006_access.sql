-- Who may see what: API keys, the roles, row level security on every table.

create table enrichment_api_keys (
    id           text        not null primary key check (id ~ '^[0-9A-Za-z]{8}$'),
    workspace_id text        not null check (length(workspace_id) between 1 and 100),
    name         text        not null default '' check (length(name) <= 100),
    key_hash     bytea       not null check (octet_length(key_hash) = 32),
    scopes       text[]      not null check (cardinality(scopes) between 1 and 3
                                             and scopes <@ array['read', 'write', 'admin']),
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz,
    rotated_from text
);
comment on column enrichment_api_keys.id is 'The public part of the key, which stands in logs and lists.';
comment on column enrichment_api_keys.key_hash is
    'SHA-256 of the whole key. The key has 256 random bits, so that a slow hash would add nothing.';
comment on column enrichment_api_keys.last_used_at is 'To the minute or so: not every request writes.';
comment on column enrichment_api_keys.rotated_from is
    'The key that this one takes over from; that one goes on until its expires_at.';
create index enrichment_api_keys_list on enrichment_api_keys (workspace_id, created_at);

-- What each table's rule is, so that all of it can be set up again: in a database that was restored
-- where the roles did not exist, or after somebody created them who may.
--   workspace  a tenant sees the rows of its own workspace
--   lane       a tenant sees the lanes that are everybody's or its own
--   daemon     tenants see nothing
create table enrichment_access (
    relation   text not null primary key,
    rule       text not null check (rule in ('workspace', 'lane', 'daemon')),
    api_grants text not null default ''
);

-- Two roles, the same for all databases of a cluster, which nobody logs in as. `enrichd_api` is what
-- the gateway becomes for one workspace's transaction: it sees the workspace that the transaction
-- names and nothing else. `enrichd_worker` is for daemons that log in as another role than the
-- tables' owner: `grant enrichd_worker to them`. The owner itself is not made a member, because it
-- then would be one in the cluster's other databases too.
--
-- What may not be done is left undone, and `enrichctl doctor` says so: the queue works without the
-- roles, the API does not. Migrations of several databases at once meet here, hence the second tries.
create function enrichment_make_roles() returns void
language plpgsql volatile
as $$
declare
    is_old  constant boolean := current_setting('server_version_num')::int < 160000;
    may_set constant text    := case when is_old then 'member' else 'set' end;
    wanted  text;
    owner   name;
begin
    foreach wanted in array array['enrichd_api', 'enrichd_worker'] loop
        if to_regrole(wanted) is null then
            begin
                execute format('create role %I nologin', wanted);
            exception
                when duplicate_object or unique_violation or insufficient_privilege then null;
            end;
        end if;
    end loop;
    if to_regrole('enrichd_api') is null then
        return;
    end if;
    select pg_get_userbyid(relowner) into owner from pg_class where oid = 'enrichment_jobs'::regclass;
    for tries in 1 .. 10 loop
        begin
            if to_regrole('enrichd_worker') is not null
               and not pg_has_role('enrichd_worker', 'enrichd_api', may_set) then
                grant enrichd_api to enrichd_worker;
            end if;
            if not pg_has_role(owner, 'enrichd_api', may_set) then
                -- The owner only becomes the role, and does not act with its rights meanwhile.
                execute format('grant enrichd_api to %I', owner)
                        || case when is_old then '' else ' with inherit false, set true' end;
            end if;
            return;
        exception
            when insufficient_privilege then return;
            when unique_violation or internal_error then  -- "tuple concurrently updated"
                perform pg_sleep(0.01 * tries);
        end;
    end loop;
end
$$;

-- The policies and rights of one table, by its rule. `true` for the daemon is seen when a statement
-- is planned and costs the queue nothing. The workspace is compared with a subquery, which runs once
-- a statement and not once a row; a setting that was never made is null and one whose transaction is
-- over is empty, so neither shows a row.
create function enrichment_apply_access(in_relation text) returns void
language plpgsql volatile
as $$
declare
    granted   enrichment_access%rowtype;
    daemon    text;
    tenant    text;
    workspace constant text := $q$(select nullif(current_setting('enrichd.workspace_id', true), ''))$q$;
begin
    select * into strict granted from enrichment_access where relation = in_relation;
    select quote_ident(pg_get_userbyid(relowner)) into daemon
      from pg_class
     where oid = in_relation::regclass;
    execute format('alter table %I enable row level security', in_relation);
    execute format('alter table %I force row level security', in_relation);
    execute format('drop policy if exists enrichment_daemon on %I', in_relation);
    execute format('drop policy if exists enrichment_tenant on %I', in_relation);
    if to_regrole('enrichd_worker') is not null then
        daemon := daemon || ', enrichd_worker';
        execute format('grant select, insert, update, delete on %I to enrichd_worker', in_relation);
    end if;
    execute format('create policy enrichment_daemon on %I to %s using (true) with check (true)',
                   in_relation, daemon);
    if to_regrole('enrichd_api') is null then
        return;
    end if;
    execute format('revoke all on %I from enrichd_api', in_relation);
    if granted.api_grants <> '' then
        execute format('grant %s on %I to enrichd_api', granted.api_grants, in_relation);
    end if;
    tenant := case granted.rule
        -- Not `=`: the planner would take a workspace's order by id from the primary key then, and
        -- walk over everybody's jobs for it.
        when 'workspace' then 'workspace_id = any(array[' || workspace || '])'
        when 'lane' then $q$strpos(provider_id, '#') = 0
                            or right(provider_id, - strpos(provider_id, '#')) = $q$ || workspace
    end;
    if tenant is not null then
        execute format('create policy enrichment_tenant on %I to enrichd_api using (%s) with check (%s)',
                       in_relation, tenant, tenant);
    end if;
end
$$;

-- Protect a table; every migration that makes one says this about it:
--     select enrichment_protect('enrichment_things', 'workspace', 'select, insert');
-- The last argument is what the API itself does with the table in a tenant's name, which row level
-- security then holds to the tenant's rows; without it the API cannot name the table at all.
create function enrichment_protect(in_relation text, in_rule text, in_api_grants text default '')
returns void
language plpgsql volatile
as $$
declare
    browser text;
begin
    insert into enrichment_access (relation, rule, api_grants)
    values (in_relation, in_rule, in_api_grants)
        on conflict (relation) do update
       set rule = excluded.rule, api_grants = excluded.api_grants;
    perform enrichment_apply_access(in_relation);
    execute format('revoke all on %I from public', in_relation);
    -- Supabase gives these two everything in the schema `public`, and serves it to browsers.
    foreach browser in array array['anon', 'authenticated'] loop
        if to_regrole(browser) is not null then
            execute format('revoke all on %I from %I', in_relation, browser);
        end if;
    end loop;
end
$$;

-- Keep a function from everybody but the daemon.
create function enrichment_protect_function(in_function regprocedure) returns void
language plpgsql volatile
as $$
declare
    browser text;
begin
    execute format('revoke execute on function %s from public', in_function);
    foreach browser in array array['anon', 'authenticated', 'enrichd_api'] loop
        if to_regrole(browser) is not null then
            execute format('revoke execute on function %s from %I', in_function, browser);
        end if;
    end loop;
    if to_regrole('enrichd_worker') is not null then
        execute format('grant execute on function %s to enrichd_worker', in_function);
    end if;
end
$$;

-- What everybody who may insert a job may call; it has no rights but its caller's.
create function enrichment_is_for_callers(in_function name) returns boolean
language sql immutable parallel safe
as $$
    select in_function in ('enrichment_enqueue', 'enrichment_enqueue_job', 'enrichment_lane_of',
                           'enrichment_rank_base', 'enrichment_tell_created', 'enrichment_uuid7',
                           'enrichment_webhook_targets')
$$;

-- What concerns no single table: the schema, the view, the functions. Both roles get by name what
-- everybody has, so that a database served to browsers can take it from everybody.
create function enrichment_apply_common_access() returns void
language plpgsql volatile
as $$
declare
    wanted  text;
    callers text;
begin
    select string_agg(oid::regprocedure::text, ', ')
      into callers
      from pg_proc
     where pronamespace = current_schema()::regnamespace
       and enrichment_is_for_callers(proname);
    foreach wanted in array array['enrichd_api', 'enrichd_worker'] loop
        if to_regrole(wanted) is not null then
            execute format('grant usage on schema %I to %I', current_schema(), wanted);
            execute format('grant select on enrichment_job_attempts to %I', wanted);
            execute format('grant execute on function %s to %I', callers, wanted);
        end if;
    end loop;
end
$$;

-- Set it all up, again: for whoever restored the database elsewhere, gave it another owner, or could
-- not create the roles when it was migrated. Any number of times.
create function enrichment_secure() returns void
language plpgsql volatile
as $$
declare
    one   text;
    known text[];
begin
    perform enrichment_make_roles();
    perform enrichment_apply_common_access();
    -- A new owner is not in the old policy and would see no rule.
    alter table enrichment_access no force row level security;
    select array_agg(relation) into known from enrichment_access where to_regclass(relation) is not null;
    foreach one in array known loop
        perform enrichment_apply_access(one);
    end loop;
    select array_agg(oid::regprocedure::text)
      into known
      from pg_proc
     where pronamespace = current_schema()::regnamespace
       and proname like 'enrichment\_%'
       and not enrichment_is_for_callers(proname)
       and not has_function_privilege('public', oid, 'execute');
    foreach one in array known loop
        perform enrichment_protect_function(one::regprocedure);
    end loop;
end
$$;

select enrichment_make_roles();

-- A view shows what its owner sees, which here is everything, unless it asks as its caller. Before
-- PostgreSQL 15 it cannot, and holds the tenant to its workspace by itself.
do $$
begin
    if current_setting('server_version_num')::int >= 150000 then
        alter view enrichment_job_attempts set (security_invoker = true);
    else
        execute format(
            $q$create or replace view enrichment_job_attempts with (security_barrier) as
                   select *
                     from (%s) as attempt
                    where current_user <> 'enrichd_api'
                       or workspace_id = (select nullif(current_setting('enrichd.workspace_id', true), ''))$q$,
            rtrim(pg_get_viewdef('enrichment_job_attempts'::regclass), '; '));
    end if;
    execute 'revoke all on enrichment_job_attempts from public';
    if to_regrole('anon') is not null then
        execute 'revoke all on enrichment_job_attempts from anon';
    end if;
    if to_regrole('authenticated') is not null then
        execute 'revoke all on enrichment_job_attempts from authenticated';
    end if;
end
$$;
select enrichment_apply_common_access();

select enrichment_protect('enrichment_jobs', 'workspace', 'select, insert, update, delete');
select enrichment_protect('enrichment_job_items', 'workspace', 'select, delete');
select enrichment_protect('enrichment_attempt_log', 'workspace', 'select, insert, delete');
select enrichment_protect('enrichment_lanes', 'lane', 'select, insert');
select enrichment_protect('enrichment_webhooks', 'workspace', 'select, insert, update, delete');
select enrichment_protect('enrichment_webhook_deliveries', 'workspace', 'select, insert, update, delete');
select enrichment_protect('enrichment_provider_use', 'workspace', 'select');
select enrichment_protect('enrichment_budgets', 'workspace', 'select');
-- Which lane a job goes to depends on whether its workspace brings a key; the key is not told.
select enrichment_protect('enrichment_provider_keys', 'workspace',
                          'select (workspace_id, provider_id, hint, created_at, updated_at)');

-- Tenants name none of these, whatever their rows say.
select enrichment_protect(relation, 'workspace')
  from unnest(array['enrichment_api_keys', 'enrichment_suppressions', 'enrichment_callbacks',
                    'enrichment_provider_cache', 'enrichment_credit_reservations']) as relation;
select enrichment_protect(relation, 'daemon')
  from unnest(array['enrichment_access', 'enrichment_credit_counters', 'enrichment_installation',
                    'enrichment_migrations', 'enrichment_provider_state', 'enrichment_rate_limits',
                    'enrichment_workers']) as relation;

select enrichment_protect_function(oid)
  from pg_proc
 where pronamespace = current_schema()::regnamespace
   and proname like 'enrichment\_%'
   and not enrichment_is_for_callers(proname);
