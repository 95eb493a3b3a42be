"""Live updates over Supabase Realtime, for browsers that use supabase-js.

The hub tells of every change; the latest state of a job is sent at most once a second, together
with others'. It is best effort: nothing waits for it, what cannot be sent is dropped, and a server
that fails is left alone for a while. Of all gateways of a database one broadcasts.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, Protocol
from uuid import UUID

import aiohttp
from uuid_utils.compat import uuid7

from enrichd import metrics
from enrichd.api.hub import Hub
from enrichd.api.live import Event
from enrichd.errors import EnrichdError, Unavailable
from enrichd.logs import get_logger
from enrichd.settings import Settings
from enrichd.store import changes, realtime
from enrichd.store.changes import EVERYBODY
from enrichd.store.database import RACES, Database
from enrichd.store.realtime import Message

TOPIC: Final = "enrichment_updates"
EVENT: Final = "job_update"
NAME: Final = "realtime"
PATH: Final = "/realtime/v1/api/broadcast"
SHARED_WORKSPACE: Final = "default"
BATCH_MAX: Final = 100
WAITING_MAX: Final = 10_000
AGAIN_S = 1.0
"""A job's updates come no faster than this; the last one always comes."""
TICK_S = 0.1
LEASE_S = 15.0
RENEW_S = 4.0
SEND_S = 10.0
REST_MIN_S = 1.0
REST_MAX_S = 60.0
ANSWER_BYTES_MAX = 4096

log = get_logger("realtime")


class NotSent(Exception):
    """Messages were not taken; `rest_s` is when to try again, if whoever refused says so."""

    def __init__(
        self, reason: str, *, rest_s: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(reason)
        self.rest_s = rest_s
        self.is_final = status is not None and 400 <= status < 500 and status not in (408, 429)
        """Whether the same messages will be refused again."""
        self.is_body_refused = status in (400, 422)
        """Whether it is the messages that were refused, and not the key."""


class Sender(Protocol):
    """A way to Realtime."""

    async def send(self, messages: Sequence[Message]) -> None:
        """Send up to 100 messages. Raises NotSent."""

    async def close(self) -> None:
        """Close what it holds."""


class BySql:
    """Sends by `realtime.send`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def send(self, messages: Sequence[Message]) -> None:
        """Send messages in one statement. Raises NotSent."""
        try:
            async with self._database.connection() as conn:
                await realtime.send(conn, messages)
        except (EnrichdError, *RACES) as error:
            raise NotSent(str(error)) from error

    async def close(self) -> None:
        """Close the connection."""
        await self._database.close()


class ByRest:
    """Sends by HTTP."""

    def __init__(self, base_url: str, key: str) -> None:
        self._url = base_url.rstrip("/") + PATH
        self._headers = headers_for(key)
        self._session: aiohttp.ClientSession | None = None

    async def send(self, messages: Sequence[Message]) -> None:
        """Send messages in one request. Raises NotSent."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=SEND_S), cookie_jar=aiohttp.DummyCookieJar()
            )
        document = {"messages": [document_of(message) for message in messages]}
        try:
            async with self._session.post(
                self._url, json=document, headers=self._headers, allow_redirects=False
            ) as answer:
                said = (await answer.content.read(ANSWER_BYTES_MAX)).decode("utf-8", "replace")
                status, retry_after = answer.status, answer.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NotSent(f"{type(error).__name__}: {error}") from error
        if not 200 <= status < 300:
            raise NotSent(
                f"answer {status}: {said[:200]}",
                rest_s=float(retry_after) if retry_after.isdecimal() else None,
                status=status,
            )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


async def refusal_of(base_url: str, key: str, *, timeout_s: float) -> str | None:
    """Return why broadcasts with a key are not taken, None if they are; nothing is broadcast.

    An empty list of messages passes the check of the key and ends at the check of the body.
    """
    sender = ByRest(base_url, key)
    try:
        async with asyncio.timeout(timeout_s):
            await sender.send([])
    except TimeoutError:
        return "no answer in time"
    except NotSent as error:
        return None if error.is_body_refused else str(error)
    finally:
        await sender.close()
    return None


def headers_for(key: str) -> dict[str, str]:
    """Return the headers of a key: only the legacy ones, JSON Web Tokens, are bearer tokens."""
    is_token = key.startswith("eyJ") and key.count(".") == 2
    return {"apikey": key, **({"Authorization": f"Bearer {key}"} if is_token else {})}


def document_of(message: Message) -> dict[str, Any]:
    """Return a message as the REST interface takes it."""
    return {
        "topic": message.topic,
        "event": message.event,
        "payload": message.payload,
        "private": message.is_private,
    }


def message_of(event: Event, *, is_shared: bool) -> Message:
    """Return a change as a broadcast.

    The topic `enrichment_updates` is open to whoever has the project's public key, so it says only
    which job is in which state, and only of the workspace `default`. Other topics are private: a
    policy decides who may listen.
    """
    data = event.data
    if is_shared and event.workspace_id == SHARED_WORKSPACE:
        known = {"jobId": data["id"], "status": data["status"], "updatedAt": data["updatedAt"]}
        return Message(TOPIC, EVENT, known, is_private=False)
    fields = ("workspaceId", "type", "status", "progress", "attempts", "updatedAt", "completedAt")
    payload = {"jobId": data["id"], **{name: data[name] for name in fields}}
    return Message(f"{TOPIC}:{event.workspace_id}", EVENT, payload, is_private=True)


