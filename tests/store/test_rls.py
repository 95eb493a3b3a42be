"""Row level security: no table is forgotten, no workspace sees another, nothing outlives its
transaction."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import suppress

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from enrichd.errors import Invalid
from enrichd.store import job_reads, new_jobs
from enrichd.store.database import Connection, Database, storing
from enrichd.store.new_jobs import Row
from enrichd.store.tenancy import Tenants
from tests.support.factories import a_job

pytestmark = pytest.mark.queue

OURS, THEIRS = "ours", "theirs"

TABLES = """
    select relname, relrowsecurity, relforcerowsecurity,
           (select coalesce(array_agg(distinct cmd order by cmd), '{}')
              from pg_policies as policy
             where policy.schemaname = 'public'
               and policy.tablename = relname)
      from pg_class
     where relnamespace = 'public'::regnamespace
       and relkind in ('r', 'p')
     order by relname
"""


async def column(conn: Connection, query: str) -> list[object]:
    """Return a query's first column."""
    cursor = await conn.execute(query.encode())
    return [row[0] for row in await cursor.fetchall()]


async def names(conn: Connection) -> list[str]:
    """Return every table's name."""
    return [row[0] for row in await (await conn.execute(TABLES)).fetchall()]


@pytest.fixture
async def tenants(database_url: str) -> AsyncIterator[Tenants]:
    """Give three connections for workspaces."""
    opened = Tenants(Database(database_url, name="test tenants"), size=3)
    yield opened
    await opened.close()


@pytest.fixture
async def two_jobs(conn: Connection):
    """Give a job of each of two workspaces, (ours, theirs)."""
    return (
        await a_job(conn, workspace_id=OURS, payload={"secret": "ours"}),
        await a_job(conn, workspace_id=THEIRS, payload={"secret": "theirs"}),
    )


async def a_row_in_every_table(conn: Connection, workspace_id: str) -> None:
    """Put a row of a workspace into every table that has workspaces: plausible, by column type."""
    plausible = {
        "text": "x",
        "bytea": b"x" * 32,
        "uuid": None,
        "text[]": ["read"],
        "bytea[]": [b"x"],
        "jsonb": Jsonb([]),
        "date": "2026-01-01",
        "timestamp with time zone": "2026-01-01 00:00+00",
    }
    by_column = {
        ("enrichment_api_keys", "id"): f"{abs(hash(workspace_id)) % 10**8:08d}",
        ("enrichment_attempt_log", "outcome"): "retry",
        ("enrichment_callbacks", "token_hash"): workspace_id.encode(),
        ("enrichment_incoming_events", "event_id"): workspace_id,
        ("enrichment_job_items", "status"): "failed",
        ("enrichment_suppressions", "reason"): "by_hand",
    }
    cursor = await conn.execute("""
        select tables.relname, columns.attname, format_type(columns.atttypid, null)
          from pg_class as tables
          join pg_attribute as columns on columns.attrelid = tables.oid
         where tables.relnamespace = 'public'::regnamespace
           and tables.relkind = 'r'
           and columns.attnum > 0
           and columns.attnotnull
           and not columns.atthasdef
           and columns.attidentity = ''
           and exists (select from pg_attribute as workspace
                        where workspace.attrelid = tables.oid
                          and workspace.attname = 'workspace_id')
    """)
    required: dict[str, dict[str, object]] = {}
    for table, name, kind in await cursor.fetchall():
        values = required.setdefault(table, {"workspace_id": workspace_id})
        if name != "workspace_id":
            value = uuid7() if kind == "uuid" else plausible.get(kind, 1)
            values[name] = by_column.get((table, name), value)
    required["enrichment_jobs"]["workspace_id"] = workspace_id
    required["enrichment_callbacks"]["job_id"] = uuid7()
    for table, values in required.items():
        await conn.execute(
            sql.SQL("insert into {} ({}) values ({})").format(
                sql.Identifier(table),
                sql.SQL(", ").join(map(sql.Identifier, values)),
                sql.SQL(", ").join(sql.Placeholder() * len(values)),
            ),
            list(values.values()),
        )


# The catalogue.


async def test_every_table_has_row_level_security_forced_and_a_policy_for_every_command(conn):
    found = await (await conn.execute(TABLES)).fetchall()

    assert len(found) > 20
    assert {row for row in map(tuple_of, found) if row[1:] != (True, True, ("ALL",))} == set()


def tuple_of(row):
    return (*row[:3], tuple(row[3]))


async def test_every_table_has_its_rule(conn):
    assert sorted(await column(conn, "select relation from enrichment_access")) == await names(conn)


async def test_every_table_with_workspaces_is_held_to_them(conn):
    free = await column(
        conn,
        """
        select relation
          from enrichment_access
         where (rule = 'workspace') <> exists (
                   select from pg_attribute
                    where attrelid = relation::regclass and attname = 'workspace_id')
        """,
    )
    assert free == []


