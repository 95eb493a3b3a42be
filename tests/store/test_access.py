"""Migrating and working as whoever a database belongs to: superuser, owner, a login of its own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import psycopg
import pytest
from uuid_utils.compat import uuid7

from enrichd.ctl.access_checks import access_checks
from enrichd.ctl.checks import Status
from enrichd.domain.jobs import NewJob
from enrichd.errors import Unavailable
from enrichd.queue.manager import JobQueueManager
from enrichd.store import access, bulk, migrate
from enrichd.store.database import Database
from enrichd.store.jobs import Ended
from enrichd.store.tenancy import Tenants
from tests.support import job_types, postgres
from tests.support.factories import open_plan

pytestmark = pytest.mark.queue

PASSWORD = "not-a-secret"


def as_login(dsn: str, login: str) -> str:
    """Return the same database's address for another login."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{quote(login)}:{PASSWORD}@{host}").geturl()


def an_owned_database(server: str, *rights: str) -> str:
    """Return the address of an empty database that a new login owns."""
    login = f"Owner {uuid7().hex[-8:]}"
    name = postgres.create_template(server, lambda dsn: None)
    run(
        server,
        f"create role \"{login}\" login password '{PASSWORD}' {' '.join(rights)}",
        f'alter database {name} owner to "{login}"',
    )
    run(postgres.dsn_of(server, name), f'grant all on schema public to "{login}"')
    return as_login(postgres.dsn_of(server, name), login)


def run(dsn: str, *statements: str) -> None:
    """Run statements as the server's superuser."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


@pytest.fixture
def bare_server(tmp_path: Path, admin_dsn: str) -> Iterator[str]:
    """Give a server of the same programs where nobody has made the roles yet."""
    with psycopg.connect(admin_dsn) as conn:
        row = conn.execute("select setting from pg_config where name = 'BINDIR'").fetchone()
    assert row is not None
    with postgres.throw_away_server(tmp_path / "server", Path(row[0])) as server:
        yield server.dsn


@pytest.fixture
def plain_dsn(admin_dsn: str, template: str) -> Iterator[str]:
    """Give an owner without any right on the server where the roles are there."""
    dsn = an_owned_database(admin_dsn)
    yield dsn
    postgres.drop_database(admin_dsn, dsn)
    login = unquote(urlsplit(dsn).username or "")
    run(admin_dsn, f'drop owned by "{login}" cascade', f'drop role "{login}"')


async def a_whole_life(dsn: str) -> None:
    """Enqueue one and many, claim, record: as a daemon does."""
    job_types.reset()
    database = Database(dsn)
    queue = JobQueueManager(database)
    await queue.enqueue(NewJob("empty", {}, workspace_id="ours"))
    await queue.enqueue_many([NewJob("empty", {}, workspace_id="theirs")] * 600)
    async with database.connection() as conn:
        plan = await open_plan(conn, 1000)
    worker_id = uuid7()
    turn = await queue.turn(worker_id=worker_id, ended=[], plan=plan, room=500)
    assert len(turn.claimed) == 500
    ended = [Ended(str(one.id), one.attempt, "completed", "completed") for one in turn.claimed]
    turn = await queue.turn(worker_id=worker_id, ended=ended, plan=plan, room=500)
    assert len(turn.claimed) == 101
    await database.close()


async def seen_by(dsn: str, workspace_id: str) -> int:
    """Return how many jobs the API sees."""
    tenants = Tenants(Database(dsn), size=1)
    try:
        async with tenants.of(workspace_id) as conn:
            row = await (await conn.execute("select count(*) from enrichment_jobs")).fetchone()
            assert row is not None
            return int(row[0])
    finally:
        await tenants.close()


async def checked(dsn: str) -> dict[str, tuple[Status, str]]:
    """Return what doctor says, (status, hint) by check."""
    database = Database(dsn)
    async with database.connection() as conn:
        found = await access.read(conn)
    await database.close()
    return {check.name: (check.status, check.hint or "") for check in access_checks(found)}


FINE = {"daemon_role": Status.OK, "api_role": Status.OK}


async def statuses(dsn: str) -> dict[str, Status]:
    return {name: status for name, (status, _) in (await checked(dsn)).items()}


async def hints_of(dsn: str) -> str:
    return " ".join(hint for _, hint in (await checked(dsn)).values())


def told_statements(hints: str) -> dict[str, list[str]]:
    """Return the statements of doctor's hints by who is to run them."""
    told: dict[str, list[str]] = {"superuser": [], "owner": []}
    for part in re.split(r"(?=As a superuser:|As Owner|Then, as Owner)", hints):
        who = "superuser" if part.startswith("As a superuser") else "owner"
        told[who] += re.findall(r"(?:create|grant|select|alter) [^;]*;", part)
    return told


