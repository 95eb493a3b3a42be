"""The policies for browsers, on a server with Supabase's roles and a stand-in `auth` schema.

PostgREST logs in as `authenticator`, becomes the token's role and puts its claims into
`request.jwt.claims`, all for one transaction: so do the tests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from enrichd.store import migrate
from tests.support import postgres

SQL = (Path(__file__).parents[2] / "ecosystem/supabase/row_level_security.sql").read_text()

# As Supabase sets a project up: `postgres` is no superuser, and everything made in `public` is
# everybody's until row level security says otherwise.
PROJECT = """
    create role anon nologin noinherit;
    create role authenticated nologin noinherit;
    create role service_role nologin noinherit bypassrls;
    create role authenticator login noinherit;
    grant anon, authenticated, service_role to authenticator;
    create role postgres login createrole createdb bypassrls;
    grant anon, authenticated, service_role to postgres;
    grant all on schema public to postgres;
    grant usage on schema public to anon, authenticated, service_role;
    alter default privileges for role postgres in schema public
        grant all on tables to anon, authenticated, service_role;
    alter default privileges for role postgres in schema public
        grant all on functions to anon, authenticated, service_role;
    alter default privileges for role postgres in schema public
        grant all on sequences to anon, authenticated, service_role;
    create schema auth;
    grant usage on schema auth to anon, authenticated, service_role, postgres;
    create function auth.jwt() returns jsonb language sql stable
        return nullif(current_setting('request.jwt.claims', true), '')::jsonb;
