"""What is left of the credits by the providers' own word, passed on for people to see.

Some say it with every answer, others only when they are asked (`Accounting`). Neither is worth a
round trip on a question's way: what is heard waits here and is written every few seconds, the
newest of each credential, and only when it is news.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from decimal import Decimal
from typing import Final, TypeAlias

from enrichd.errors import ProviderError, Unavailable
from enrichd.logs import get_logger
from enrichd.providers.base import Accounting, Asked, Found
from enrichd.store import provider_standing
from enrichd.store.database import Database

Told: TypeAlias = Asked | Sequence[Found | ProviderError]

PAUSE_S: Final = 2.0
ASK_AGAIN_S: Final = 60.0
"""How long a number is good enough; all processes together ask once in this time."""
LOOK_S: Final = 10.0
ASK_S: Final = 20.0
CLOSE_S: Final = 2.0
CREDENTIALS_MAX: Final = 1000
CREDITS_MAX: Final = Decimal(10**12)

log = get_logger("providers")


class CreditsLeft:
    """What one process has heard and not yet written; close it before its database."""

    def __init__(self, database: Database, *, pause_s: float = PAUSE_S) -> None:
        self._database = database
        self._pause_s = pause_s
        self._heard: dict[str, Decimal] = {}
        self._to_ask: dict[str, Accounting] = {}
        self._written: dict[str, tuple[Decimal, float]] = {}
        """What was written last, and when."""
        self._look_at = float("-inf")
        """When to see again whether it is time to ask."""
        self._task: asyncio.Task[None] | None = None

    def hear(self, credential: str, adapter: object, told: Told) -> None:
        """Take note of what an answer says, or of that the provider should be asked again."""
        answers = told if isinstance(told, Sequence) else [told]
        found = [one for one in answers if isinstance(one, Found)]
        said = [
            left
            for one in found
            if one.standing is not None and (left := usable(one.standing.credits_left)) is not None
        ]
        if said:
            if not self._is_news(credential, said[-1]):
                return
            self._heard[credential] = said[-1]
        elif isinstance(adapter, Accounting) and any(one.cost_credits for one in found):
            self._to_ask[credential] = adapter
        else:
            return
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def aclose(self) -> None:
        """Write what was heard, within seconds; nobody is asked any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._write()

    def _is_news(self, credential: str, left: Decimal) -> bool:
        written, at = self._written.get(credential, (None, float("-inf")))
        is_old = asyncio.get_running_loop().time() - at > ASK_AGAIN_S
        return written != left or is_old or credential in self._heard

    async def _work(self) -> None:
        try:
            while self._heard or self._to_ask:
                await asyncio.sleep(self._pause_s)
                await self._ask()
                await self._write()
        finally:
            self._task = None

    async def _ask(self) -> None:
        """Ask those who say it only then, unless any process heard it a moment ago."""
        now = asyncio.get_running_loop().time()
        if not self._to_ask or now < self._look_at:
            return
        self._look_at = now + LOOK_S
        try:
            async with self._database.connection() as conn:
                due = await provider_standing.due_for_credits(
                    conn, credentials=list(self._to_ask), older_than_s=ASK_AGAIN_S
                )
        except Unavailable as error:
            log.debug("credits_left_not_asked", reason=error.message)
            return
        for credential in due:
            left = await asked(credential, self._to_ask.pop(credential))
            if left is not None:
                self._heard[credential] = left

    async def _write(self) -> None:
        if not self._heard:
            return
        heard, self._heard = self._heard, {}
        try:
            async with self._database.connection() as conn:
                await provider_standing.note_credits_left(conn, credits_left=heard)
        except Unavailable as error:
            # Said again with the next answers; what came meanwhile is newer.
            self._heard = heard | self._heard
            log.debug("credits_left_not_written", reason=error.message)
            return
        if len(self._written) >= CREDENTIALS_MAX:
            self._written.clear()
        now = asyncio.get_running_loop().time()
        self._written |= {credential: (left, now) for credential, left in heard.items()}


async def asked(credential: str, adapter: Accounting) -> Decimal | None:
    """Return what a provider says when it is asked; None if it does not, whatever the trouble."""
    try:
        async with asyncio.timeout(ASK_S):
            return usable(await adapter.credits_left())
    except (ProviderError, TimeoutError) as error:
        log.debug("credits_left_not_told", provider=credential, reason=str(error))
    except Exception as error:  # noqa: BLE001 - a plug-in's defect costs a number, no more
        log.warning("credits_left_not_told", provider=credential, reason=type(error).__name__)
    return None


def usable(left: Decimal | None) -> Decimal | None:
    """Return an amount that can be kept and shown; None for nonsense."""
    if not isinstance(left, Decimal) or not left.is_finite():
        return None
    return min(max(left, Decimal(0)), CREDITS_MAX)
