"""One process that asks a provider about people, as a worker of enrichd or of procrastinate.

`python -m tests.benchmarks.provider_worker PEER DSN SLOTS` says `ready`, waits for a line, drains,
and prints when it began and ended and its CPU seconds.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import httpx

from enrichd.handlers.registry import load_handlers
from enrichd.processing.bounds import Limits
from enrichd.processing.wiring import Runtime
from enrichd.settings import Settings
from enrichd.store.database import Database
from tests.benchmarks.peers import run

ASKED = "BENCH_PROVIDER"


async def enrichd(dsn: str, slots: int) -> None:
    """Drain as a worker does."""
    load_handlers(())
    settings = Settings.load({**os.environ, "DATABASE_URL": dsn})
    hot, control = Database(dsn), Database(dsn)
    async with Runtime(settings) as runtime:
        processor = runtime.processor(hot=hot, control=control, concurrency=slots)
        await processor.run(Limits(is_until_empty=True))
    await hot.close()
    await control.close()


async def procrastinate(dsn: str, slots: int) -> None:
    """Drain as procrastinate does; the task puts the question and reads the answer."""
    async with app_of(dsn).open_async() as app:
        await app.run_worker_async(wait=False, concurrency=slots, install_signal_handlers=False)
    await CLIENT.aclose()


CLIENT = httpx.AsyncClient(limits=httpx.Limits(max_connections=100))


def app_of(dsn: str) -> Any:
    """Return procrastinate with the one task."""
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=dsn))

    @app.task(name="enrich")
    async def enrich(email: str) -> dict[str, Any]:
        url = f"{os.environ[ASKED]}/people/find"
        answer = await CLIENT.get(url, params={"email": email}, headers={"X-API-KEY": "key"})
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()["data"]
        return found

    return app


def main() -> None:
    """Drain when told to."""
    name, dsn, slots = sys.argv[1:]
    print("ready", flush=True)
    sys.stdin.readline()
    began, cpu = time.monotonic(), time.process_time()
    run((enrichd if name == "enrichd" else procrastinate)(dsn, int(slots)))
    print(began, time.monotonic(), time.process_time() - cpu, flush=True)


if __name__ == "__main__":
    main()
