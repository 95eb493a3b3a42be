"""Gateways to ask: one in the test's own loop, and one in a process of its own with its link."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from enrichd.gateway.health import Health
from enrichd.gateway.metrics_page import MetricsPage
from enrichd.gateway.readings import Reading
from enrichd.gateway.server import application, serving
from enrichd.gateway.standing import Standing
from enrichd.store import health
from enrichd.store.database import Connection, Database
from tests.api.conftest import http, served

__all__ = ["http", "served"]

WORKER_TIMEOUT_S = 20.0
TURN_TIMEOUT_S = 22.0
START_S = 20.0
ANSWER_S = 20.0


@dataclass(slots=True)
class Served:
    """A gateway in this loop."""

    client: httpx.AsyncClient
    standing: Standing
    port: int
    paths: list[str]

    async def get(self, path: str) -> httpx.Response:
        return await self.client.get(path)


@asynccontextmanager
async def a_gateway(dsn: str, *, fresh_s: float = 0.0) -> AsyncIterator[Served]:
    """Serve the routes over loopback; what PostgreSQL says is asked each time."""

    async def ready(conn: Connection) -> health.Readiness:
        return await health.readiness(
            conn, worker_timeout_s=WORKER_TIMEOUT_S, turn_timeout_s=TURN_TIMEOUT_S
        )

    async def count(conn: Connection) -> health.QueueFigures:
        return await health.queue_figures(conn, worker_timeout_s=WORKER_TIMEOUT_S)

    standing = Standing()
    async with asyncio.TaskGroup() as group:
        readiness = Reading(group, Database(dsn), ready, fresh_s=fresh_s)
        figures = Reading(group, Database(dsn), count, fresh_s=fresh_s)
        pages = Health(standing, readiness, figures, TURN_TIMEOUT_S)
        app = application([*pages.routes(), *MetricsPage(standing, figures).routes()])
        try:
            async with (
                serving(app, "127.0.0.1", 0) as (port,),
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client,
            ):
                paths = sorted({resource.canonical for resource in app.router.resources()})
                yield Served(client, standing, port, paths)
        finally:
            await readiness.close()
            await figures.close()


@pytest.fixture
async def gateway(database_url: str) -> AsyncIterator[Served]:
    """Give a gateway on the test's own database."""
    async with a_gateway(database_url) as served:
        yield served


class GatewayProcess:
    """A gateway in a process of its own; the test holds the supervisor's end of the link."""

    def __init__(self, arguments: list[str], env: dict[str, str], log: Path) -> None:
        self.link, theirs = socket.socketpair()
        self.log = log
        with theirs, log.open("wb") as stderr:
            python = [sys.executable, "-W", "error", "-m", "tests.gateway.child"]
            self.process = subprocess.Popen(
                [*python, str(theirs.fileno()), *arguments],
                env=env,
                stderr=stderr,
                pass_fds=[theirs.fileno()],
            )

    def wait_until_ready(self) -> None:
        """Wait for the child's word that it serves."""
        heard = b""
        self.link.settimeout(START_S)
        while b"ready\n" not in heard:
            more = self.link.recv(4096)
            assert more, f"the gateway left: {self.log.read_text()}"
            heard += more

    @property
    def port(self) -> int:
        (event,) = self.events("gateway_listening")
        return int(event["addresses"][0].rpartition(" ")[2])

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what it logged under a name."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == name]

    def say(self, line: str) -> None:
        self.link.sendall(line.encode() + b"\n")

    def hears(self, within_s: float) -> bytes:
        """Return what the child says next."""
        readable, _, _ = select.select([self.link], [], [], within_s)
        return self.link.recv(4096) if readable else b""

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=ANSWER_S)

    def close(self) -> None:
        self.link.close()
        try:
            self.process.wait(timeout=ANSWER_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


StartGateway = Callable[..., GatewayProcess]


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[StartGateway]:
    """Give `start_gateway(dsn, …)`; what it started is gone after the test."""
    started: list[GatewayProcess] = []

    def start(
        dsn: str, *, folder: Path | None = None, is_awaited: bool = True, **variables: str
    ) -> GatewayProcess:
        env = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "DATABASE_URL": dsn,
            "HEALTH_CHECK_PORT": "0",
            **variables,
        }
        arguments = ["3", *([str(folder)] if folder else [])]
        process = GatewayProcess(arguments, env, tmp_path / f"gateway-{len(started)}.log")
        started.append(process)
        if is_awaited:
            process.wait_until_ready()
        return process

    yield start
    for process in started:
        process.close()


def samples(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every sample of a metrics page by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(page: str, name: str, **labels: str) -> float | None:
    """Return one sample of a metrics page, or None."""
    return samples(page).get((name, tuple(sorted(labels.items()))))
