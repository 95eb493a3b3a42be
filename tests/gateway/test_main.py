"""The gateway as a process: its link, its signals, its port, PostgreSQL coming and going."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import httpx
import pytest

from tests.gateway.conftest import START_S
from tests.support import postgres


def exit_code_of(gateway, within_s: float = START_S) -> int:
    return gateway.process.wait(timeout=within_s)


def test_it_says_that_it_is_alive_each_second(start_gateway, database_url):
    gateway = start_gateway(database_url)

    assert b"." in gateway.hears(within_s=3.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(start_gateway, database_url, number):
    gateway = start_gateway(database_url)
    gateway.get("/health")

    gateway.process.send_signal(number)

    assert exit_code_of(gateway) == 0


def test_it_leaves_when_the_supervisor_dies(start_gateway, database_url):
    gateway = start_gateway(database_url)

    gateway.link.close()

    assert exit_code_of(gateway) == 0


def test_a_draining_daemon_is_not_ready_but_alive(start_gateway, database_url):
    gateway = start_gateway(database_url)
    gateway.say("tick")
    gateway.say("something a later version says")
    gateway.say("draining")

    reasons = until(lambda: gateway.get("/readyz").json()["reasons"], lambda r: "drain" in str(r))

    assert reasons == ["this daemon is draining: it takes no new jobs"]
    assert gateway.get("/livez").status_code == 200


def test_a_taken_port_stops_the_start_and_says_why(start_gateway, database_url):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        gateway = start_gateway(database_url, is_awaited=False, HEALTH_CHECK_PORT=str(port))
        code = exit_code_of(gateway)

    assert code == 78
    (event,) = gateway.events("gateway_not_listening")
    assert f"127.0.0.1 port {port}: another program uses the port" in event["reason"]
    assert "HEALTH_CHECK_PORT" in event["hint"]


def test_an_address_of_another_host_stops_the_start(start_gateway, database_url):
    gateway = start_gateway(database_url, is_awaited=False, HEALTH_CHECK_HOST="192.0.2.1")

    assert exit_code_of(gateway) == 78
    (event,) = gateway.events("gateway_not_listening")
    assert "this host does not have the address" in event["reason"]


def test_the_port_is_free_again_at_once(start_gateway, database_url):
    first = start_gateway(database_url)
    port = first.port
    with httpx.Client() as client:
        client.get(f"http://127.0.0.1:{port}/livez")  # a connection that the server will close
        first.process.terminate()
        assert exit_code_of(first) == 0

    second = start_gateway(database_url, HEALTH_CHECK_PORT=str(port))

    assert second.port == port
    assert second.get("/livez").status_code == 200


def test_it_serves_while_postgresql_is_away_and_notices_when_it_is_back(
    start_gateway, tmp_path: Path
):
    folder = tmp_path / "pg"
    with postgres.throw_away_server(folder) as server:
        dsn = server.dsn
        gateway = start_gateway(dsn)
        assert "migrations are missing" in gateway.get("/readyz").text

    away = until(
        lambda: gateway.get("/health"),
        lambda answer: "cannot be reached" in answer.text,
    )
    assert away.status_code == 503
    assert away.json()["output"] == (
        "PostgreSQL cannot be reached; this daemon keeps no metrics: its log says why"
    )
    assert "workers" not in away.json()["checks"]
    assert str(folder) not in away.text
    assert gateway.get("/livez").status_code == gateway.get("/metrics").status_code == 200

    with postgres.throw_away_server(folder) as server:
        assert server.dsn == dsn
        until(lambda: gateway.get("/readyz").text, lambda text: "migrations are missing" in text)
    (event,) = gateway.events("database_back")
    assert event["level"] == "info"


def test_it_starts_while_postgresql_is_away(start_gateway):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    gateway = start_gateway(f"postgresql://someone:topsecret@127.0.0.1:{port}/nowhere")

    answer = gateway.get("/health")

    assert answer.status_code == 503
    assert "PostgreSQL cannot be reached" in answer.json()["output"]
    assert "topsecret" not in answer.text + gateway.log.read_text()


def until(ask, is_good, within_s: float = 10.0):
    """Ask until the answer is good; the kept answers are two seconds old at the most."""
    deadline = time.monotonic() + within_s
    while not is_good(answer := ask()):
        assert time.monotonic() < deadline, answer
        os.sched_yield()
    return answer
