"""What nobody would send: near to each route's own description, and far from it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import random
import re
import string
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from schemathesis import Case, GenerationMode
from schemathesis.config import SchemathesisConfig

from enrichd.api import failed_attempts
from enrichd.api.openapi import document_of
from enrichd.api.routes import ROUTES
from enrichd.api.routing import PREFIX, Access, Route
from enrichd.store.database import Database
from tests.api.conftest import settings_of
from tests.support import postgres
from tests.support.factories import a_job
from tests.support.keys import make_keys, text_of
from tests.support.live_server import served_aside
from tests.support.processes import NO_NETWORK

SECRET = "a-secret-that-cron-knows"
OTHERS_WORD = "zanzibar-belongs-to-team-b"
NOBODYS = "01890a5d-ac96-774b-bcce-b302099a8057"
THEIRS = [f"01890a5d-ac96-774b-bcce-{place:012x}" for place in range(5)]
"""A webhook and four jobs of a workspace that the caller is not of."""
EXAMPLES = 15
LINE_CHARS_MAX = 7_000

FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# Some rules are beyond a schema, a cursor must be ours, a webhook's host public: 422 says which.
ACCEPTED = ["2xx", "3xx", "401", "403", "404", "409", "412", "422", "429"]
CONFIG = SchemathesisConfig.from_dict(
    {"checks": {"positive_data_acceptance": {"expected-statuses": ACCEPTED}}}
)
DOCUMENT = schemathesis.openapi.from_dict(document_of(ROUTES), config=CONFIG)
# A stream of events has no end to wait for; its answers are checked in test_events.
OPERATIONS = [
    found.ok() for found in DOCUMENT.get_all_operations() if not found.ok().path.endswith("/events")
]


@pytest.fixture(scope="module")
def dsn(admin_dsn: str, template: str) -> Iterator[str]:
    """Give a database with rows of a workspace that the caller is not of."""
    dsn = postgres.clone_database(admin_dsn, template)
    asyncio.run(fill(dsn))
    yield dsn
    postgres.drop_database(admin_dsn, dsn)


@pytest.fixture(scope="module")
def base_url(dsn: str) -> Iterator[str]:
    """Give the address of an API that has many tries for strangers."""
    before, failed_attempts.BURST = failed_attempts.BURST, 1_000_000
    variables = {
        **NO_NETWORK,
        "CRON_SECRET": SECRET,
        "PROCESS_TIMEOUT_MAX": "1000",
        "API_RATE_LIMIT_PER_SECOND": "0",
        "API_ACCESS_LOG": "off",
    }
    try:
        with served_aside(settings_of(dsn, **variables)) as port:
            yield f"http://127.0.0.1:{port}"
    finally:
        failed_attempts.BURST = before


async def fill(dsn: str) -> None:
    """Put keys into the database, and what a workspace has that is not the caller's."""
    database = Database(dsn)
    async with database.connection() as conn:
        await make_keys(conn)
        for job_id, status in zip(
            THEIRS[1:], ("pending", "waiting", "completed", "dead_letter"), strict=True
        ):
            await a_job(
                conn,
                id=UUID(job_id),
                workspace_id="team-b",
                status=status,
                tags=[OTHERS_WORD],
                idempotency_key=f"their-{status}",
                webhook_url=f"https://{OTHERS_WORD}.example.com/",
                payload={"emails": [f"{OTHERS_WORD}@example.com"]},
                result={"word": OTHERS_WORD} if status == "completed" else None,
                error={"message": OTHERS_WORD} if status == "dead_letter" else None,
            )
            await conn.execute(
                """
                insert into enrichment_job_items (job_id, item_key, workspace_id, status, result)
                values (%s, %s, 'team-b', 'completed', jsonb_build_object('word', %s::text))
                """,
                [job_id, OTHERS_WORD, OTHERS_WORD],
            )
        await conn.execute(
            """
            insert into enrichment_webhooks (id, workspace_id, url, description, secrets)
            values (%s, 'team-b', %s, %s, '[]')
            """,
            [THEIRS[0], f"https://{OTHERS_WORD}.example.com/", OTHERS_WORD],
        )
    await database.close()


def shown_to(path: str) -> dict[str, str]:
    """Return what lets a caller in."""
    return {"Authorization": f"Bearer {SECRET if path.endswith('/process') else text_of('key-a')}"}


def ways_to_ask() -> Iterator[Any]:
    """Yield every operation, with parts that fit the document and with parts that do not."""
    for operation in OPERATIONS:
        name = f"{operation.method} {operation.path}"
        yield pytest.param(operation, GenerationMode.POSITIVE, id=f"{name} right")
        if operation.body or [*operation.iter_parameters()]:
            yield pytest.param(operation, GenerationMode.NEGATIVE, id=f"{name} wrong")


@pytest.mark.parametrize(("operation", "mode"), [*ways_to_ask()])
def test_every_answer_is_as_the_document_says(base_url, operation, mode):
    @given(case=operation.as_strategy(generation_mode=mode))
    @FUZZ
    def check(case: Case) -> None:
        # A line longer than a server reads never reaches the API.
        assume(len(case.as_curl_command()) < LINE_CHARS_MAX)
        answer = case.call_and_validate(
            base_url=base_url, headers=shown_to(operation.path), timeout=20
        )
        assert_harmless(answer.status_code, answer.text)

    check()