"""

SHOWN = [
    "enrichment_attempt_log",
    "enrichment_job_attempts",
    "enrichment_job_items",
    "enrichment_jobs",
    "enrichment_provider_use",
]


REFUSED = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.ObjectNotInPrerequisiteState,  # The view: nobody writes to it.
    psycopg.errors.WrongObjectType,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres.throw_away_server(tmp_path_factory.mktemp("supabase") / "server") as running:
        with psycopg.connect(running.dsn, autocommit=True) as conn:
            conn.execute(PROJECT.encode())
        yield running.dsn


def as_login(dsn: str, login: str) -> str:
    parts = urlsplit(dsn)
    return parts._replace(netloc=f"{login}@{parts.netloc.rpartition('@')[2]}").geturl()


@pytest.fixture(scope="module")
def project(server: str) -> str:
    """Give a migrated project with jobs of two workspaces, and the file run twice."""
    dsn = as_login(server, "postgres")
    asyncio.run(migrate.apply_at(dsn))
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("""
            insert into enrichment_jobs
                   (id, workspace_id, type, payload, status, worker_id, attempts)
            select gen_random_uuid(), workspace, 't', '{}', 'processing', gen_random_uuid(), 1
              from unnest(array['acme', 'acme', 'other', '']) as workspace;
            insert into enrichment_job_items (job_id, item_key, workspace_id, status)
            select id, 'a', workspace_id, 'completed' from enrichment_jobs;
            insert into enrichment_attempt_log (job_id, workspace_id, attempt, outcome)
            select id, workspace_id, 1, 'retry' from enrichment_jobs;
            insert into enrichment_provider_use (day, workspace_id, provider_id, operation)
            select distinct current_date, workspace_id, 'hunter', 'email' from enrichment_jobs;
        """)
        conn.execute(SQL.encode())
        conn.execute(SQL.encode())
    return dsn


Browser = Callable[..., Any]


@pytest.fixture
def browser(server: str, project: str) -> Browser:
    """Give `browser(claims)`: a connection inside a request with that token, None for none."""

    @contextmanager
    def request(claims: Any) -> Iterator[psycopg.Connection]:
        role = "anon" if claims is None else "authenticated"
        with psycopg.connect(as_login(server, "authenticator")) as conn:
            conn.execute(
                "select set_config('role', %s, true), set_config('request.jwt.claims', %s, true)",
                [role, "" if claims is None else json.dumps(claims)],
            )
            yield conn

    return request


def claims_of(workspace_id: object) -> dict[str, Any]:
    return {"role": "authenticated", "app_metadata": {"workspace_id": workspace_id}}


def read(conn: psycopg.Connection, what: str, relation: str) -> list[Any]:
    return conn.execute(f"select {what} from {relation}".encode()).fetchall()  # noqa: S608


@pytest.mark.parametrize("relation", SHOWN)
def test_a_user_reads_the_own_workspace_and_no_other(browser, relation):
    with browser(claims_of("acme")) as conn:
        seen = read(conn, "distinct workspace_id", relation)
    assert seen == [("acme",)]


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"app_metadata": {}},
        {"app_metadata": None},
        claims_of(""),
        claims_of(None),
        claims_of(["acme"]),
        claims_of({"workspace_id": "acme"}),
        claims_of("nobody"),
        {"user_metadata": {"workspace_id": "acme"}},
        {"workspace_id": "acme"},
    ],
)
def test_a_token_without_a_workspace_shows_nothing(browser, claims):
    with browser(claims) as conn:
        for relation in SHOWN:
            assert read(conn, "1", relation) == []


def test_the_gateways_own_setting_is_not_the_browsers(browser):
    with browser(claims_of("acme")) as conn:
        conn.execute("select set_config('enrichd.workspace_id', 'other', true)")
        assert conn.execute("select distinct workspace_id from enrichment_jobs").fetchall() == [
            ("acme",)
        ]


def relations(project: str) -> list[str]:
    with psycopg.connect(project) as conn:
        rows = conn.execute("""
            select relname::text from pg_class
             where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')
        """).fetchall()
    return [name for (name,) in rows]


def test_anon_may_nothing_and_a_user_read_nothing_else(browser, project):
    for relation in relations(project):
        for claims in (None, claims_of("acme")):
            if claims and relation in SHOWN:
                continue
            with (
                browser(claims) as conn,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                read(conn, "1", relation)


@pytest.mark.parametrize("verb", ["insert into {} default values", "delete from {}", "truncate {}"])
def test_a_user_writes_nothing(browser, project, verb):
    for relation in relations(project):
        with (
            browser(claims_of("acme")) as conn,
            pytest.raises(REFUSED),
        ):
            conn.execute(verb.format(relation).encode())


@pytest.mark.parametrize("relation", SHOWN)
def test_a_user_changes_not_even_the_own_rows(browser, relation):
    for statement in (
        f"update {relation} set workspace_id = 'other'",  # noqa: S608 - made of constants
        f"insert into {relation} (workspace_id) values ('acme')",  # noqa: S608
    ):
        with browser(claims_of("acme")) as conn, pytest.raises(REFUSED):
            conn.execute(statement.encode())


@pytest.mark.parametrize("claims", [None, claims_of("acme")])
def test_no_function_can_be_called_from_a_browser(browser, project, claims):
    with psycopg.connect(project) as conn:
        names = conn.execute("""
            select oid::regprocedure::text from pg_proc
             where pronamespace = 'public'::regnamespace and proname like 'enrichment%'
        """).fetchall()
    assert len(names) > 20
    with browser(claims) as conn:
        for (name,) in names:
            [allowed] = conn.execute(
                "select has_function_privilege(%s::regprocedure, 'execute')", [name]
            ).fetchone()
            assert not allowed, name


def test_the_gateway_still_enqueues_after_it(project):
    with psycopg.connect(project) as conn:
        conn.execute(
            "select set_config('role', 'enrichd_api', true),"
            " set_config('enrichd.workspace_id', 'acme', true)"
        )
        assert conn.execute("select enrichment_enqueue('t', '{}', 'acme')").fetchone()


def test_elsewhere_the_file_says_what_it_is_for(database_url):
    with (
        psycopg.connect(database_url, autocommit=True) as conn,
        pytest.raises(psycopg.errors.RaiseException, match="Supabase"),
    ):
        conn.execute(SQL.encode())
