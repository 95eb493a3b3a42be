"""Answer a request: find the route, see who asks, check what was sent, call, and explain errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import ValidationError
from uuid_utils.compat import uuid7

from enrichd.api.cors import cors_headers
from enrichd.api.key_limits import Buckets
from enrichd.api.messages import Answer, Request, Response
from enrichd.api.problems import Problem, problem, problem_of
from enrichd.api.routes import ROUTES
from enrichd.api.routing import Access, Branch, Call, NoQuery, Principal, Route, tree_of
from enrichd.errors import EnrichdError, FieldProblem
from enrichd.logs import get_logger
from enrichd.queue.hints import Hints
from enrichd.settings import Settings
from enrichd.store.tenancy import Tenants

log = get_logger("api")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
PROBLEMS_SHOWN_MAX = 20
NO_QUERY = NoQuery()


class Gate(Protocol):
    """Says who is calling; raises Problem (401, 403)."""

    async def admit(
        self, request: Request, access: Access
    ) -> tuple[Principal | None, dict[str, str]]:
        """Return the caller, None on a route that needs no key, and headers for the answer."""


@dataclass(slots=True)
class Api:
    """The routes over one database, for any transport."""

    settings: Settings
    tenants: Tenants
    gate: Gate
    hints: Hints
    routes: Sequence[Route] = field(default_factory=lambda: ROUTES)
    parts: dict[str, Any] = field(default_factory=dict)
    """What only some routes need and a transport may not have: the event hub, providers."""
    buckets: Buckets | None = None
    """How often a key may call; None is as often as it likes."""
    tree: Branch = field(init=False)

    def __post_init__(self) -> None:
        self.tree = tree_of(self.routes)

    async def answer(self, request: Request) -> Answer:
        """Return the answer to a request. Never raises but CancelledError."""
        given = request.header("x-request-id")
        request_id = given if given and REQUEST_ID.fullmatch(given) else str(uuid7())
        template = key_id = "none"
        methods: tuple[str, ...] = ()
        headers: dict[str, str] = {}
        try:
            branch, path = self._find(request)
            methods = branch.methods
            if request.method == "OPTIONS":
                answer: Answer = Response(204, headers={"Allow": ", ".join(methods)})
            else:
                route = route_of(branch, request)
                template = route.template
                principal, more = await self.gate.admit(request, route.access)
                headers |= more
                if principal is not None:
                    key_id = principal.key_id
                    if self.buckets is not None:
                        headers |= self.buckets.take(key_id)
                query, body = query_of(route, request), body_of(route, request)
                answer = await route.handler(
                    Call(self, request, request_id, path, query, body, principal)
                )
        except EnrichdError as error:
            answer = problem_of(error, request_id=request_id)
        except Exception as error:
            log.error("request_broke", route=template, request_id=request_id, exc_info=error)
            answer = problem(500, "internal_error", "enrichd has a bug.", request_id=request_id)
        headers |= cors_headers(request, self.settings.api_cors_origins, methods)
        for name, value in headers.items():
            answer.headers.setdefault(name, value)
        answer.headers["X-Request-Id"] = request_id
        answer.route, answer.key_id = template, key_id
        return answer

    def _find(self, request: Request) -> tuple[Branch, dict[str, str]]:
        found = self.tree.find(request.path)
        if found is None or not found[0].methods:
            raise Problem(404, "no_such_route", "There is no such route.")
        return found


def route_of(branch: Branch, request: Request) -> Route:
    """Return the route of a request's method. Raises Problem 405."""
    route = branch.by_method.get("GET" if request.method == "HEAD" else request.method)
    if route is None:
        methods = ", ".join(branch.methods)
        raise Problem(
            405,
            "method_not_allowed",
            f"{request.method[:20]} is not allowed here; {methods} are.",
            headers={"Allow": methods},
        )
    return route


def query_of(route: Route, request: Request) -> Any:
    """Return the query as the route's model; a parameter given several times is a list."""
    if not request.query and route.query is NoQuery:
        return NO_QUERY
    given = {
        name: values[0] if len(values) == 1 else values for name, values in request.query.items()
    }
    try:
        return route.query.model_validate(given)
    except ValidationError as error:
        raise invalid("invalid_query", "The query", error) from None


def body_of(route: Route, request: Request) -> Any:
    """Return the body as the route's model, None for a route without one and where it may be."""
    if route.body_reader is None or (route.is_body_optional and not request.body):
        return None
    kind = request.header("content-type").partition(";")[0].strip().lower()
    if kind not in ("application/json", ""):
        raise Problem(
            415,
            "unsupported_media_type",
            "The body must be application/json.",
            hint="Send the header Content-Type: application/json.",
        )
    try:
        return route.body_reader.validate_json(request.body)
    except ValidationError as error:
        raise invalid("invalid_body", "The body", error) from None


def invalid(code: str, what: str, error: ValidationError) -> Problem:
    """Return the problem with the path of each bad field."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    fields = [
        FieldProblem(path_of(part["loc"]), part["msg"]) for part in details[:PROBLEMS_SHOWN_MAX]
    ]
    is_json = bool(details) and details[0]["type"] == "json_invalid"
    status = 400 if is_json else 422
    shown = "; ".join(map(str, fields[:3]))
    return Problem(status, code, f"{what} is wrong: {shown}", fields=fields)


def path_of(location: Sequence[int | str]) -> str:
    """Return a place in a document as a dotted path; the tags of unions are no part of it."""
    parts = [str(part)[:100] for part in location]
    return ".".join(part for part in parts if not part.startswith("("))


__all__ = ["Api", "Gate", "Response", "body_of", "query_of"]
