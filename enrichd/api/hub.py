"""The hub: one connection that hears of changes, and everybody who listens behind it.

Hints name jobs; those that somebody listens for are read in one query and told to each listener of
their workspace. Hints may be lost, so every two seconds the hub also asks what ended since it last
asked and what is being run: nothing that ends while somebody listens goes untold.

It reads with the daemon's own rights, for all workspaces in one query; which listener is told is
decided by the row's workspace and the key's.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias
from uuid import UUID

from uuid_utils.compat import uuid7

from enrichd import metrics
from enrichd.api.live import (
    NOBODY,
    Event,
    Listener,
    Place,
    Subscription,
    Wanted,
    event_of,
    place_at,
    reset_frame,
)
from enrichd.domain.jobs import JobStatus
from enrichd.errors import Unavailable
from enrichd.logs import get_logger
from enrichd.processing.pauses import backoff
from enrichd.store import changes
from enrichd.store.changes import EVERYBODY, Change
from enrichd.store.database import RACES, Connection, Database

TICK_S = 0.02
"""Hints that come within this long are answered by one query."""
SWEEP_S = 2.0
DEAF_SWEEP_S = 0.5
"""Without a connection that hears hints, asking is all there is."""
OVERLAP_S = 5.0
"""How long before where it stopped a sweep begins: transactions end after their time stamps."""
CHECK_S = 0.9
"""How often the keys of open streams are asked about. The gate knows of a revocation after 4 s at
the latest, so a stream ends within 5."""
LEASE_S = 15.0
RENEW_S = 4.0
LINGER_S = 60.0
"""For how long a workspace is listened for when its last listener left: most come back."""
READ_MAX = 2_000
PAGE_MAX = 5_000
PAGES_MAX = 10
HINTED_MAX = 20_000
KNOWN_MAX = 50_000
RECENT_MAX = 1_000
WORKSPACES_NAMED_MAX = 50

State: TypeAlias = tuple[object, ...]

log = get_logger("live")


@dataclass(slots=True, eq=False)
class Channel:
    """A workspace that somebody listens for, and what was told lately."""

    listeners: set[Subscription] = field(default_factory=set)
    recent: deque[Event] = field(default_factory=lambda: deque(maxlen=RECENT_MAX))
    left_at: float = 0.0


class Hub:
    """Takes hints in and tells events; `run` does the work."""

    def __init__(
        self, database: Database, *, listen_dsn: str | None, sweep_s: float = SWEEP_S
    ) -> None:
        self.holder: UUID = uuid7()
        self._reading = database
        self._marking = database.sibling("marks")
        self._sweeping = database.sibling("sweep")
        self._listen_dsn = listen_dsn
        self._sweep_s = sweep_s
        self._channels: dict[str, Channel] = {}
        self._watchers: list[Callable[[Event], None]] = []
        self._known: OrderedDict[UUID, State] = OrderedDict()
        self._hinted: dict[UUID, None] = {}
        self._cursor: datetime | None = None
        self._is_hearing = asyncio.Event()
        self._is_away = False
        self._has_hints = asyncio.Event()
        self._is_mark_wanted = asyncio.Event()
        self._is_sweep_wanted = asyncio.Event()
        self._has_marked = asyncio.Condition()
        self._has_listeners = asyncio.Event()

    # For listeners.

    @property
    def listeners(self) -> int:
        """Return how many streams are open."""
        return sum(len(channel.listeners) for channel in self._channels.values())

    def join(
        self, workspace_id: str, wanted: Wanted, *, place: Place | None, listener: Listener
    ) -> Subscription:
        """Open a listener's queue, from `place` on where it is known."""
        subscription = Subscription(workspace_id, wanted, listener)
        subscription.since = place
        channel = self._channels.setdefault(workspace_id, Channel())
        channel.listeners.add(subscription)
        self._begin()
        return subscription

    async def begun(self, subscription: Subscription, *, within_s: float) -> bool:
        """Wait until events of its workspace come in; False if that takes longer."""
        self._is_mark_wanted.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s), self._has_marked:
                await self._has_marked.wait_for(lambda: subscription.has_begun)
                if self._listen_dsn is not None:
                    # Else a hint sent right now is heard by nobody, and waits for a sweep.
                    await self._is_hearing.wait()
        return subscription.has_begun

    def recent(self, subscription: Subscription, place: Place) -> list[Event] | None:
        """Return what was told after a place; None if nobody remembers it."""
        told = list(self._channels[subscription.workspace_id].recent)
        places = [event.place for event in told]
        return told[places.index(place) + 1 :] if place in places else None

    def leave(self, subscription: Subscription) -> None:
        """Close a listener's queue."""
        channel = self._channels.get(subscription.workspace_id)
        if channel is not None:
            channel.listeners.discard(subscription)
            channel.left_at = asyncio.get_running_loop().time()

    def watch(self, watcher: Callable[[Event], None]) -> None:
        """Tell every event of every workspace to a function, from now on."""
        if watcher not in self._watchers:
            self._watchers.append(watcher)
        self._begin()

    def watch_no_more(self, watcher: Callable[[Event], None]) -> None:
        """Tell it no more."""
        with suppress(ValueError):
            self._watchers.remove(watcher)

    # The work.

    async def run(self) -> None:
        """Hear, read, tell and ask, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read_hinted())
                group.create_task(self._keep_marks())
                group.create_task(self._sweep_again_and_again())
                group.create_task(self._check_keys())
                await self._has_listeners.wait()
                if self._listen_dsn is not None:
                    await changes.listen(self._listen_dsn, self._hear, self._start_hearing)
        finally:
            await self._close()

    async def _close(self) -> None:
        with suppress(Unavailable, TimeoutError, *RACES):
            async with asyncio.timeout(1.0), self._marking.connection() as conn:
                await changes.unmark(conn, name=self._name, holder=self.holder)
        for database in (self._reading, self._marking, self._sweeping):
            await database.close()

    @property
    def _name(self) -> str:
        return f"events {self.holder}"

    def _begin(self) -> None:
        self._has_listeners.set()
        self._is_mark_wanted.set()

    def _start_hearing(self) -> None:
        self._is_hearing.set()
        self._is_sweep_wanted.set()

    def _hear(self, workspace_id: str, ids: Collection[UUID]) -> None:
        if workspace_id not in self._channels and not self._watchers:
            return
        if len(self._hinted) < HINTED_MAX:  # What is left out ends within the next sweep.
            self._hinted.update(dict.fromkeys(ids))
        self._has_hints.set()

    async def _read_hinted(self) -> None:
        """Read the jobs that hints named, and tell what became of them."""
        while True:
            await self._has_hints.wait()
            self._has_hints.clear()
            hinted, self._hinted = list(self._hinted), {}
            try:
                for start in range(0, len(hinted), READ_MAX):
                    async with self._reading.connection() as conn:
                        found = await changes.by_id(conn, hinted[start : start + READ_MAX])
                    self._tell(found)
            except (Unavailable, *RACES) as error:
                log.debug("hinted_jobs_unread", jobs=len(hinted), reason=str(error))
                self._is_sweep_wanted.set()
            await asyncio.sleep(TICK_S)

    async def _keep_marks(self) -> None:
        """Say in the database who listens, again and again; tell listeners when that is so."""
        pauses_s = backoff()
        is_marked = False
        while True:
            await until(self._is_mark_wanted, RENEW_S if self._channels else None)
            self._is_mark_wanted.clear()
            self._forget_left()
            began = list(self._listening())
            try:
                async with self._marking.connection() as conn:
                    if self._channels:
                        moment = await self._mark(conn)
                        is_marked = True
                    elif is_marked:
                        await changes.unmark(conn, name=self._name, holder=self.holder)
                        is_marked = False
                        continue
                    else:
                        continue
            except (Unavailable, *RACES) as error:
                self._note_away(error)
                await asyncio.sleep(min(next(pauses_s), 1.0))
                self._is_mark_wanted.set()
                continue
            pauses_s = backoff()
            self._note_back()
            for subscription in began:
                subscription.since = subscription.since or place_at(moment)
                subscription.has_begun = True
            async with self._has_marked:
                self._has_marked.notify_all()

    async def _mark(self, conn: Connection) -> datetime:
        is_short = len(self._channels) <= WORKSPACES_NAMED_MAX
        moment = await changes.mark(
            conn,
            name=self._name,
            holder=self.holder,
            workspaces=list(self._channels) if is_short else [EVERYBODY],
            lease_s=LEASE_S,
        )
        assert moment is not None, "nobody else has this hub's name"
        return moment

    def _forget_left(self) -> None:
        now = asyncio.get_running_loop().time()
        for workspace_id, channel in list(self._channels.items()):
            if not channel.listeners and now - channel.left_at > LINGER_S:
                del self._channels[workspace_id]

    async def _check_keys(self) -> None:
        """End the streams of keys that may not listen any more: one question for all of a key."""
        while True:
            await asyncio.sleep(CHECK_S)
            by_key: dict[str, list[Subscription]] = {}
            for subscription in self._listening():
                by_key.setdefault(subscription.listener.key_id, []).append(subscription)
            for subscriptions in by_key.values():
                try:
                    is_admitted = await subscriptions[0].listener.is_admitted()
                except Exception as error:
                    log.error("key_check_broke", exc_info=error)
                    continue
                if not is_admitted:
                    for subscription in subscriptions:
                        subscription.revoke()

    async def _sweep_again_and_again(self) -> None:
        while True:
            pause_s = (
                self._sweep_s if self._is_hearing.is_set() else min(DEAF_SWEEP_S, self._sweep_s)
            )
            await until(self._is_sweep_wanted, pause_s)
            self._is_sweep_wanted.clear()
            if not (self._channels or self._watchers):
                self._cursor = None
                continue
            try:
                await self._sweep()
            except (Unavailable, *RACES) as error:
                self._note_away(error)
            except Exception as error:
                log.error("sweep_broke", exc_info=error)

    async def _sweep(self) -> None:
        """Tell what ended or got on since the last sweep and was not told."""
        workspaces = None if self._watchers else list(self._channels)
        async with self._sweeping.connection() as conn:
            began = await changes.now(conn)
            since = (self._cursor or began) - timedelta(seconds=OVERLAP_S)
            after, place = NOBODY, since
            for _ in range(PAGES_MAX):
                page = await changes.ended_since(
                    conn, since=place, after=after, workspaces=workspaces, limit=PAGE_MAX
                )
                self._tell(page, is_late=True)
                if len(page) < PAGE_MAX:
                    break
                after, place = page[-1].id, page[-1].completed_at or place
                await asyncio.sleep(0)
            else:
                self._reset("more ended at once than can be told one by one", began)
            self._tell(
                await changes.running(conn, since=since, workspaces=workspaces, limit=READ_MAX),
                is_late=True,
            )
        self._cursor = began
        self._note_back()

    def _tell(self, found: Iterable[Change], *, is_late: bool = False) -> None:
        """Tell what is new of these jobs; what turned up late only to those it is news for."""
        sent = 0
        for change in found:
            channel = self._channels.get(change.workspace_id)
            if channel is None and not self._watchers:
                continue
            state = state_of(change)
            before = self._known.get(change.id)
            if before == state:
                continue
            is_running = change.status is JobStatus.PROCESSING
            event = event_of(
                change, is_progress=is_running and before is not None and before[:2] == state[:2]
            )
            self._remember(change.id, state)
            for watcher in self._watchers:
                watcher(event)
            if channel is None:
                continue
            channel.recent.append(event)
            for subscription in channel.listeners:
                if is_late and is_before(event.place, subscription.since):
                    continue
                subscription.put(event)
                sent += 1
        if sent:
            metrics.live_events_told(sent)

    def _remember(self, job_id: UUID, state: State) -> None:
        self._known[job_id] = state
        self._known.move_to_end(job_id)
        while len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    def _reset(self, reason: str, moment: datetime) -> None:
        frame = reset_frame(place_at(moment), reason)
        for subscription in self._listening():
            subscription.put_frame(frame)
        for channel in self._channels.values():
            channel.recent.clear()

    def _listening(self) -> Iterable[Subscription]:
        return [one for channel in self._channels.values() for one in channel.listeners]

    def _note_away(self, error: Exception) -> None:
        if not self._is_away:
            self._is_away = True
            log.warning("live_updates_wait", reason=str(error))
            for subscription in self._listening():
                subscription.put_frame(b": the database is away; updates follow\n\n")

    def _note_back(self) -> None:
        if self._is_away:
            self._is_away = False
            log.info("live_updates_go_on")
            self._is_sweep_wanted.set()


def state_of(change: Change) -> State:
    """Return what makes two looks at a job two events; status and attempt first."""
    return (
        change.status,
        change.attempts,
        change.progress_done,
        change.progress_total,
        change.started_at,
        change.completed_at,
        change.created_at == change.updated_at,
    )


def is_before(place: Place, since: Place | None) -> bool:
    """Say whether a place lies before where a listener began; one that has not begun has all."""
    return since is None or place.at_us < since.at_us


async def until(wanted: asyncio.Event, within_s: float | None) -> None:
    """Wait until something is wanted, or for so long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await wanted.wait()
