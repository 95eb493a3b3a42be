"""The table of routes: what each takes and gives is said once, for dispatch and for OpenAPI."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel

from enrichd.api.messages import Answer, Request

if TYPE_CHECKING:
    from enrichd.api.application import Api

PREFIX = "/api/enrichment"


class Access(StrEnum):
    """Who may call a route."""

    READ = "read"
    """A key with the scope read."""
    WRITE = "write"
    ADMIN = "admin"
    CRON = "cron"
    """Whoever knows CRON_SECRET."""
    SIGNED = "signed"
    """A provider, by its signature or a callback token; the route checks that itself."""
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling: one workspace's key."""

    workspace_id: str
    key_id: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Call:
    """One request that may go ahead, its parts checked."""

    api: Api
    request: Request
    request_id: str
    path: Mapping[str, str]
    query: Any
    """An instance of the route's `query` model."""
    body: Any
    """An instance of the route's `body` model, None for a route without."""
    principal: Principal | None

    @property
    def workspace_id(self) -> str:
        """Return the caller's workspace; only for routes that need a key."""
        assert self.principal is not None
        return self.principal.workspace_id


Handler: TypeAlias = Callable[[Call], Awaitable[Answer]]


class NoQuery(BaseModel):
    """A route without query parameters."""

    model_config = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class Route:
    """One operation."""

    method: str
    path: str
    """Below PREFIX, `/jobs/{id}`."""
    handler: Handler
    access: Access
    summary: str
    answers: Mapping[int, Any] = field(default_factory=dict)
    """By status: the model of the body, or a media type's name for what is not JSON."""
    body: Any = None
    """A pydantic model or a union of models; None for a route without a body."""
    query: type[BaseModel] = NoQuery
    headers: Mapping[str, str] = field(default_factory=dict)
    """Request headers that mean something here, with a sentence each."""

    @property
    def pattern(self) -> re.Pattern[str]:
        """Return the path as a pattern; a parameter takes one segment."""
        text = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]{1,200})", re.escape(PREFIX + self.path))
        return re.compile(text)


ROUTES: list[Route] = []


def route(
    method: str,
    path: str,
    access: Access,
    *,
    answers: Mapping[int, Any],
    body: Any = None,
    query: type[BaseModel] = NoQuery,
    headers: Mapping[str, str] | None = None,
) -> Callable[[Handler], Handler]:
    """Add the decorated function to the table; its docstring's first line is the summary."""

    def add(handler: Handler) -> Handler:
        summary = (handler.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        ROUTES.append(
            Route(method, path, handler, access, summary, answers, body, query, headers or {})
        )
        return handler

    return add
