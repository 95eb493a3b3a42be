"""`GET /api/enrichment/events`: a workspace's jobs as they go, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Final
from uuid import UUID

from pydantic import BeforeValidator, Field

from enrichd import metrics
from enrichd.api.job_models import ApiModel
from enrichd.api.live import (
    Event,
    EventHub,
    Listener,
    Place,
    Subscription,
    Wanted,
    event_of,
    place_at,
    place_of,
    reset_frame,
)
from enrichd.api.messages import Answer, Stream
from enrichd.api.problems import Problem
from enrichd.api.routing import Access, Call, route
from enrichd.api.transactions import in_workspace
from enrichd.domain.jobs import JobStatus
from enrichd.errors import EnrichdError, Unavailable
from enrichd.store import changes
from enrichd.store.changes import Change
from enrichd.store.database import Connection

EVENT_STREAM: Final = "text/event-stream"
HUB: Final = "hub"
"""The name of the hub among the Api's parts."""
STREAMS_MAX: Final = 1_500
"""Streams are never idle, so they make no room: some places stay for everybody else."""
HEARTBEAT_S = 15.0
AWAY_S = 2.0
"""How long to wait before a listener's past is asked for again."""
BEGIN_S = 3.0
MISSED_MAX: Final = 10_000
MISSED_S_MAX: Final = 3_600.0
OVERLAP_S: Final = 5.0
"""Jobs end a little out of order; from a place that no gateway remembers, some come twice."""
KNOWN_S = 30.0
RETRY_MS: Final = 1_000
IDS_MAX: Final = 100


def listed(given: object) -> object:
    """Take `a,b` and repeated parameters alike."""
    values = given if isinstance(given, list) else [given]
    return [part for value in values for part in str(value).split(",")]


class EventsQuery(ApiModel):
    """Which events are wanted; absent: all of the workspace."""

    job_id: (
        Annotated[frozenset[UUID], Field(max_length=IDS_MAX), BeforeValidator(listed)] | None
    ) = None
    """Only these jobs, separated by commas or given several times."""
    status: Annotated[frozenset[JobStatus], BeforeValidator(listed)] | None = None
    """Only events that show a job in one of these states."""


@route(
    "GET",
    "/events",
    Access.READ,
    query=EventsQuery,
    answers={200: EVENT_STREAM},
    headers={
        "Last-Event-ID": "The id of the last event that was received: what ended since comes."
    },
)
async def events(call: Call) -> Answer:
    """Tell what becomes of jobs, as it happens."""
    hub: EventHub | None = call.api.parts.get(HUB)
    if hub is None:
        raise Problem(501, "no_live_updates", "Live updates are served by the daemon's gateway.")
    if hub.listeners >= STREAMS_MAX:
        raise Problem(
            503,
            "too_many_streams",
            f"{STREAMS_MAX:,} streams are open; try again later.",
            headers={"Retry-After": "5"},
        )
    wanted = Wanted(call.query.job_id, call.query.status)
    return Stream(
        200,
        stream(call, hub, wanted, call.request.header("last-event-id")),
        {
            "Content-Type": EVENT_STREAM,
            "Cache-Control": "no-store, no-transform",
            "X-Accel-Buffering": "no",
        },
    )


async def stream(call: Call, hub: EventHub, wanted: Wanted, last_id: str) -> AsyncIterator[bytes]:
    """Yield the pieces of one stream until the key is revoked or the listener falls behind."""
    place = place_of(last_id) if last_id else None
    assert call.principal is not None
    listener = Listener(call.principal.key_id, lambda: is_still_admitted(call))
    subscription = hub.join(call.workspace_id, wanted, place=place, listener=listener)
    metrics.live_stream("opened")
    try:
        yield f"retry: {RETRY_MS}\n: listening\n\n".encode()
        if not await hub.begun(subscription, within_s=BEGIN_S):
            yield b": the database is away; updates follow\n\n"
        async for piece in caught_up(call, hub, subscription, last_id, place):
            yield piece
        async for piece in told(subscription):
            yield piece
    finally:
        hub.leave(subscription)


async def caught_up(
    call: Call, hub: EventHub, subscription: Subscription, last_id: str, place: Place | None
) -> AsyncIterator[bytes]:
    """Yield what a listener missed, and where it stands."""
    if place is None:
        moment = subscription.since
        if last_id:
            yield reset_frame(moment or place_of_nothing(), "the id is none of these events'")
        elif moment is not None:
            # An id without data sets where an EventSource stands, before the first event.
            yield f"id: {moment}\n\n".encode()
        return
    remembered = hub.recent(subscription, place)
    if remembered is not None:
        subscription.clear()  # What waits was told since, so it is among them.
        missed = remembered
    else:
        while (found := await missed_since(call, subscription.wanted, place)) is None:
            yield b": the database is away; updates follow\n\n"
            await asyncio.sleep(AWAY_S)
        if isinstance(found, bytes):
            yield found
            return
        missed = found
    subscription.known = {event.place for event in missed} | {place}
    asyncio.get_running_loop().call_later(KNOWN_S, subscription.known.clear)
    for start in range(0, len(missed), 100):
        frames = [e.frame for e in missed[start : start + 100] if subscription.wanted.lets(e)]
        if frames:
            yield b"".join(frames)


async def missed_since(call: Call, wanted: Wanted, place: Place) -> list[Event] | bytes | None:
    """Return what ended since a place, or the reset that says that it cannot be told.

    None while the database is away.
    """

    async def read(conn: Connection) -> list[Change] | Place:
        now = await changes.now(conn)
        if not timedelta(0) <= now - place.at <= timedelta(seconds=MISSED_S_MAX):
            return place_at(now)
        found = await changes.missed(
            conn,
            workspace_id=call.workspace_id,
            since=place.at - timedelta(seconds=OVERLAP_S),
            ids=wanted.ids,
            statuses=wanted.ended_statuses,
            limit=MISSED_MAX + 1,
        )
        return found if len(found) <= MISSED_MAX else place_at(now)

    try:
        found = await in_workspace(call, read)
    except Unavailable:
        return None
    if isinstance(found, Place):
        return reset_frame(found, "too much happened since")
    return [event for event in map(event_of, found) if event.place != place]


async def told(subscription: Subscription) -> AsyncIterator[bytes]:
    """Yield events as they come, and a comment now and then."""
    clock = asyncio.get_running_loop().time
    spoke = clock()
    while True:
        piece = await subscription.next(within_s=max(spoke + HEARTBEAT_S - clock(), 0.0))
        if subscription.is_revoked:
            metrics.live_stream("revoked")
            return
        if subscription.is_overrun:
            metrics.live_stream("overrun")
            yield reset_frame(place_of_nothing(), "you read too slowly")
            return
        if piece or clock() - spoke >= HEARTBEAT_S:
            spoke = clock()
            yield piece or b": still here\n\n"


async def is_still_admitted(call: Call) -> bool:
    """Say whether the key may still listen; while the database is away nobody can tell."""
    try:
        await call.api.gate.admit(call.request, Access.READ)
    except Problem as problem:
        return problem.status not in (401, 403)
    except EnrichdError:
        return True
    return True


def place_of_nothing() -> Place:
    """Return a place so old that whoever resumes from it is told to begin anew."""
    return Place(0, UUID(int=0))
