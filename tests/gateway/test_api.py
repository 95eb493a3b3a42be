"""The gateway child with the API in it: keys of a real database, TLS, PostgreSQL away, the log."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psycopg
import pytest

from enrichd.store.database import Database
from tests.api.conftest import a_body
from tests.conftest import apply_migrations
from tests.e2e.daemon import wait_for
from tests.support import postgres
from tests.support.keys import make_keys, text_of

JOBS = "/api/enrichment/jobs"


def prepared(dsn: str) -> None:
    async def work() -> None:
        database = Database(dsn)
        async with database.connection() as conn:
            await make_keys(conn)
        await database.close()

    asyncio.run(work())


@contextmanager
def locked_jobs(dsn: str) -> Iterator[None]:
    """Lock the table of jobs against everybody: to a caller it is a server that hangs."""
    with psycopg.connect(dsn) as conn:
        conn.execute("lock table enrichment_jobs in access exclusive mode")
        yield
        conn.rollback()


def until_waiting(dsn: str) -> None:
    """Wait until somebody waits for the lock."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        wait_for(
            lambda: conn.execute("select 1 from pg_locks where not granted").fetchone(),
            what="nobody waits",
        )


def until_refused(port: int) -> None:
    """Wait until nobody listens there any more."""

    def is_refused() -> bool:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            return True
        return False

    wait_for(is_refused, what="it listens on")


def client_of(gateway, key: str = "key-a", **options) -> httpx.Client:
    scheme = "https" if "verify" in options else "http"
    return httpx.Client(
        base_url=f"{scheme}://localhost:{gateway.port}",
        headers={"Authorization": f"Bearer {text_of(key)}"},
        timeout=20,
        **options,
    )


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def test_a_job_goes_in_over_the_gateway_and_its_log_tells_no_secret(start_gateway, database_url):
    prepared(database_url)
    gateway = start_gateway(database_url)

    with client_of(gateway) as client:
        made = client.post(JOBS, json=a_body(), params={"dryRun": "false"})
        read = client.get(f"{JOBS}/{made.json()['id']}")

    assert (made.status_code, read.status_code) == (201, 200)
    first, second = gateway.events("request_answered")
    assert (first["method"], first["route"], first["status"]) == ("POST", JOBS, 201)
    assert (first["query"], second["route"]) == ("dryRun", f"{JOBS}/{{id}}")
    log = gateway.log.read_text()
    assert text_of("key-a") not in log
    assert "ada@example.com" not in log
    assert made.json()["id"] not in log


def test_the_access_log_can_be_off(start_gateway, database_url):
    gateway = start_gateway(database_url, API_ACCESS_LOG="off")

    assert gateway.get("/api/enrichment/openapi.json").status_code == 200
    assert gateway.events("request_answered") == []


def test_a_key_may_ask_so_often(start_gateway, database_url):
    prepared(database_url)
    gateway = start_gateway(
        database_url, API_RATE_LIMIT_PER_SECOND="0.01", API_RATE_LIMIT_BURST="3"
    )

    with client_of(gateway) as client:
        answers = [client.get(JOBS) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].headers["retry-after"] == "100"


def test_it_speaks_tls_with_a_certificate_of_its_own(start_gateway, database_url, certificate):
    prepared(database_url)
    cert, key = certificate
    gateway = start_gateway(database_url, API_TLS_CERT_FILE=str(cert), API_TLS_KEY_FILE=str(key))

    with client_of(gateway, verify=ssl.create_default_context(cafile=cert)) as client:
        answers = [client.post(JOBS, json=a_body()) for _ in range(3)]

    assert {answer.status_code for answer in answers} == {201}
    assert answers[0].headers["strict-transport-security"] == "max-age=31536000"
    with pytest.raises(httpx.TransportError):
        gateway.get("/livez")


@pytest.mark.parametrize("which", ["missing", "no certificate"])
def test_a_wrong_certificate_stops_the_start_and_says_why(
    start_gateway, database_url, tmp_path, which
):
    file = tmp_path / "cert.pem"
    if which == "no certificate":
        file.write_text("hello")
    gateway = start_gateway(
        database_url,
        is_awaited=False,
        API_TLS_CERT_FILE=str(file),
        API_TLS_KEY_FILE=str(file),
    )

    assert gateway.process.wait(timeout=10) == 78
    (event,) = gateway.events("gateway_not_listening")
    assert "API_TLS_CERT_FILE" in event["reason"]


def test_a_request_under_way_is_answered_before_the_gateway_leaves(start_gateway, database_url):
    prepared(database_url)
    gateway = start_gateway(database_url)
    answers: list[httpx.Response] = []
    with client_of(gateway) as client:
        assert client.get(JOBS).status_code == 200
        with locked_jobs(database_url):
            asking = threading.Thread(target=lambda: answers.append(client.get(JOBS)))
            asking.start()
            until_waiting(database_url)
            gateway.process.send_signal(signal.SIGTERM)
            # It takes nobody new: the sign that the order has arrived.
            until_refused(gateway.port)
        asking.join(timeout=10)

    assert [answer.status_code for answer in answers] == [200]
    assert gateway.process.wait(timeout=10) == 0


def test_no_page_of_another_origin_may_ask_unless_it_is_configured(start_gateway, database_url):
    prepared(database_url)
    gateway = start_gateway(database_url)
    with client_of(gateway) as client:
        answer = client.get(JOBS, headers={"Origin": "https://app.example.com"})

    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_postgresql_away_is_told_at_once_and_over_when_it_is_back(start_gateway, tmp_path):
    folder = tmp_path / "pg"
    with postgres.throw_away_server(folder) as server:
        dsn = server.dsn
        asyncio.run(apply_migrations(dsn))
        prepared(dsn)
        gateway = start_gateway(dsn)
        with client_of(gateway) as client:
            assert client.get(JOBS).status_code == 200
            server.stop()
            began = time.monotonic()
            away = [
                client.get(JOBS),
                client.post(JOBS, json=a_body()),
                client.get(f"{JOBS}/metrics"),
                client.get("/api/enrichment/webhooks"),
            ]
            took_s = time.monotonic() - began
            told = client.get("/api/enrichment/openapi.json")

    assert {answer.status_code for answer in away} == {503}
    assert {answer.headers["retry-after"] for answer in away} == {"5"}
    assert {answer.json()["code"] for answer in away} == {"database_unavailable"}
    assert str(folder) not in "".join(answer.text for answer in away)
    assert took_s < 5
    assert told.status_code == 200


def test_a_server_that_hangs_does_not_hang_the_api(start_gateway, tmp_path):
    with postgres.throw_away_server(tmp_path / "pg") as server:
        asyncio.run(apply_migrations(server.dsn))
        prepared(server.dsn)
        gateway = start_gateway(server.dsn)
        with client_of(gateway) as client:
            assert client.get(JOBS).status_code == 200
            with locked_jobs(server.dsn):
                began = time.monotonic()
                answer = client.get(JOBS)
                took_s = time.monotonic() - began
            after = client.get(JOBS)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert took_s < 8
    assert after.status_code == 200