# What would be right if it were the caller's own.

CURSORS = st.sampled_from([*THEIRS, OTHERS_WORD, OTHERS_WORD[:-1]]).map(
    lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
)
ASKED = st.fixed_dictionaries(
    {},
    optional={
        "text": st.sampled_from(["zanzibar", THEIRS[1], "%", "_"]),
        "tag": st.just(OTHERS_WORD),
        "status": st.sampled_from(["pending,waiting", "completed", "dead_letter", "failed"]),
        "createdBefore": st.just("2999-01-01T00:00:00Z"),
        "counts": st.just("true"),
        "cursor": CURSORS,
        "limit": st.just("200"),
        "webhookId": st.just(THEIRS[0]),
        "jobId": st.sampled_from(THEIRS),
        "format": st.sampled_from(["csv", "json"]),
        "dryRun": st.just("true"),
    },
)
TAKEN = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(["cancel", "retry", "delete", "reprioritise"]),
        "ids": st.just(THEIRS),
        "priority": st.integers(1, 5),
        "id": st.sampled_from(THEIRS),
        "jobId": st.sampled_from(THEIRS),
        "event": st.just("done"),
        "data": st.none(),
        "type": st.just("email_validation"),
        "payload": st.just({"emails": ["a@example.com"]}),
        "idempotencyKey": st.just("their-pending"),
        "workspaceId": st.sampled_from(["team-a", "team-b"]),
        "tags": st.just(["mine"]),
        "enabled": st.booleans(),
        "overlapMs": st.just(0),
        "onlyFailed": st.booleans(),
        "since": st.just("2001-01-01T00:00:00Z"),
    },
)


def known_names(model: type[BaseModel]) -> set[str]:
    """Return a model's fields as callers write them."""
    return {field.alias or name for name, field in model.model_fields.items()}


@pytest.mark.parametrize("route", ROUTES, ids=lambda one: f"{one.method} {one.path}")
def test_who_knows_another_workspaces_ids_and_words_gets_nothing_by_them(base_url, dsn, route):
    before = of_team_b(dsn)
    with httpx.Client(timeout=20, limits=httpx.Limits(max_keepalive_connections=1)) as client:

        @given(st.sampled_from(THEIRS), ASKED, TAKEN)
        @FUZZ
        def check(item: str, query: dict[str, str], body: dict[str, Any]) -> None:
            known = known_names(route.query)
            taken = [(name, value) for name, value in query.items() if name in known]
            headers = {"Content-Type": "application/json", "If-Match": "*"}
            send(client, base_url, route, json.dumps(body).encode(), headers, taken, item)

        check()
    # A cron's run is everybody's: it may do the jobs of team-b as well.
    assert route.access is Access.CRON or of_team_b(dsn) == before


def of_team_b(dsn: str) -> list[Any]:
    """Return everything that the other workspace has."""
    tables = ("jobs", "job_items", "webhooks", "webhook_deliveries")
    statement = "select * from enrichment_{} where workspace_id = 'team-b' order by 1"
    with psycopg.connect(dsn) as conn:
        return [conn.execute(statement.format(table).encode()).fetchall() for table in tables]


# Farther away than a schema can be broken.

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63), 2**64, 10**400, 1e308, -1e308, 1e-308])
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(
        ["\x00", "\ud800", "'; drop table x; --", "${7*7}", "../../etc/passwd", "%s%n"]
    )
)
WORDS = [
    "type", "payload", "emails", "priority", "tags", "webhookUrl", "scheduledAt", "id", "ids",
    "action", "url", "events", "maxRetries", "delayMs", "idempotencyKey", "providerId", "jobId",
    "event", "data", "maxJobs", "timeout", "since", "onlyFailed", "overlapMs", "enabled",
]  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=8), inner, max_size=6)
    ),
    max_leaves=20,
)
BODIES = st.one_of(
    TREES.map(lambda tree: json.dumps(tree).encode()),
    st.binary(max_size=200),
    st.sampled_from(
        [
            b"",
            b"{",
            b"[" * 10_000,
            b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
            b"[" + b"1," * 50_000 + b"1]",
            b'{"type": "email_validation", "type": "x", "payload": {"emails": []}}',
            b'{"priority": ' + b"9" * 5_000 + b"}",
            b'{"type": "\\u0000", "payload": {"\\ud800": 1}}',
            b"\xef\xbb\xbf{}",
            b"NaN",
            b'{"payload": 1e999999}',
        ]
    ),
)
HEADER_TEXT = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60
).map(str.strip)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Content-Type", "Accept", "Accept-Encoding", "If-Match", "If-None-Match", "Origin",
            "Idempotency-Key", "X-Request-Id", "Last-Event-ID", "Range", "Cookie", "Forwarded",
            "X-Forwarded-For", "X-HTTP-Method-Override", "X-Workspace-Id",
            "Access-Control-Request-Method",
        ]
    ),
    HEADER_TEXT,
    max_size=4,
)  # fmt: skip
QUERIES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "status", "type", "provider", "tag", "text", "createdAfter", "createdBefore",
                "cursor", "limit", "workspaceId", "workspace_id", "maxJobs", "timeout",
                "token", "format", "fields", "dryRun", "counts",
            ]
        )
        | st.text(max_size=8),
        st.text(max_size=30)
        | st.integers().map(str)
        | st.sampled_from(["\x00", "%", "'", "team-b"]),
    ),
    max_size=5,
)  # fmt: skip
SEGMENTS = st.text(string.printable, max_size=40) | st.sampled_from(
    ["..", "%00", "%2e%2e", "0", "-1", "null", "{id}", "a" * 5_000, "\u202e", "metrics"]
)