async def test_the_gateways_role_can_bypass_nothing(conn):
    cursor = await conn.execute("""
        select rolname, rolcanlogin, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb,
               exists (select from pg_class where relowner = pg_roles.oid)
          from pg_roles
         where rolname in ('enrichd_api', 'enrichd_worker')
         order by rolname
    """)
    assert await cursor.fetchall() == [
        ("enrichd_api", False, False, False, False, False, False),
        ("enrichd_worker", False, False, False, False, False, False),
    ]
    assert (
        await column(
            conn,
            """
        select roleid::regrole::text from pg_auth_members where member = 'enrichd_api'::regrole
    """,
        )
        == []
    )


async def test_nobody_may_truncate_refer_or_trigger_and_the_public_may_nothing(conn):
    granted = await column(
        conn,
        """
        select relname || ' ' || coalesce(nullif(acl.grantee, 0)::regrole::text, 'public')
               || ' ' || acl.privilege_type
          from pg_class
         cross join lateral aclexplode(relacl) as acl
         where relnamespace = 'public'::regnamespace
           and acl.grantee <> relowner
           and (acl.grantee not in ('enrichd_api'::regrole, 'enrichd_worker'::regrole)
                or acl.privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE'))
    """,
    )
    assert granted == []


async def test_every_view_asks_as_its_caller(conn):
    if conn.info.server_version < 150000:
        pytest.skip("such views came with PostgreSQL 15; the predicate has its own test")
    assert (
        await column(
            conn,
            """
        select relname
          from pg_class
         where relnamespace = 'public'::regnamespace
           and (relkind = 'm' or relkind = 'v'
                and not coalesce('security_invoker=true' = any(reloptions), false))
    """,
        )
        == []
    )


async def test_a_function_with_its_owners_rights_would_need_a_search_path(conn):
    assert (
        await column(
            conn,
            """
        select proname
          from pg_proc
         where pronamespace = 'public'::regnamespace
           and prosecdef
           and not coalesce(array_to_string(proconfig, ' ') like '%search_path=%', false)
    """,
        )
        == []
    )


async def test_only_what_enqueue_needs_can_be_called_by_everybody(conn):
    assert await column(
        conn,
        """
        select proname::text
          from pg_proc
         where pronamespace = 'public'::regnamespace
           and has_function_privilege('public', oid, 'execute')
         order by 1
    """,
    ) == [
        "enrichment_enqueue",
        "enrichment_enqueue_job",
        "enrichment_lane_of",
        "enrichment_rank_base",
        "enrichment_tell_created",
        "enrichment_uuid7",
        "enrichment_webhook_targets",
    ]


async def test_a_table_that_comes_later_is_protected_in_one_line(conn, tenants):
    await conn.execute("create table enrichment_later (id integer, workspace_id text)")
    await conn.execute("insert into enrichment_later values (1, 'ours'), (2, 'theirs')")
    await conn.execute("select enrichment_protect('enrichment_later', 'workspace', 'select')")

    async with tenants.of(OURS) as ours:
        assert await column(ours, "select id from enrichment_later") == [1]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with tenants.of(OURS) as ours:
            await ours.execute("delete from enrichment_later")


# What a workspace sees and may do.


async def test_of_every_table_a_workspace_sees_its_own_rows_or_may_not_ask(conn, tenants):
    await a_row_in_every_table(conn, OURS)
    await a_row_in_every_table(conn, THEIRS)
    cursor = await conn.execute("select relation, rule, api_grants from enrichment_access")
    for table, rule, grants in await cursor.fetchall():
        ask = sql.SQL("select {} from {}").format(
            sql.SQL("workspace_id" if rule == "workspace" else "count(*)"), sql.Identifier(table)
        )
        with suppress(psycopg.errors.InsufficientPrivilege):
            async with tenants.of(OURS) as ours:
                seen = [row[0] for row in await (await ours.execute(ask)).fetchall()]
                assert "select" in grants, f"{table} must not be readable"
                assert rule == "lane" or seen == [OURS], table
            continue
        assert "select" not in grants, f"{table} must be readable"


@pytest.mark.parametrize("workspace_id", ["", "nobody", "our", "ours ", "OURS", "%"])
async def test_without_a_workspace_there_is_nothing(conn, tenants, two_jobs, workspace_id):
    async with tenants.of(workspace_id) as nobody:
        assert await column(nobody, "select id from enrichment_jobs") == []
        assert (await nobody.execute("update enrichment_jobs set priority = 1")).rowcount == 0
        assert (await nobody.execute("delete from enrichment_jobs")).rowcount == 0
        assert await column(nobody, "select job_id from enrichment_job_attempts") == []


