"""Answer a request: find the route, see who asks, check what was sent, call, and explain errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError
from uuid_utils.compat import uuid7

from enrichd.api.messages import Answer, Request, Response
from enrichd.api.problems import Problem, problem, problem_of
from enrichd.api.routing import ROUTES, Access, Call, Principal, Route
from enrichd.errors import EnrichdError, FieldProblem
from enrichd.logs import get_logger
from enrichd.settings import Settings
from enrichd.store.tenancy import Tenants

log = get_logger("api")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
PROBLEMS_SHOWN_MAX = 20


class Gate(Protocol):
    """Says who is calling and how often they may; raises Problem (401, 403, 429)."""

    async def admit(
        self, request: Request, access: Access
    ) -> tuple[Principal | None, dict[str, str]]:
        """Return the caller and headers for the answer (`RateLimit`)."""


@dataclass(slots=True)
class Api:
    """The routes over one database, for any transport."""

    settings: Settings
    tenants: Tenants
    gate: Gate
    routes: Sequence[Route] = field(default_factory=lambda: ROUTES)
    parts: dict[str, Any] = field(default_factory=dict)
    """What only some routes need and a transport may not have: the event hub, providers."""

    async def answer(self, request: Request) -> Answer:
        """Return the answer to a request. Never raises but CancelledError."""
        given = request.header("x-request-id")
        request_id = given if REQUEST_ID.fullmatch(given) else str(uuid7())
        try:
            answer = await self._answer(request, request_id)
        except EnrichdError as error:
            answer = problem_of(error, request_id=request_id)
        except Exception as error:
            log.error(
                "request_broke", path=request.path[:200], request_id=request_id, exc_info=error
            )
            answer = problem(500, "internal_error", "enrichd has a bug.", request_id=request_id)
        answer.headers.setdefault("X-Request-Id", request_id)
        return answer

    async def _answer(self, request: Request, request_id: str) -> Answer:
        route, path = self._find(request)
        principal, headers = await self.gate.admit(request, route.access)
        call = Call(
            self,
            request,
            request_id,
            path,
            query=query_of(route, request),
            body=body_of(route, request),
            principal=principal,
        )
        answer = await route.handler(call)
        for name, value in headers.items():
            answer.headers.setdefault(name, value)
        return answer

    def _find(self, request: Request) -> tuple[Route, dict[str, str]]:
        allowed = []
        method = "GET" if request.method == "HEAD" else request.method
        for route in self.routes:
            match = route.pattern.fullmatch(request.path)
            if match is None:
                continue
            if route.method == method:
                return route, match.groupdict()
            allowed.append(route.method)
        if allowed:
            methods = ", ".join(sorted(set(allowed)))
            raise Problem(
                405,
                "method_not_allowed",
                f"{request.method[:20]} is not allowed here; {methods} is.",
                headers={"Allow": methods},
            )
        raise Problem(404, "no_such_route", "There is no such route.")


def query_of(route: Route, request: Request) -> Any:
    """Return the query as the route's model; a parameter given several times is a list."""
    given = {
        name: values[0] if len(values) == 1 else values for name, values in request.query.items()
    }
    try:
        return route.query.model_validate(given)
    except ValidationError as error:
        raise invalid("invalid_query", "The query", error) from None


def body_of(route: Route, request: Request) -> Any:
    """Return the body as the route's model, None for a route without one."""
    if route.body is None:
        return None
    kind = request.header("content-type").partition(";")[0].strip().lower()
    if kind not in ("application/json", ""):
        raise Problem(415, "unsupported_media_type", "The body must be application/json.")
    try:
        return TypeAdapter(route.body).validate_json(request.body)
    except ValidationError as error:
        raise invalid("invalid_body", "The body", error) from None


def invalid(code: str, what: str, error: ValidationError) -> Problem:
    """Return the problem with the path of each bad field."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    fields = [
        FieldProblem(".".join(map(str, part["loc"])), part["msg"])
        for part in details[:PROBLEMS_SHOWN_MAX]
    ]
    is_json = bool(details) and details[0]["type"] == "json_invalid"
    status = 400 if is_json else 422
    shown = "; ".join(map(str, fields[:3]))
    return Problem(status, code, f"{what} is wrong: {shown}", fields=fields)


__all__ = ["Api", "Gate", "Response", "body_of", "query_of"]
