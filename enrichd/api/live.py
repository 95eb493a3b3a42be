"""Live updates as one listener sees them: events, and the bounded queue in front of a stream.

An event's id is its place in time and its job (`1763942400123456-0193…`, microseconds of the
database's clock), so that a listener that was away can say where it stopped, on any gateway.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

import orjson

from enrichd.domain.jobs import TERMINAL, JobStatus, iso
from enrichd.store.changes import Change

if TYPE_CHECKING:
    from enrichd.api.routing import Call

CHANGES: Final = "changes"
"""The name of what tells of changes (queue/changes.py) among the Api's parts."""
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
PLACE_MAX: Final = 253_402_300_799_000_000
"""The end of the year 9999."""
WAITING_EVENTS_MAX: Final = 10_000
WAITING_BYTES_MAX: Final = 8 << 20
PIECE_BYTES_MAX: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Place:
    """Where a listener stands: the microsecond of an event, and its job."""

    at_us: int
    job_id: UUID

    def __str__(self) -> str:
        return f"{self.at_us}-{self.job_id}"

    @property
    def at(self) -> datetime:
        """Return the moment."""
        return EPOCH + self.at_us * MICROSECOND


NOBODY: Final = UUID(int=0)


def place_at(moment: datetime, job_id: UUID = NOBODY) -> Place:
    """Return the place of a moment."""
    return Place((moment - EPOCH) // MICROSECOND, job_id)


def place_of(text: str) -> Place | None:
    """Read an event's id; None if it is none of ours."""
    number, _, job_id = text.partition("-")
    if not (number.isascii() and number.isdecimal() and len(number) <= 18 and len(job_id) == 36):
        return None
    try:
        place = Place(int(number), UUID(job_id))
    except ValueError:
        return None
    return place if place.at_us <= PLACE_MAX else None


@dataclass(frozen=True, slots=True)
class Event:
    """What became of a job, as it goes out."""

    place: Place
    workspace_id: str
    status: JobStatus
    name: str
    frame: bytes
    """The event in the format of server-sent events; made once for all who listen."""
    data: dict[str, Any]


def event_of(change: Change, *, is_progress: bool = False) -> Event:
    """Return a change as an event; `is_progress` for a run that was told of before."""
    place = place_at(change.completed_at or change.updated_at, change.id)
    name = f"job.{name_of(change, is_progress=is_progress)}"
    data = data_of(change)
    frame = b"id: %b\nevent: %b\ndata: %b\n\n" % (
        str(place).encode(),
        name.encode(),
        orjson.dumps(data),
    )
    return Event(place, change.workspace_id, change.status, name, frame, data)


def name_of(change: Change, *, is_progress: bool) -> str:
    """Return what happened, in one word."""
    match change.status:
        case JobStatus.PROCESSING:
            return "progress" if is_progress else "started"
        case JobStatus.PENDING | JobStatus.SCHEDULED:
            is_new = change.attempts == 0 and change.created_at == change.updated_at
            return "created" if is_new else str(change.status)
        case _:
            return str(change.status)


def data_of(change: Change) -> dict[str, Any]:
    """Return the API's shape of a job, without its payload, result and settings."""
    return {
        "id": str(change.id),
        "workspaceId": change.workspace_id,
        "type": change.type,
        "status": str(change.status),
        "priority": change.priority,
        "providerId": change.provider_id,
        "attempts": change.attempts,
        "maxRetries": change.max_retries,
        "progress": {"done": change.progress_done, "total": change.progress_total},
        "error": change.error,
        "createdAt": iso(change.created_at),
        "updatedAt": iso(change.updated_at),
        "scheduledAt": iso(change.scheduled_at),
        "startedAt": iso(change.started_at),
        "completedAt": iso(change.completed_at),
    }


def reset_frame(place: Place, reason: str) -> bytes:
    """Return the event that says: what you know may be old, ask for it again."""
    return b"id: %b\nevent: reset\ndata: %b\n\n" % (
        str(place).encode(),
        orjson.dumps({"reason": reason}),
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events a listener wants; None lets everything through."""

    ids: frozenset[UUID] | None = None
    statuses: frozenset[JobStatus] | None = None

    def lets(self, event: Event) -> bool:
        """Say whether an event is wanted."""
        return (self.ids is None or event.place.job_id in self.ids) and (
            self.statuses is None or event.status in self.statuses
        )

    @property
    def ended_statuses(self) -> Collection[str] | None:
        """Return the final states that are wanted."""
        return None if self.statuses is None else [str(one) for one in self.statuses & TERMINAL]


@dataclass(frozen=True, slots=True)
class Listener:
    """Who listens, and how to ask whether he still may."""

    key_id: str
    is_admitted: Callable[[], Awaitable[bool]]


async def always() -> bool:
    """Say that somebody may listen."""
    return True


ANYBODY: Final = Listener("", always)


class Subscription:
    """What one listener is still to be told; it never holds up another.

    Past its bounds it is overrun: what waits is dropped, and the listener has to begin anew.
    """

    def __init__(self, workspace_id: str, wanted: Wanted, listener: Listener = ANYBODY) -> None:
        self.workspace_id = workspace_id
        self.listener = listener
        self.wanted = wanted
        self.since: Place | None = None
        """Where it began; older events that turn up late are not for it. None: not begun yet."""
        self.has_begun = False
        """Whether changes of its workspace come in."""
        self.is_overrun = False
        self.is_revoked = False
        self.known: set[Place] = set()
        """Events it had from elsewhere."""
        self._waiting: deque[tuple[Place | None, bytes]] = deque()
        self._bytes = 0
        self._has_some = asyncio.Event()

    def put(self, event: Event) -> None:
        """Have an event told, if it is wanted."""
        if self.wanted.lets(event):
            self.put_frame(event.frame, event.place)

    def put_frame(self, frame: bytes, place: Place | None = None) -> None:
        """Have something told."""
        if self.is_overrun:
            return
        self._waiting.append((place, frame))
        self._bytes += len(frame)
        if len(self._waiting) > WAITING_EVENTS_MAX or self._bytes > WAITING_BYTES_MAX:
            self.is_overrun = True
            self._waiting.clear()
        self._has_some.set()

    def revoke(self) -> None:
        """End it: its listener may not listen any more."""
        self.is_revoked = True
        self._has_some.set()

    def clear(self) -> None:
        """Forget what waits: it is told in another way."""
        self._waiting.clear()
        self._bytes = 0

    async def next(self, *, within_s: float) -> bytes:
        """Return what is to be sent next, up to about 64 KiB; nothing if nothing came."""
        if not (self._waiting or self.is_overrun or self.is_revoked):
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._has_some.wait()
        piece = bytearray()
        while self._waiting and len(piece) < PIECE_BYTES_MAX:
            place, frame = self._waiting.popleft()
            self._bytes -= len(frame)
            if place is None or place not in self.known:
                piece += frame
        if not self._waiting:
            self._has_some.clear()
        return bytes(piece)


def note_changed(call: Call, job_ids: Iterable[object], *, workspace_id: str | None = None) -> None:
    """Tell who listens that jobs changed, of the caller's workspace if of no other.

    Call it after the commit.
    """
    changes = call.api.parts.get(CHANGES)
    if changes is not None:
        changes.note(workspace_id or call.workspace_id, map(str, job_ids))


class EventHub(Protocol):
    """Where events come from; the gateway has one."""

    @property
    def listeners(self) -> int:
        """Return how many streams are open."""

    def join(
        self, workspace_id: str, wanted: Wanted, *, place: Place | None, listener: Listener
    ) -> Subscription:
        """Open a listener's queue, from `place` on where it is known."""

    async def begun(self, subscription: Subscription, *, within_s: float) -> bool:
        """Wait until events of its workspace come in; False if that takes longer."""

    def recent(self, subscription: Subscription, place: Place) -> list[Event] | None:
        """Return what was told after a place; None if nobody remembers it."""

    def leave(self, subscription: Subscription) -> None:
        """Close a listener's queue."""
