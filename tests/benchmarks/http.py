"""The API beside the same endpoints in FastAPI, and its lists and figures over many jobs."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import psycopg

from enrichd.api.cursors import cursor_of
from tests.benchmarks.figures import Figures, percentile
from tests.benchmarks.http_server import (
    ROOT,
    START_S,
    Server,
    a_free_port,
    a_key,
    ended,
    gateway,
)
from tests.benchmarks.peers import peer
from tests.benchmarks.processes import database

CLIENT_S = 600.0
JOBS = "/api/enrichment/jobs"
BODY = b'{"type": "email_validation", "payload": {"emails": ["ada@example.com"]}}'
TURNS = 4
PAGES = 300
"""Requests for each depth of a list."""

# Spread over states, types and tags as a workspace's months are; the ids are in order of time.
FILL = """
    insert into enrichment_jobs (id, workspace_id, type, status, payload, result, tags, created_at,
                                 updated_at, completed_at)
    select (lpad(to_hex((1700000000000 + number)::bigint), 12, '0')
               || '7000' || '8' || lpad(to_hex(number), 15, '0'))::uuid,
           'bench', case number %% 3 when 0 then 'email_validation' else 'company_data_update' end,
           case when number %% 20 = 0 then 'failed' else 'completed' end,
           '{"emails": ["ada@example.com"]}', '{"email": "ada@example.com"}',
           array['import-' || number %% 100],
           now() - make_interval(secs => %(jobs)s - number),
           now() - make_interval(secs => %(jobs)s - number),
           now() - make_interval(secs => %(jobs)s - number)
      from generate_series(1, %(jobs)s) as number
"""
PLACE = """
    select id::text
      from enrichment_jobs
     where workspace_id = 'bench'
     order by id desc
    offset %s
     limit 1
"""


def http(admin_dsn: str, jobs: int, figures: Figures) -> None:
    """Measure rates beside FastAPI's, then lists and figures over so many jobs."""
    rates(admin_dsn, max(jobs // 50, 2_000), figures)
    depths(admin_dsn, jobs, figures)


# Two endpoints, two servers.


def rates(admin_dsn: str, requests: int, figures: Figures) -> None:
    """Measure a POST and a GET of both, each server alone with the client."""
    with database(admin_dsn, peer("enrichd")) as dsn:
        key = asyncio.run(a_key(dsn))
        with gateway(dsn) as ours, fastapi(dsn) as theirs:
            for _ in range(TURNS):
                ask_both(ours, key, requests // TURNS, "enrichd", figures)
                ask_both(theirs, key, requests // TURNS, "fastapi", figures)


def ask_both(server: Server, key: str, requests: int, whose: str, figures: Figures) -> None:
    """Enqueue so many jobs, then read some of them as often."""
    post = (
        f"POST {JOBS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY
    note(figures, "POST /jobs", whose, server, [post], requests)
    ids = [
        httpx.post(
            f"http://127.0.0.1:{server.port}{JOBS}",
            content=BODY,
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        ).json()["id"]
        for _ in range(100)
    ]
    gets = [
        f"GET {JOBS}/{one} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode()
        for one in ids
    ]
    note(figures, "GET /jobs/{id}", whose, server, gets, requests)


def asked(port: int, requests: list[bytes], count: int) -> tuple[float, list[float]]:
    """Ask in a process of its own; return the rate and the seconds of each request."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.http_client", str(port), str(count)],
        input=json.dumps([base64.b64encode(one).decode() for one in requests]),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        timeout=CLIENT_S,
        check=True,
    )
    said = json.loads(done.stdout)
    return count / said["seconds"], said["took"]


def note(
    figures: Figures, what: str, whose: str, server: Server, requests: list[bytes], count: int
) -> None:
    """Add a rate, its percentiles, and the server's CPU, which others disturb least."""
    asked(server.port, requests, 500)  # Plans and pools are warm.
    before_s = server.cpu_s
    rate, took = asked(server.port, requests, count)
    figures.add(f"{what}, CPU", whose, (server.cpu_s - before_s) / count * 1e6, "µs")
    figures.add(f"{what}, requests", whose, rate, "/s")
    for share in (50, 99):
        figures.add(f"{what}, p{share}", whose, percentile(took, share / 100) * 1000, "ms")


# Lists and figures.


def depths(admin_dsn: str, jobs: int, figures: Figures) -> None:
    """Measure pages of 50 at several depths, filtered and not, and the figures."""
    with database(admin_dsn, peer("enrichd")) as dsn:
        key = asyncio.run(a_key(dsn))
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(FILL, {"jobs": jobs})
            conn.execute("vacuum analyze enrichment_jobs")
            places = {}
            for share in (0.0, 0.01, 0.5, 0.99):
                row = conn.execute(PLACE, [int(jobs * share)]).fetchone()
                assert row is not None
                places[f"at {share:.0%}"] = f"limit=50&cursor={cursor_of(row[0])}"
        places["failed ones"] = "limit=50&status=failed"
        places["of a tag"] = "limit=50&tag=import-7"
        places["with counts"] = "limit=50&counts=true"
        with (
            gateway(dsn) as server,
            httpx.Client(headers={"Authorization": f"Bearer {key}"}, timeout=60) as client,
        ):
            for name, query in places.items():
                url = f"http://127.0.0.1:{server.port}{JOBS}?{query}"
                timed(client, url, f"list of 50 of {jobs:,}, {name}", figures)
            timed(
                client,
                f"http://127.0.0.1:{server.port}{JOBS}/metrics",
                "GET /jobs/metrics",
                figures,
            )


def timed(client: httpx.Client, url: str, what: str, figures: Figures) -> None:
    """Ask one after the other."""
    took = []
    for _ in range(PAGES):
        began = time.perf_counter()
        answer = client.get(url)
        took.append(time.perf_counter() - began)
        assert answer.status_code == 200, answer.text
    figures.add(f"{what}, p99", "enrichd", percentile(took[5:], 0.99) * 1000, "ms")


# The peer.


@contextlib.contextmanager
def fastapi(dsn: str) -> Iterator[Server]:
    """Give the FastAPI application under uvicorn, one process like ours."""
    port = a_free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.peer_fastapi", str(port)],
        env={**os.environ, "DATABASE_URL": dsn},
        cwd=ROOT,
    )
    with ended(process):
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield Server(port, process.pid)
