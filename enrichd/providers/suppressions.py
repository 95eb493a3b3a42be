"""Whether a person wants to be left alone, asked for every lead and so answered from memory mostly.

Addresses are kept as keyed hashes only. Two spellings of one mailbox are one person: what is hashed
is the canonical form (`domain/emails.py`), and beside it the plain lower-case one, so that nobody
is forgotten should the rules of the first ever change.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from enrichd.domain.email_hashes import email_hmac
from enrichd.domain.emails import Address, parse_address
from enrichd.providers.group_commit import GroupCommit
from enrichd.store import suppressions
from enrichd.store.database import Database, storing
from enrichd.store.installation import Installation
from enrichd.store.suppressions import EVERYWHERE, Reason

KNOWN_MAX: Final = 50_000
SUPPRESSED_S: Final = 300.0
WANTED_S: Final = 5.0
"""How long after an erasure a process may still take a person for one who may be asked about."""
BATCH_MAX: Final = 500
WAITING_MAX: Final = 20_000


class Suppressions:
    """One process's view of the suppressed; close it before its database."""

    def __init__(
        self,
        database: Database,
        installation: Installation,
        *,
        known_max: int = KNOWN_MAX,
        suppressed_s: float = SUPPRESSED_S,
        wanted_s: float = WANTED_S,
    ) -> None:
        self._database = database
        self._installation = installation
        self._known_max = known_max
        self._keep_s = {True: suppressed_s, False: wanted_s}
        self._known: OrderedDict[tuple[str, bytes], tuple[bool, float]] = OrderedDict()
        self._look_ups: GroupCommit[tuple[str, bytes], bool] = GroupCommit(
            self._run, size_max=BATCH_MAX, waiting_max=WAITING_MAX, tries=2
        )

    async def is_suppressed(self, workspace_id: str, *texts: str) -> bool:
        """Return whether any of these addresses is of a person who must not be asked about.

        Raises Unavailable when PostgreSQL is away: nobody is asked about on a guess.
        """
        pepper = await self._installation.pepper()
        places = {(workspace_id, one) for text in texts for one in hashes_of(pepper, text)}
        unknown = []
        for place in places:
            known = self._recall(place)
            if known:
                return True
            if known is None:
                unknown.append(place)
        found = [self._look_ups.put(place) for place in unknown]
        # Each is waited for: one that failed must not pass for an answer.
        return any([await one for one in found])

    async def add(
        self,
        workspace_id: str,
        address: str,
        reason: Reason,
        provider_id: str | None = None,
    ) -> None:
        """Leave a person alone from now on; the workspace `*` stands for all."""
        hashes = hashes_of(await self._installation.pepper(), address)
        async with self._database.connection() as conn:
            await storing(
                lambda: suppressions.add(
                    conn,
                    workspace_id=workspace_id,
                    hashes=hashes,
                    reason=reason,
                    provider_id=provider_id,
                )
            )
        if workspace_id == EVERYWHERE:
            self._known.clear()
        for one in hashes:
            self._remember((workspace_id, one), True)

    async def aclose(self) -> None:
        """Wait for what is under way."""
        await self._look_ups.aclose()

    async def _run(self, places: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
        async with self._database.connection() as conn:
            found = await suppressions.look_up(conn, places)
        for place, is_suppressed in zip(places, found, strict=True):
            self._remember(place, is_suppressed)
        return found

    def _recall(self, place: tuple[str, bytes]) -> bool | None:
        known = self._known.get(place)
        if known is None or known[1] <= time.monotonic():
            return None
        return known[0]

    def _remember(self, place: tuple[str, bytes], is_suppressed: bool) -> None:
        self._known[place] = (is_suppressed, time.monotonic() + self._keep_s[is_suppressed])
        self._known.move_to_end(place)
        while len(self._known) > self._known_max:
            self._known.popitem(last=False)


def hashes_of(pepper: bytes, text: str) -> list[bytes]:
    """Return the keyed hashes that an address is known by."""
    parsed = parse_address(text)
    canonical = email_hmac(pepper, parsed if isinstance(parsed, Address) else text)
    if not isinstance(parsed, Address):
        return [canonical]
    plain = parsed.wire.casefold().encode()
    return list(dict.fromkeys((canonical, hmac.digest(pepper, plain, hashlib.sha256))))