@pytest.mark.parametrize("route", ROUTES, ids=lambda one: f"{one.method} {one.path}")
def test_nothing_sent_is_ever_a_500_or_another_workspaces_word(base_url, route):
    with httpx.Client(timeout=20, limits=httpx.Limits(max_keepalive_connections=1)) as client:

        @given(BODIES, HEADERS, QUERIES, st.sampled_from([NOBODYS, *THEIRS]) | SEGMENTS)
        @FUZZ
        def check(
            body: bytes, headers: dict[str, str], query: list[tuple[str, str]], segment: str
        ) -> None:
            send(client, base_url, route, body, headers, query, segment)

        check()


def send(
    client: httpx.Client,
    base_url: str,
    route: Route,
    body: bytes,
    headers: dict[str, str],
    query: list[tuple[str, str]],
    segment: str,
) -> None:
    """Send one request; whatever it is, the answer must be harmless."""
    path = re.sub(r"{\w+}", lambda _: segment, PREFIX + route.path)
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    shown = [(k.encode(), v.encode()) for k, v in shown_to(route.path).items()]
    try:
        request = client.build_request(
            route.method,
            httpx.URL(base_url).copy_with(raw_path=escaped(path)).copy_merge_params(query),
            content=body,
            headers=[*encoded, *shown],
        )
    except (httpx.InvalidURL, UnicodeEncodeError):
        return  # The client will not send it.
    with client.stream(
        request.method, request.url, content=body, headers=request.headers
    ) as answer:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            assert answer.status_code == 200
            return
        assert_harmless(answer.status_code, answer.read().decode("utf-8", "replace"))


def escaped(path: str) -> bytes:
    """Return a path with what cannot be in one escaped, and nothing else."""
    return b"".join(
        bytes([byte]) if 33 <= byte < 127 and byte not in b"?#" else b"%%%02X" % byte
        for byte in path.encode("utf-8", "surrogatepass")
    )


def assert_harmless(status: int, text: str) -> None:
    """Check that an answer is no bug's, and tells nothing that is not the caller's."""
    assert status < 500 or status == 503, (status, text)
    for word in ("Traceback", "psycopg", "pydantic", "enrichd/", ".py", "bytearray", OTHERS_WORD):
        assert word not in text, (word, text)


# Below HTTP: bytes that are no request.


@pytest.mark.parametrize("seed", range(8))
async def test_bytes_that_are_no_request_leave_the_server_standing(base_url, seed):
    chance = random.Random(seed)
    port = int(base_url.rpartition(":")[2])
    good = (
        f"POST {PREFIX}/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {text_of('key-a')}\r\n"
        "Content-Type: application/json\r\nContent-Length: 20\r\n\r\n".encode()
        + b'{"type": "x"}       '
    )
    for _ in range(25):
        broken = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(broken))
            match chance.randrange(3):
                case 0:
                    broken[place] = chance.randrange(256)
                case 1:
                    del broken[place : place + chance.randint(1, 30)]
                case _:
                    broken[place:place] = chance.randbytes(chance.randint(1, 30))
        await said_to(port, bytes(broken))

    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{base_url}{PREFIX}/openapi.json")).status_code == 200


async def test_a_line_longer_than_a_server_reads_is_a_problem_like_others(base_url):
    line = f"GET {PREFIX}/jobs?text={'x' * 20_000} HTTP/1.1\r\nHost: x\r\n\r\n"

    said = await said_to(int(base_url.rpartition(":")[2]), line.encode(), is_all=False)

    assert re.match(rb"HTTP/1\.[01] 400 ", said)
    assert json.loads(said.partition(b"\r\n\r\n")[2])["code"] == "broken_request"


async def said_to(port: int, sent: bytes, *, is_all: bool = True) -> bytes:
    """Send bytes and return what comes, for a moment; a server's bug must not be in it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = b""
    try:
        writer.write(sent)
        if is_all:
            writer.write_eof()
        async with asyncio.timeout(2):
            said = await reader.read(65_536)
    except (OSError, TimeoutError):
        pass
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    status = re.match(rb"HTTP/1\.[01] (\d+)", said)
    if status is not None:
        assert_harmless(int(status[1]), said.decode("utf-8", "replace"))
    return said
