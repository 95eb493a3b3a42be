"""Says which jobs changed, to whoever listens: after the commit, together for all of 20 ms.

A worker learns who listens when it reads the lanes and keeps quiet otherwise. What is told may be
lost; whoever listens asks the tables as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping

from enrichd.errors import Unavailable
from enrichd.logs import get_logger
from enrichd.store import changes
from enrichd.store.changes import EVERYBODY
from enrichd.store.database import RACES, Database

EVERY_S = 0.02
# What cannot be told soon is not worth telling: listeners find it in the tables.
UNTOLD_MAX = 20_000

log = get_logger("live")


class Changes:
    """Tells of changed jobs while `run` goes; `note` costs its caller nothing."""

    def __init__(self, database: Database, *, heard: Collection[str] = (EVERYBODY,)) -> None:
        self._database = database
        self._heard = frozenset(heard)
        self._untold: dict[str, dict[str, None]] = {}
        self._count = 0
        self._wake = asyncio.Event()

    @property
    def is_heard(self) -> bool:
        """Say whether anybody listens, as far as it is known here."""
        return bool(self._heard)

    def hear(self, workspaces: Collection[str]) -> None:
        """Take whose jobs are listened for; PostgreSQL is asked again when they are told of."""
        self._heard = frozenset(workspaces)

    def note(self, workspace_id: str, job_ids: Iterable[str]) -> None:
        """Tell that jobs of a workspace changed, if anybody listens for it."""
        if workspace_id not in self._heard and EVERYBODY not in self._heard:
            return
        if self._count >= UNTOLD_MAX:
            return
        ids = self._untold.setdefault(workspace_id, {})
        before = len(ids)
        ids.update(dict.fromkeys(job_ids))
        self._count += len(ids) - before
        self._wake.set()

    async def run(self) -> None:
        """Tell until cancelled, with one statement in 20 ms at most."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._tell()
            await asyncio.sleep(EVERY_S)

    async def close(self) -> None:
        """Tell what is left, if that is quick, and close the connection."""
        try:
            async with asyncio.timeout(1.0):
                await self._tell()
        except TimeoutError:
            log.debug("changes_untold", reason="PostgreSQL took too long")
        await self._database.close()

    async def _tell(self) -> None:
        untold, self._untold, self._count = self._untold, {}, 0
        await tell(self._database, untold)


async def tell(database: Database, changed: Mapping[str, Collection[str]]) -> None:
    """Tell who listens of jobs, ids by workspace. Never fails: what changed was committed."""
    if not changed:
        return
    try:
        async with database.connection() as conn:
            await changes.tell(conn, changed)
    except (Unavailable, *RACES) as error:
        log.debug("changes_untold", workspaces=len(changed), reason=str(error))


async def tell_moved(database: Database, moved: Iterable[tuple[str, str]]) -> None:
    """Do the same for pairs of a workspace and an id."""
    changed: dict[str, list[str]] = {}
    for workspace_id, job_id in moved:
        changed.setdefault(workspace_id, []).append(job_id)
    await tell(database, changed)
