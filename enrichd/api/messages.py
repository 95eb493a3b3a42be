"""A request and its answer, whatever carries them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import orjson

from enrichd.domain.facts import Json

JSON_TYPE = "application/json"
PROBLEM_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request; its body is within the transport's limit."""

    method: str
    path: str
    """Percent-decoded, without the query."""
    query: Mapping[str, list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name; of several with one name the last."""
    body: bytes = b""
    client: str = ""
    """The peer's address, for limits and the log; empty if the transport does not know it."""

    def header(self, name: str) -> str:
        """Return a header by its lower-case name, empty if it is not there."""
        return self.headers.get(name, "")


@dataclass(slots=True)
class Response:
    """A whole answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    route: str = "none"
    """The template of the route that answered, for metrics and the log."""
    key_id: str = ""
    """The caller's key, for the log."""


@dataclass(slots=True)
class Stream:
    """An answer whose body comes piece by piece; closed by the transport when nobody reads."""

    status: int
    pieces: AsyncIterator[bytes]
    headers: dict[str, str] = field(default_factory=dict)
    route: str = "none"
    key_id: str = ""


Answer: TypeAlias = Response | Stream


def json_response(data: Json, status: int = 200, **headers: str) -> Response:
    """Return a JSON answer; header names are given with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, orjson.dumps(data), {"Content-Type": JSON_TYPE, **named})
