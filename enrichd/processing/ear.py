"""A worker's own ear: the short way from a hint to a claim.

The housekeeper hears every hint and wakes idle workers through the supervisor, two processes more
than one job needs. So one worker of a host is on duty: it listens on the connection it claims on,
which is then awake as well, and claims at once. Were they all to listen, each job would wake them
all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from enrichd.store import listen
from enrichd.store.database import Connection, Database

if TYPE_CHECKING:
    from enrichd.processing.duty import Duty

# The housekeeper notifies itself when nobody else did for 30 s, which every ear hears: one that
# heard nothing for this long may be deaf.
DEAF_S = 2.5 * listen.SELF_TEST_S
# A worker off duty for this long listens no more.
FORGET_S = 10.0


class Ear:
    """Listens on the connection of a worker that waits, while it is on duty."""

    def __init__(self, database: Database, duty: Duty, on_hint: Callable[[], None]) -> None:
        self._database = database
        self._duty = duty
        self._on_hint = on_hint
        self._conn: Connection | None = None
        self._is_on_duty = False
        self._on_duty_at = 0.0
        self._is_open = False
        self._heard_at = float("-inf")

    @property
    def is_hearing(self) -> bool:
        """Say whether this worker is on duty and LISTEN has brought something lately."""
        now = asyncio.get_running_loop().time()
        return self._conn is not None and self._is_on_duty and now - self._heard_at < DEAF_S

    async def open(self) -> bool:
        """Listen if the duty is free; True when that began just now, so hints may be missed.

        Until `shut` the connection is not to be used otherwise. Raises Unavailable.
        """
        loop = asyncio.get_running_loop()
        self._is_on_duty = self._duty.take()
        if not self._is_on_duty:
            if self._conn is not None and loop.time() - self._on_duty_at > FORGET_S:
                await self._forget()
            return False
        self._on_duty_at = loop.time()
        if self._conn is None or self._conn.closed:
            async with self._database.connection() as conn:
                await listen.start(conn, self._hear)
            self._conn = conn
            return True
        loop.add_reader(self._conn.fileno(), self._read)
        self._is_open = True
        return False

    def shut(self) -> None:
        """Leave the connection to statements; hints that come with their answers still count."""
        if self._is_open and self._conn is not None:
            self._is_open = False
            if not self._conn.closed:
                asyncio.get_running_loop().remove_reader(self._conn.fileno())

    def rest(self) -> None:
        """Leave the duty to a worker that has room."""
        self._is_on_duty = False
        self._duty.give_up()

    async def _forget(self) -> None:
        conn, self._conn = self._conn, None
        if conn is not None and not conn.closed:
            async with self._database.connection() as current:
                if current is conn:
                    await listen.stop(conn, self._hear)

    def _read(self) -> None:
        assert self._conn is not None
        if not listen.take(self._conn):
            # Left in place, the reader of a socket at its end would be called without pause.
            self.shut()
            self._on_hint()

    def _hear(self, notice: listen.Notice) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        if notice.payload != listen.TEST:
            self._on_hint()
