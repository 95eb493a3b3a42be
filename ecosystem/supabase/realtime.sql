-- Live updates by Supabase Realtime: who may listen to which topic. Run it once in the project's SQL
-- editor, or keep it among your own migrations; it can be run again.
--
-- enrichd broadcasts each workspace's updates on the private topic `enrichment_updates:<workspace>`.
-- A signed-in user hears the topic of the workspace that stands in the token's app_metadata, which
-- only your server can write (user_metadata is the user's own to change: never decide by it):
--
--     update auth.users
--        set raw_app_meta_data = raw_app_meta_data || '{"workspace_id": "acme"}'
--      where id = '…';
--
-- Nobody but the server may send: there is no policy for insert. Realtime reads policies when a
-- client joins and when its token is renewed, so a user who changes workspace joins anew.

do $$
begin
    if to_regclass('realtime.messages') is null then
        raise exception 'this database has no realtime.messages: it is for Supabase projects';
    end if;
end
$$;

alter table realtime.messages enable row level security;

drop policy if exists enrichment_updates_listen on realtime.messages;
create policy enrichment_updates_listen
    on realtime.messages
   for select
    to authenticated
 using (
    realtime.messages.extension = 'broadcast'
    and nullif((select auth.jwt()) -> 'app_metadata' ->> 'workspace_id', '') is not null
    and (select realtime.topic())
        = 'enrichment_updates:' || ((select auth.jwt()) -> 'app_metadata' ->> 'workspace_id')
 );

-- The daemon logs in as a role of its own, which may send by SQL; without this it uses the REST
-- interface. Put your role's name in place of enrichd.
--
--     grant usage on schema realtime to enrichd;
--     grant execute on function realtime.send(jsonb, text, text, boolean) to enrichd;
