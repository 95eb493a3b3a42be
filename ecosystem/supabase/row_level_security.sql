-- Browsers and Supabase: a signed-in user reads the jobs of the own workspace, and nobody else's. Run
-- it once in the project's SQL editor after `enrichctl db migrate`, or keep it among your own
-- migrations; it can be run again.
--
-- The workspace is the one in the token's app_metadata, which only your server can write
-- (user_metadata is the user's own to change: never decide by it):
--
--     update auth.users
--        set raw_app_meta_data = raw_app_meta_data || '{"workspace_id": "acme"}'
--      where id = '…';
--
-- Read-only: jobs are enqueued, cancelled and retried through your server or enrichd's own API, which
-- check them. Whoever is not signed in (`anon`) sees nothing and may call nothing.

do $$
declare
    relation text;
begin
    if to_regprocedure('auth.jwt()') is null or to_regrole('authenticated') is null then
        raise exception 'this database has no auth.jwt(): it is for Supabase projects';
    end if;
    foreach relation in array array['enrichment_jobs', 'enrichment_job_items',
                                    'enrichment_attempt_log', 'enrichment_provider_use'] loop
        execute format('drop policy if exists enrichment_browser on %I', relation);
        -- Asked for once a statement, not once a row; without a claim it is null and shows nothing.
        execute format(
            $q$create policy enrichment_browser
                   on %I
                  for select
                   to authenticated
                using (workspace_id =
                       (select nullif(auth.jwt() -> 'app_metadata' ->> 'workspace_id', '')))$q$,
            relation);
        execute format('revoke all on %I from anon, authenticated', relation);
        execute format('grant select on %I to authenticated', relation);
    end loop;
end
$$;

-- The view asks with its caller's rights, so it needs no policy of its own.
revoke all on enrichment_job_attempts from anon, authenticated;
grant select on enrichment_job_attempts to authenticated;

-- PostgREST offers every function in `public` as /rpc/…: none of these is for browsers.
do $$
declare
    one regprocedure;
begin
    for one in select oid
                 from pg_proc
                where pronamespace = current_schema()::regnamespace
                  and proname like 'enrichment\_%'
    loop
        execute format('revoke execute on function %s from public, anon, authenticated', one);
    end loop;
end
$$;
