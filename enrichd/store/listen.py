"""LISTEN on a connection of its own: hints that there are jobs.

A hint lost costs time, never a job: whoever listens also polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import LiteralString, TypeAlias

import psycopg
from psycopg import Notify

from enrichd.errors import Unavailable
from enrichd.logs import get_logger
from enrichd.store.database import Connection, connect, translated

Notice: TypeAlias = Notify
"""What LISTEN hears."""

SELF_TEST_S = 30.0
RECONNECT_S = 1.0

LISTEN: LiteralString = "listen enrichd"
UNLISTEN: LiteralString = "unlisten enrichd"

# Without a write in its transaction a NOTIFY costs no WAL flush, and commits that notify run one at
# a time in the whole cluster: so it is a statement of its own, after the commit.
NOTIFY: LiteralString = "select pg_notify('enrichd', %(payload)s)"

TEST = "test"

log = get_logger("queue")


async def notify(conn: Connection, *, jobs: int) -> None:
    """Hint that jobs became ready; send it after the commit, outside any transaction."""
    await conn.execute(NOTIFY, {"payload": str(jobs)})


async def start(conn: Connection, on_notify: Callable[[Notify], None]) -> None:
    """Listen on a connection that is used for statements too.

    `on_notify` is called when a statement's answer brings notifications, or `take` does.
    """
    conn.add_notify_handler(on_notify)
    await conn.execute(LISTEN)


async def stop(conn: Connection, on_notify: Callable[[Notify], None]) -> None:
    """Listen no more."""
    await conn.execute(UNLISTEN)
    conn.remove_notify_handler(on_notify)


def take(conn: Connection) -> bool:
    """Take what came on a connection that nobody waits on; False when it is at its end."""
    try:
        conn.pgconn.consume_input()
    except psycopg.OperationalError:
        return False
    while notice := conn.pgconn.notifies():
        if conn.pgconn.notify_handler:
            conn.pgconn.notify_handler(notice)
    return True


def jobs_in(notice: Notify) -> int:
    """Return how many jobs a notification speaks of; 0 for a self-test."""
    # Anybody may notify: "²" is a digit and no number, and int() refuses long ones.
    number = notice.payload[:9]
    return 0 if notice.payload == TEST else int(number) if number.isdecimal() else 1


async def listen(dsn: str, on_hint: Callable[[int], None]) -> None:
    """Call `on_hint` with the number of jobs in each hint, until cancelled; reconnects by itself.

    Every 30 s it notifies itself: a connection that stays silent is replaced.
    """
    while True:
        try:
            conn = await connect(dsn, name="enrichd listen")
        except Unavailable as error:
            log.debug("listen_failed", reason=error.message)
            await asyncio.sleep(RECONNECT_S)
            continue
        try:
            with translated():
                await hear(conn, on_hint)
        except Unavailable as error:
            log.debug("listen_lost", reason=error.message)
        finally:
            await conn.close()
        await asyncio.sleep(RECONNECT_S)


async def hear(conn: Connection, on_hint: Callable[[int], None]) -> None:
    """Take hints from one connection until it stays silent through a self-test."""
    await conn.execute(LISTEN)
    on_hint(1)  # Something may have come while nobody listened.
    while True:
        has_heard = False
        async for notice in conn.notifies(timeout=SELF_TEST_S, stop_after=None):
            has_heard = True
            if notice.payload != TEST:
                on_hint(jobs_in(notice))
        if not has_heard:
            await conn.execute(NOTIFY, {"payload": TEST})
            async for _ in conn.notifies(timeout=5.0, stop_after=1):
                has_heard = True
            if not has_heard:
                log.warning("listen_is_deaf")
                return