async def test_a_setting_that_was_never_made_shows_nothing(conn, two_jobs):
    async with conn.transaction():
        await conn.execute("set local role enrichd_api")
        assert await column(conn, "select id from enrichment_jobs") == []


async def test_another_workspaces_job_cannot_be_read_changed_moved_or_deleted(tenants, two_jobs):
    mine, other = two_jobs
    async with tenants.of(OURS) as conn:
        for statement in (
            "select 1 from enrichment_jobs where id = %s",
            "select 1 from enrichment_job_attempts where job_id = %s",
            "select 1 from enrichment_jobs where id = %s for update",
            "update enrichment_jobs set priority = 1 where id = %s",
            "update enrichment_jobs set workspace_id = 'ours' where id = %s",
            "delete from enrichment_jobs where id = %s",
        ):
            assert (await conn.execute(statement.encode(), [other.id])).rowcount == 0, statement
        assert await column(conn, "select payload ->> 'secret' from enrichment_jobs") == ["ours"]
    for statement in (
        "update enrichment_jobs set workspace_id = 'theirs' where id = %s",
        """insert into enrichment_jobs (id, workspace_id, type, payload)
           select gen_random_uuid(), 'theirs', 't', '{}' from enrichment_jobs where id = %s""",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            async with tenants.of(OURS) as conn:
                await conn.execute(statement.encode(), [mine.id])


async def test_on_conflict_neither_changes_nor_shows_another_workspaces_row(tenants, two_jobs):
    _, other = two_jobs
    with pytest.raises(psycopg.errors.InsufficientPrivilege) as caught:
        async with tenants.of(OURS) as conn:
            await conn.execute(
                """
                insert into enrichment_jobs (id, workspace_id, type, payload)
                values (%s, 'ours', 't', '{}')
                    on conflict (id) do update set payload = excluded.payload
                """,
                [other.id],
            )
    assert "theirs" not in str(caught.value)


async def test_the_views_rows_are_the_workspaces_own(conn, tenants):
    for workspace_id in (OURS, THEIRS):
        await a_job(conn, workspace_id=workspace_id, status="processing")

    async with tenants.of(OURS) as ours:
        shown = await column(ours, "select workspace_id from enrichment_job_attempts")

    assert shown == [OURS]


async def test_the_pepper_and_the_keys_cannot_be_read(conn, tenants):
    for statement in (
        "select pepper from enrichment_installation",
        "select sealed from enrichment_provider_keys",
        "select key_hash from enrichment_api_keys",
        "select email_hmac from enrichment_suppressions",
        "truncate enrichment_jobs",
        "select enrichment_secure()",
        "select enrichment_protect('enrichment_jobs', 'daemon')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with tenants.of(OURS) as ours:
                await ours.execute(statement.encode())


async def test_a_lane_of_another_workspaces_own_key_is_hidden(conn, tenants):
    await conn.execute("""
        insert into enrichment_lanes (provider_id, priority)
        values ('hunter', 3), ('hunter#ours', 3), ('hunter#theirs', 3), ('hunter#theirs#ours', 3)
    """)
    async with tenants.of(OURS) as ours:
        seen = await column(ours, "select provider_id from enrichment_lanes order by 1")
    assert seen == ["hunter", "hunter#ours"]


async def test_copy_out_shows_the_workspaces_own_rows_alone(tenants, two_jobs):
    told = io.BytesIO()
    async with (
        tenants.of(OURS) as ours,
        ours.cursor() as cursor,
        cursor.copy("copy (select payload from enrichment_jobs) to stdout") as copy,
    ):
        async for piece in copy:
            told.write(piece)
    assert b'"ours"' in told.getvalue()
    assert b"theirs" not in told.getvalue()


async def test_a_plan_tells_nothing_of_how_many_rows_others_have(conn, tenants):
    await conn.execute("""
        insert into enrichment_jobs (id, workspace_id, type, payload)
        select gen_random_uuid(), 'theirs', 't', '{}' from generate_series(1, 2000)
    """)
    async with tenants.of(OURS) as ours:
        cursor = await ours.execute("explain (analyze, format text) select * from enrichment_jobs")
        plan = "\n".join([row[0] async for row in cursor])
    assert "theirs" not in plan
    assert "Rows Removed by Filter: 2000" not in plan or "InitPlan" in plan


# Oracles.


def a_row(**fields: object) -> Row:
    """Return a job as the store takes it."""
    values: dict[str, object] = {
        "id": uuid7(),
        "workspace_id": OURS,
        "type": "t",
        "priority": 3,
        "provider_id": "-",
        "payload": "{}",
        "tags": (),
        "max_retries": 3,
        "cost": 1,
        "webhook_url": None,
        "idempotency_key": None,
        "scheduled_at": None,
        "delay_s": None,
    }
    return Row(**{**values, **fields})  # type: ignore[arg-type]


async def test_an_idempotency_key_is_a_workspaces_own(conn, tenants):
    theirs = await a_job(conn, workspace_id=THEIRS, idempotency_key="order-1")

    async with tenants.of(OURS) as ours:
        done = await new_jobs.enqueue(ours, a_row(idempotency_key="order-1"))

    assert done.is_new
    assert done.id != theirs.id


@pytest.mark.parametrize("many", [False, True])
async def test_an_id_that_another_workspace_has_is_refused_without_a_word_about_it(
    tenants, two_jobs, many
):
    _, theirs = two_jobs
    row = a_row(id=theirs.id)
    with pytest.raises(Invalid) as caught:
        async with tenants.of(OURS) as ours:
            await storing(
                (lambda: new_jobs.enqueue_many(ours, [row, a_row()]))
                if many
                else (lambda: new_jobs.enqueue(ours, row))
            )
    assert str(theirs.id) in caught.value.message
    for word in ("theirs", "key", "unique", "Key (", "DETAIL"):
        assert word not in f"{caught.value.message} {caught.value.hint}"


async def test_what_postgresql_says_in_detail_stays_out_of_the_error(conn, tenants, two_jobs):
    mine, _ = two_jobs
    with pytest.raises(Invalid) as caught:
        async with tenants.of(OURS) as ours:
            await storing(
                lambda: ours.execute(
                    """
                    insert into enrichment_jobs (id, workspace_id, type, payload)
                    values (%s, 'ours', 't', '{"email": "ada@example.com"}')
                    """,
                    [mine.id],
                )
            )
    assert str(mine.id) not in caught.value.message
    assert "DETAIL" not in caught.value.message


# The end of a transaction is the end of its workspace.

CONTEXT = """
    select current_user = session_user,
           nullif(current_setting('enrichd.workspace_id', true), '') is null
"""


@pytest.fixture
async def two_jobs_elsewhere(database_url: str):
    """Give a job of each of two workspaces, made on a connection that is closed again."""
    own = Database(database_url)
    async with own.connection() as conn:
        found = [await a_job(conn, workspace_id=name) for name in (OURS, THEIRS)]
    await own.close()
    return found


@pytest.mark.parametrize("ending", ["commit", "rollback", "exception", "sql error", "cancel"])
async def test_nothing_of_the_workspace_is_left_on_the_connection(
    database_url, conn, two_jobs_elsewhere, eventually, ending
):
    tenants = Tenants(Database(database_url), size=1)

    async def work() -> None:
        async with tenants.of(OURS) as ours:
            assert len(await column(ours, "select id from enrichment_jobs")) == 1
            match ending:
                case "rollback":
                    await ours.execute("update enrichment_jobs set priority = 1")
                    raise psycopg.Rollback
                case "exception":
                    raise RuntimeError
                case "sql error":
                    await ours.execute("select 1 / 0")
                case "cancel":
                    await ours.execute("select pg_sleep(20)")

    task = asyncio.create_task(work())
    if ending == "cancel":
        # Earlier PostgreSQL would have nothing to cancel yet.
        await eventually(
            lambda: column(
                conn,
                "select pid from pg_stat_activity"
                " where datname = current_database() and wait_event = 'PgSleep'",
            )
        )
        task.cancel()
    with suppress(RuntimeError, psycopg.Error, psycopg.Rollback, asyncio.CancelledError):
        await task

    async with tenants.of_nobody() as nobody:
        assert await (await nobody.execute(CONTEXT)).fetchone() == (True, True)
        assert await column(nobody, "select priority from enrichment_jobs") == [3, 3]
    await tenants.close()


async def test_a_thousand_tasks_of_two_workspaces_on_three_connections_never_mix(
    tenants, two_jobs_elsewhere
):
    async def one(number: int) -> None:
        workspace_id = (OURS, THEIRS)[number % 2]
        with suppress(ZeroDivisionError, psycopg.DataError):
            async with tenants.of(workspace_id) as conn:
                assert await column(conn, "select workspace_id from enrichment_jobs") == [
                    workspace_id
                ]
                if number % 7 == 0:
                    raise ZeroDivisionError
                if number % 11 == 0:
                    await conn.execute("select 1 / 0")
                await asyncio.sleep(0)
                [job] = await (
                    await conn.execute(
                        "update enrichment_jobs set priority = 1 returning workspace_id"
                    )
                ).fetchall()
                assert job == (workspace_id,)

    async with asyncio.TaskGroup() as group:
        for number in range(1000):
            group.create_task(one(number))


async def test_who_asks_by_id_gets_nothing_of_another_workspace_from_the_store(tenants, two_jobs):
    _, theirs = two_jobs
    async with tenants.of(OURS) as conn:
        # Even where a caller mistook the workspace: the policy does not listen to parameters.
        assert await job_reads.get(conn, workspace_id=THEIRS, job_id=theirs.id) is None
