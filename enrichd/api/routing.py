"""The table of routes: what each takes and gives is said once, for dispatch and for OpenAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel, TypeAdapter

from enrichd.api.messages import Answer, Request

if TYPE_CHECKING:
    from enrichd.api.application import Api

PREFIX = "/api/enrichment"
PARAMETER_CHARS_MAX = 200


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
    """By status: the model of the body, a media type's name for what is not JSON, or a tuple of
    such; None is no body."""
    body: Any = None
    """A pydantic model or a union of models; None for a route without a body."""
    query: type[BaseModel] = NoQuery
    headers: Mapping[str, str] = field(default_factory=dict)
    """Request headers that mean something here, with a sentence each."""
    is_body_optional: bool = False
    body_reader: TypeAdapter[Any] | None = field(init=False, compare=False, repr=False)
    """Made once: building it takes longer than most requests."""

    def __post_init__(self) -> None:
        reader = None if self.body is None else TypeAdapter(self.body)
        object.__setattr__(self, "body_reader", reader)

    @property
    def template(self) -> str:
        """Return the whole path with its parameters' names: what metrics and logs show."""
        return PREFIX + self.path


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
    is_body_optional: bool = False,
) -> Callable[[Handler], Handler]:
    """Add the decorated function to the table; its docstring's first line is the summary."""

    def add(handler: Handler) -> Handler:
        summary = (handler.__doc__ or "").strip().partition("\n")[0].rstrip(".")
        ROUTES.append(
            Route(
                method,
                path,
                handler,
                access,
                summary,
                answers,
                body,
                query,
                headers or {},
                is_body_optional,
            )
        )
        return handler

    return add


class Branch:
    """The routes below one part of a path: one step for each segment, however many routes."""

    def __init__(self) -> None:
        self.by_method: dict[str, Route] = {}
        self.methods: tuple[str, ...] = ()
        """What may be asked here, with what follows from it: HEAD from GET, OPTIONS always."""
        self._named: dict[str, Branch] = {}
        self._any: tuple[str, Branch] | None = None
        """The parameter's name, and what is below it."""

    def find(self, path: str) -> tuple[Branch, dict[str, str]] | None:
        """Return the branch of a path and its parameters, None for an unknown path.

        A name goes before a parameter: `/jobs/metrics` is never a job's id.
        """
        if not path.startswith(PREFIX + "/"):
            return None
        branch, parameters = self, {}
        for segment in path[len(PREFIX) + 1 :].split("/"):
            named = branch._named.get(segment)
            if named is not None:
                branch = named
            elif branch._any is not None and 1 <= len(segment) <= PARAMETER_CHARS_MAX:
                name, branch = branch._any
                parameters[name] = segment
            else:
                return None
        return branch, parameters

    def add(self, route: Route) -> None:
        """Add a route. Raises ValueError for one that is there already."""
        branch = self
        for segment in route.path.strip("/").split("/"):
            if segment.startswith("{"):
                name = segment.strip("{}")
                if branch._any is None:
                    branch._any = (name, Branch())
                if branch._any[0] != name:
                    raise ValueError(f"{route.path}: the parameter is {branch._any[0]} elsewhere")
                branch = branch._any[1]
            else:
                branch = branch._named.setdefault(segment, Branch())
        if route.method in branch.by_method:
            raise ValueError(f"{route.method} {route.path} is there twice")
        branch.by_method[route.method] = route
        more = {"HEAD", "OPTIONS"} if "GET" in branch.by_method else {"OPTIONS"}
        branch.methods = tuple(sorted(more | branch.by_method.keys()))


def tree_of(routes: Iterable[Route]) -> Branch:
    """Return the routes as a tree."""
    tree = Branch()
    for one in routes:
        tree.add(one)
    return tree
