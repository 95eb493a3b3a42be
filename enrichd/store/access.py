"""What the login of DATABASE_URL may do and what holds the API to one workspace, for `doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import LiteralString

from enrichd.store.database import Connection


@dataclass(frozen=True, slots=True)
class Access:
    """How row level security stands, seen by this login."""

    login: str
    owner: str
    """Of the table of jobs."""
    is_blind: bool
    """Whether no policy shows this login the jobs."""
    missing_roles: Sequence[str]
    may_become_api: bool
    api_bypasses: bool
    """Whether the API's role is one that no policy holds."""
    untenanted: Sequence[str]
    """Tables that should show the API a workspace's rows and have no policy that does."""
    unprotected: Sequence[str]
    """Tables without forced row level security, or without any policy."""


READ: LiteralString = """
    with api as (
        select oid, rolsuper or rolbypassrls as bypasses,
               pg_has_role(oid, case when current_setting('server_version_num')::int >= 160000
                                     then 'set' else 'member' end) as may_be_set
          from pg_roles
         where rolname = 'enrichd_api'
    ),
    policy as (
        select polrelid, polname, polroles from pg_policy
    )
    select current_user::text,
           (select pg_get_userbyid(relowner)::text
              from pg_class
             where oid = 'enrichment_jobs'::regclass),
           not has_table_privilege('enrichment_jobs', 'select')
           or row_security_active('enrichment_jobs')
           and not exists (select 1
                             from policy
                            cross join unnest(polroles) as role
                            where polrelid = 'enrichment_jobs'::regclass
                              and polname = 'enrichment_daemon'
                              and pg_has_role(role, 'usage')),
           array(select wanted
                   from unnest(array['enrichd_api', 'enrichd_worker']) as wanted
                  where to_regrole(wanted) is null),
           coalesce((select may_be_set from api), false),
           coalesce((select bypasses from api), false),
           array(select relname::text
                   from pg_class
                  where relnamespace = (select relnamespace
                                          from pg_class
                                         where oid = 'enrichment_jobs'::regclass)
                    and starts_with(relname::text, 'enrichment_')
                    and relkind in ('r', 'p')
                    and not (relrowsecurity and relforcerowsecurity
                             and exists (select 1 from policy where polrelid = pg_class.oid))
                  order by relname)
"""


# Apart, because a login that sees nothing may not ask this.
UNTENANTED: LiteralString = """
    select relation
      from enrichment_access
     where rule <> 'daemon'
       and to_regclass(relation) is not null
       and not exists (select 1
                         from pg_policy
                        where polrelid = to_regclass(relation)
                          and polname = 'enrichment_tenant'
                          and to_regrole('enrichd_api') = any(polroles))
     order by relation
"""


async def read(conn: Connection) -> Access:
    """Return how access stands."""
    row = await (await conn.execute(READ)).fetchone()
    assert row is not None
    login, owner, is_blind, missing_roles, may_become_api, api_bypasses, unprotected = row
    untenanted: list[str] = []
    if not is_blind:
        untenanted = [relation async for (relation,) in await conn.execute(UNTENANTED)]
    return Access(
        login,
        owner,
        is_blind,
        missing_roles,
        may_become_api,
        api_bypasses,
        untenanted,
        unprotected,
    )