class Broadcaster:
    """Sends what the hub tells while this gateway is the one that does."""

    def __init__(
        self, hub: Hub, database: Database, sender: Sender, *, is_shared: bool = True
    ) -> None:
        self._hub = hub
        self._database = database
        self._sender = sender
        self._is_shared = is_shared
        self._holder: UUID = uuid7()
        self._waiting: OrderedDict[UUID, Event] = OrderedDict()
        self._sent_at: OrderedDict[UUID, float] = OrderedDict()
        self._rest_s = REST_MIN_S
        self._has_complained = False

    async def run(self) -> None:
        """Broadcast until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._lead())
                group.create_task(self._send_again_and_again())
        finally:
            self._hub.watch_no_more(self._note)
            with suppress(Unavailable, TimeoutError, *RACES):
                async with asyncio.timeout(1.0), self._database.connection() as conn:
                    await changes.unmark(conn, name=NAME, holder=self._holder)
            await self._database.close()
            await self._sender.close()

    async def _lead(self) -> None:
        """Be the one that broadcasts, if nobody else is."""
        clock = asyncio.get_running_loop().time
        until = 0.0
        while True:
            asked = clock()
            try:
                async with self._database.connection() as conn:
                    moment = await changes.mark(
                        conn,
                        name=NAME,
                        holder=self._holder,
                        workspaces=[EVERYBODY],
                        lease_s=LEASE_S,
                    )
                until = asked + LEASE_S if moment is not None else 0.0
            except (Unavailable, *RACES) as error:
                log.debug("realtime_lease_unsure", reason=str(error))
            if clock() < until:
                self._hub.watch(self._note)
            else:
                self._hub.watch_no_more(self._note)
                self._waiting.clear()
            await asyncio.sleep(RENEW_S)

    def _note(self, event: Event) -> None:
        job_id = event.place.job_id
        if job_id not in self._waiting and len(self._waiting) >= WAITING_MAX:
            self._waiting.popitem(last=False)
            metrics.realtime_messages("dropped", 1)
        self._waiting[job_id] = event

    async def _send_again_and_again(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(TICK_S)
            while batch := self._due(clock()):
                if not await self._send(batch):
                    break

    def _due(self, now: float) -> list[Event]:
        """Take the events of jobs that were not told of for a second."""
        while self._sent_at and next(iter(self._sent_at.values())) <= now - AGAIN_S:
            self._sent_at.popitem(last=False)
        due = [job_id for job_id in self._waiting if job_id not in self._sent_at][:BATCH_MAX]
        for job_id in due:
            self._sent_at[job_id] = now
        return [self._waiting.pop(job_id) for job_id in due]

    async def _send(self, batch: list[Event]) -> bool:
        """Send events; False when it is time to rest."""
        messages = [message_of(event, is_shared=self._is_shared) for event in batch]
        try:
            await self._sender.send(messages)
        except NotSent as error:
            metrics.realtime_messages("failed", len(batch))
            # Once an outage: a server that is away for a day says nothing new each second.
            tell = log.debug if self._has_complained else log.warning
            tell("realtime_not_sent", messages=len(batch), reason=str(error))
            self._has_complained = True
            if not error.is_final:
                self._wait_again(batch)
            rest_s = self._rest_s if error.rest_s is None else max(error.rest_s, self._rest_s)
            self._rest_s = min(2 * self._rest_s, REST_MAX_S)
            await asyncio.sleep(min(rest_s, REST_MAX_S))
            return False
        metrics.realtime_messages("sent", len(batch))
        self._rest_s, self._has_complained = REST_MIN_S, False
        return True

    def _wait_again(self, batch: Sequence[Event]) -> None:
        """Put events back in front, unless something newer is known of their jobs."""
        for event in reversed(batch):
            job_id = event.place.job_id
            if job_id not in self._waiting and len(self._waiting) < WAITING_MAX:
                self._waiting[job_id] = event
                self._waiting.move_to_end(job_id, last=False)


async def broadcaster_of(settings: Settings, hub: Hub, database: Database) -> Broadcaster | None:
    """Return what broadcasts as the settings have it, None if they do not.

    It goes through the database where that has `realtime.send`; waits for PostgreSQL to know.
    """
    key = settings.supabase_service_role_key or settings.supabase_anon_key
    if settings.supabase_url is None or key is None or settings.supabase_realtime == "off":
        return None
    sender: Sender = ByRest(settings.supabase_url, key.get_secret_value())
    while True:
        try:
            async with database.connection() as conn:
                if await realtime.can_send(conn):
                    sender = BySql(database.sibling("send"))
                break
        except (Unavailable, *RACES):
            await asyncio.sleep(REST_MIN_S)
    is_shared = settings.supabase_realtime == "auto"
    log.info("realtime_broadcasts", by=type(sender).__name__, is_shared=is_shared)
    return Broadcaster(hub, database, sender, is_shared=is_shared)


async def broadcast(settings: Settings, hub: Hub, database: Database) -> None:
    """Broadcast until cancelled, if the settings say so."""
    try:
        found = await broadcaster_of(settings, hub, database)
        if found is not None:
            await found.run()
    finally:
        await database.close()
