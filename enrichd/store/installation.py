"""What all hosts of one database have in common and keep secret, read once a process."""

from __future__ import annotations

from enrichd.settings import Settings
from enrichd.store import answers
from enrichd.store.database import Database
from enrichd.store.sealing import Sealer, sealer_of


class Installation:
    """The installation's pepper, and the keys that seal its secrets."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._pepper: bytes | None = None
        self._sealer: Sealer | None = None

    async def pepper(self) -> bytes:
        """Return what hashes of addresses are keyed with."""
        if self._pepper is None:
            async with self._database.connection() as conn:
                self._pepper = await answers.pepper(conn)
        return self._pepper

    async def sealer(self) -> Sealer:
        """Return what seals and opens secrets."""
        if self._sealer is None:
            self._sealer = sealer_of(self._settings, await self.pepper())
        return self._sealer
