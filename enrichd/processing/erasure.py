"""Erase a person from everything that is kept, and see to it that nothing brings him back.

First the person is suppressed, so that from then on no lead of his is looked up and no answer
about him is kept; then every table is gone through; then the runs that had begun before are waited
for, because one of them may have found him without knowing, and what they wrote is looked at again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from enrichd.domain.emails import Address
from enrichd.domain.erasing import (
    JobParts,
    Left,
    Person,
    left_of,
    person_of,
    suppressed_lead,
)
from enrichd.logs import get_logger
from enrichd.providers.suppressions import hashes_of
from enrichd.store import erasure, suppressions
from enrichd.store.database import RACE_TRIES, RACES, Connection, Database
from enrichd.store.erasure import BESIDE, PART, Beside, HeldJob, HeldRow
from enrichd.store.installation import Installation
from enrichd.store.json_text import dumps, loads
from enrichd.store.suppressions import EVERYWHERE

SETTLE_S: Final = 30.0
"""How long the runs that had begun before are waited for."""
LOOK_S: Final = 0.25

log = get_logger("erasure")


@dataclass(slots=True)
class Erased:
    """What was found, or erased if it was no dry run."""

    jobs: int = 0
    """About that person alone: of them only the id, the type and the times are left."""
    cancelled: int = 0
    """Of these, how many had not ended."""
    redacted: int = 0
    """Jobs about others too, from which the person was taken out."""
    leads: int = 0
    """Leads of batches."""
    rows: int = 0
    """Attempts, callbacks and deliveries."""
    answers: int = 0
    """Kept answers of providers."""
    still_running: int = 0
    """Runs that began before and have not ended: what they find is theirs to suppress."""

    @property
    def is_nothing(self) -> bool:
        """True if nothing was found."""
        return not (self.jobs or self.redacted or self.rows or self.answers)


class Erasure:
    """One person's, in one workspace or, with None, in all."""

    def __init__(
        self,
        database: Database,
        installation: Installation,
        address: Address,
        *,
        workspace_id: str | None,
        is_dry: bool = False,
        on_progress: Callable[[Erased], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._installation = installation
        self._address = address
        self._workspace_id = workspace_id
        self._is_dry = is_dry
        self._on_progress = on_progress
        self._person: Person = person_of(address)
        self.done = Erased()

    async def run(self, *, settle_s: float = SETTLE_S) -> Erased:
        """Erase, or count in a dry run; may be cut off at any moment and run again."""
        hashes = hashes_of(await self._installation.pepper(), str(self._address))
        runs: Sequence[tuple[UUID, int]] = ()
        if not self._is_dry:
            async with self._database.connection() as conn:
                await suppressions.add(
                    conn,
                    workspace_id=self._workspace_id or EVERYWHERE,
                    hashes=hashes,
                    reason="erased",
                )
                runs = await erasure.running(conn, workspace_id=self._workspace_id)
        await self._jobs()
        for beside in BESIDE:
            await self._rows(beside)
        await self._answers(hashes)
        if runs:
            await self._settle(runs, settle_s)
            await self._answers(hashes)
        return self.done

    async def _jobs(self) -> None:
        found = erasure.jobs_that_may_hold(
            self._database, rough=self._person.rough, workspace_id=self._workspace_id
        )
        # Of a dry run the second way to a job, by its leads, must not count it again.
        seen: set[UUID] = set()
        async with contextlib.aclosing(found) as parts:
            async for part in parts:
                for job_id in part:
                    if job_id not in seen:
                        await self._job(job_id)
                    if self._is_dry:
                        seen.add(job_id)
                self._on_progress(self.done)

    async def _job(self, job_id: UUID) -> None:
        """Look at one job and erase the person from it, in a transaction of its own."""
        for race in range(1, RACE_TRIES + 1):
            try:
                async with self._database.transaction() as conn:
                    held = await erasure.job(
                        conn,
                        job_id=job_id,
                        rough=self._person.rough,
                        is_locked=not self._is_dry,
                    )
                    left = self._left_of(held) if held is not None else None
                    if held is not None and left is not None and not self._is_dry:
                        await self._overwrite(conn, held, left)
            except RACES:
                if race == RACE_TRIES:
                    raise
                continue
            if held is not None and left is not None:
                self._count(held, left)
            return

    def _left_of(self, held: HeldJob) -> Left | None:
        items = [
            item.key
            for item in held.items
            if self._person.is_in([item.key, item.result, item.error])
        ]
        parts = JobParts(
            held.type,
            held.payload,
            held.result,
            held.error,
            held.tags,
            held.idempotency_key,
            held.webhook_url,
            items,
        )
        return left_of(parts, self._person, spare_key=f"erased:{held.id}")

    def _count(self, held: HeldJob, left: Left) -> None:
        has_ended = held.status in ("completed", "failed", "cancelled", "dead_letter")
        self.done.leads += len(left.leads)
        if left.is_whole:
            self.done.jobs += 1
            self.done.cancelled += not has_ended
        else:
            self.done.redacted += 1

    async def _overwrite(self, conn: Connection, held: HeldJob, left: Left) -> None:
        # A running batch goes on: the row of its erased lead stands before the run could write it.
        # A run that would write under another key, or all in one result, is fenced instead.
        is_renamed = any(old != new for old, new in left.leads.items())
        is_changed = left.payload != held.payload and not left.leads
        await erasure.overwrite(
            conn,
            job_id=held.id,
            payload=dumps(left.payload),
            result=_text(left.result),
            error=_text(left.error),
            tags=left.tags,
            idempotency_key=left.idempotency_key,
            webhook_url=left.webhook_url,
            is_fenced=left.is_whole or is_renamed or is_changed,
            is_ended=left.is_whole,
        )
        if left.is_whole:
            await erasure.delete_items(conn, job_id=held.id, keys=None)
            await erasure.clear_beside(conn, job_id=held.id)
            if held.status in ("pending", "scheduled", "waiting"):
                # One that runs is told of by its worker, when the run has stopped.
                await erasure.tell_cancelled(conn, job_id=held.id)
            return
        stray = [item.key for item in held.items if item.key not in left.leads]
        strays = [key for key in stray if self._person.is_in(key)]
        await erasure.delete_items(conn, job_id=held.id, keys=[*left.leads, *strays])
        for key in left.leads.values():
            await erasure.put_item(
                conn,
                job_id=held.id,
                key=key,
                workspace_id=held.workspace_id,
                result=dumps(suppressed_lead(key)),
            )

    async def _rows(self, beside: Beside) -> None:
        found = erasure.rows_that_may_hold(
            self._database, beside, rough=self._person.rough, workspace_id=self._workspace_id
        )
        async with contextlib.aclosing(found) as parts:
            async for part in parts:
                for row in part:
                    if self._holds(row):
                        self.done.rows += 1
                        await self._mend(beside, row)
                self._on_progress(self.done)

    def _holds(self, row: HeldRow) -> bool:
        return any(self._person.is_in([text, loads(text)]) for text in row.texts)

    async def _mend(self, beside: Beside, row: HeldRow) -> None:
        if self._is_dry:
            return
        texts = row.texts[len(beside.blanked) :]
        mended = [_mended(self._person, text) for text in texts]
        async with self._database.connection() as conn:
            await erasure.clear_row(conn, beside, key=row.key, mended=mended)

    async def _answers(self, hashes: Sequence[bytes]) -> None:
        async with self._database.connection() as conn:
            if self._is_dry:
                self.done.answers = await erasure.count_answers(
                    conn, hashes=hashes, workspace_id=self._workspace_id
                )
                return
            while went := await erasure.forget_answers(
                conn, hashes=hashes, workspace_id=self._workspace_id
            ):
                self.done.answers += went
                if went < PART:
                    return

    async def _settle(self, runs: Sequence[tuple[UUID, int]], settle_s: float) -> None:
        """Wait for runs that had begun before the person was suppressed, and look at their jobs."""
        left = runs
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settle_s):
                while left:
                    async with self._database.connection() as conn:
                        left = await erasure.still_running(conn, left)
                    if left:
                        await asyncio.sleep(LOOK_S)
        self.done.still_running = len(left)
        for job_id, _ in runs:
            await self._job(job_id)
        for beside in BESIDE:
            await self._rows(beside)


def _mended(person: Person, text: str | None) -> str | None:
    """Return a column's text without the person: as JSON if it is some, else as it stands."""
    if text is None:
        return None
    value = loads(text)
    if isinstance(value, str):
        kept = person.out_of(text)
        return str(kept)
    return dumps(person.out_of(value))


def _text(value: object) -> str | None:
    return None if value is None else dumps(value)
