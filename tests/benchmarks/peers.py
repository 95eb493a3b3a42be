"""The queues that are compared, each behind the same few calls.

Every one keeps its own default durability and is set up as its own documentation says for speed:
pgqueuer on asyncpg with `batch_size=100`, procrastinate with 100 jobs at once. A job is a name and
its arguments: `empty`, `nap(seconds)` or `mark(number)`, see work.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import uvloop

Answer = TypeVar("Answer")
Enqueue: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[int]]
"""Enqueues one job; returns when its commit was acknowledged, in nanoseconds, monotonic."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One queue: every function takes the DSN of a database of its own."""

    name: str
    set_up: Callable[[str], Awaitable[None]]
    bulk: Callable[[str, str, Mapping[str, Any], int], Awaitable[None]]
    """Enqueues the same job so many times."""
    client: Callable[[str], AbstractAsyncContextManager[Enqueue]]
    drain: Callable[[str, int], Awaitable[None]]
    """Runs what there is and ends; `slots` jobs at once, 0 for as many as suit short jobs."""
    serve: Callable[[str], Awaitable[None]] | None
    """None for enrichd: its daemon serves."""
    """Runs jobs as they come, until cancelled."""


def peers() -> tuple[Peer, ...]:
    """Return all of them; imported late, because a runner needs one alone."""
    return tuple(peer(name) for name in NAMES)


NAMES = ("enrichd", "pgqueuer", "procrastinate")


def peer(name: str) -> Peer:
    """Return one of them."""
    match name:
        case "enrichd":
            from tests.benchmarks import peer_enrichd as module
        case "pgqueuer":
            from tests.benchmarks import peer_pgqueuer as module  # type: ignore[no-redef]
        case _:
            from tests.benchmarks import peer_procrastinate as module  # type: ignore[no-redef]
    return Peer(
        name,
        module.set_up,
        module.bulk,
        module.client,
        module.drain,
        getattr(module, "serve", None),
    )


def run(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine the way a production process would: on uvloop, for every peer alike."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
