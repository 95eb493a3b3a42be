"""A listener to server-sent events, as a browser's EventSource reads them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Told:
    """One event."""

    id: str
    name: str
    data: dict[str, Any]

    @property
    def job(self) -> tuple[str, str]:
        """Return the event's name and its job's id."""
        return self.name, self.data["id"]


class Listener:
    """Reads one stream; what is no event is kept in `comments`."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.comments: list[str] = []
        self.last_id = ""

    async def next(self, *, within_s: float = WITHIN_S) -> Told | None:
        """Return the next event, None at the stream's end."""
        async with asyncio.timeout(within_s):
            while True:
                fields: dict[str, str] = {}
                while line := (await self.answer.content.readline()).decode():
                    line = line.rstrip("\n")
                    if not line:
                        break
                    if line.startswith(":"):
                        self.comments.append(line)
                        continue
                    name, _, value = line.partition(": ")
                    fields[name] = value
                else:
                    return None
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    return Told(self.last_id, fields["event"], json.loads(fields["data"]))

    async def until(self, name: str, job_id: str, *, within_s: float = WITHIN_S) -> list[Told]:
        """Return events up to the one of that name about that job."""
        seen = []
        async with asyncio.timeout(within_s):
            while True:
                told = await self.next(within_s=within_s)
                assert told is not None, f"the stream ended after {seen}"
                seen.append(told)
                if told.name == name and told.data.get("id") == job_id:
                    return seen

    async def is_listening(self) -> None:
        """Wait until the stream has said where it stands."""
        async with asyncio.timeout(WITHIN_S):
            while line := (await self.answer.content.readline()).decode():
                if line.startswith("id: "):
                    self.last_id = line[4:].rstrip("\n")
                    return


@asynccontextmanager
async def listening(
    port: int, *, key: str, query: str = "", last_id: str | None = None
) -> AsyncIterator[Listener]:
    """Open a stream; without `last_id`, wait until it stands."""
    headers = {"Authorization": f"Bearer {key}"}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    url = f"http://127.0.0.1:{port}/api/enrichment/events{query}"
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
        session.get(url, headers=headers) as answer,
    ):
        listener = Listener(answer)
        if answer.status == 200 and last_id is None:
            await listener.is_listening()
        yield listener