async def test_an_owner_who_may_create_roles_needs_nobody(bare_server):
    dsn = an_owned_database(bare_server, "createrole")
    await migrate.apply_at(dsn)

    await a_whole_life(dsn)

    assert await seen_by(dsn, "ours") == 1
    assert await seen_by(dsn, "nobody") == 0
    assert await statuses(dsn) == FINE


async def test_an_owner_who_may_create_none_runs_jobs_and_doctor_says_what_the_api_lacks(
    bare_server,
):
    dsn = an_owned_database(bare_server)
    await migrate.apply_at(dsn)

    await a_whole_life(dsn)
    with pytest.raises(Unavailable, match="role"):
        await seen_by(dsn, "ours")
    assert await statuses(dsn) == {"daemon_role": Status.OK, "api_role": Status.WARN}

    told = told_statements(await hints_of(dsn))
    run(bare_server, *told["superuser"])
    assert told["owner"] == ["select enrichment_secure();"]
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in told["owner"]:
            conn.execute(statement.encode())
    assert await statuses(dsn) == FINE
    assert await seen_by(dsn, "ours") == 1
    await a_whole_life_again(dsn)


async def a_whole_life_again(dsn: str) -> None:
    database = Database(dsn)
    await JobQueueManager(database).enqueue_many([NewJob("empty", {})] * 3)
    await database.close()


async def test_an_owner_where_the_roles_are_somebody_elses_is_told_which_grant_is_missing(
    admin_dsn, plain_dsn
):
    await migrate.apply_at(plain_dsn)
    await a_whole_life(plain_dsn)
    with pytest.raises(Unavailable, match="permission denied"):
        await seen_by(plain_dsn, "ours")

    run(admin_dsn, *told_statements(await hints_of(plain_dsn))["superuser"])

    assert await statuses(plain_dsn) == FINE
    assert await seen_by(plain_dsn, "ours") == 1


async def test_a_daemon_with_a_login_of_its_own_needs_one_grant(admin_dsn, database_url, database):
    login = f"daemon_{uuid7().hex[-8:]}"
    run(admin_dsn, f"create role {login} login password '{PASSWORD}'")
    dsn = as_login(database_url, login)
    try:
        assert (await statuses(dsn))["daemon_role"] is Status.FAIL
        run(admin_dsn, f"grant enrichd_worker to {login}")

        await a_whole_life(dsn)

        assert await statuses(dsn) == FINE
        assert await seen_by(dsn, "ours") == 1
    finally:
        run(admin_dsn, f"drop role {login}")


async def test_a_role_that_bypasses_is_a_failure_not_a_warning(bare_server):
    dsn = an_owned_database(bare_server, "createrole")
    await migrate.apply_at(dsn)
    run(bare_server, "alter role enrichd_api bypassrls")
    assert (await statuses(dsn))["api_role"] is Status.FAIL
    run(
        postgres.dsn_of(bare_server, urlsplit(dsn).path[1:]),
        "alter role enrichd_api nobypassrls",
        "alter table enrichment_lanes no force row level security",
    )
    status, hint = (await checked(dsn))["api_role"]
    assert (status, "enrichment_secure" in hint) == (Status.FAIL, True)


async def test_four_databases_of_a_new_cluster_are_migrated_at_once(bare_server):
    owners = [an_owned_database(bare_server, "superuser") for _ in range(4)]

    await asyncio.gather(*[migrate.apply_at(dsn) for dsn in owners])

    assert [await statuses(dsn) for dsn in owners] == [FINE] * 4


async def test_a_database_that_changed_hands_is_set_up_again_in_one_call(
    admin_dsn, database_url, plain_dsn
):
    owner = unquote(urlsplit(plain_dsn).username or "")
    theirs = as_login(database_url, owner)
    with psycopg.connect(database_url) as conn:
        names = conn.execute("select relation from enrichment_access").fetchall()
    kinds = [("table", name) for (name,) in names] + [("view", "enrichment_job_attempts")]
    run(
        database_url,
        *(f'alter {kind} {name} owner to "{owner}"' for kind, name in kinds),
        f'grant all on schema public to "{owner}"',
        f'grant execute on all functions in schema public to "{owner}"',
    )
    try:
        assert (await statuses(theirs))["daemon_role"] is Status.FAIL
        run(database_url, "select enrichment_secure()", "select enrichment_secure()")
        assert await statuses(theirs) == FINE
        await a_whole_life(theirs)
    finally:
        run(database_url, f'reassign owned by "{owner}" to current_user')
        run(database_url, f'revoke all on schema public from "{owner}"')
        run(database_url, f'revoke execute on all functions in schema public from "{owner}"')
        run(database_url, "select enrichment_secure()")


async def test_copy_is_left_to_those_whom_no_policy_holds(plain_dsn):
    await migrate.apply_at(plain_dsn)
    with (
        psycopg.connect(plain_dsn) as conn,
        pytest.raises(psycopg.errors.FeatureNotSupported),
        conn.cursor().copy(bulk.COPY.encode()) as copy,
    ):
        copy.write("")
