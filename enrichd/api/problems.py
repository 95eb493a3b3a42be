"""From an error to its answer: problem details (RFC 9457) with a machine-readable code.

This table and the one of exit codes in `ctl/main.py` are the only two that know what an error class
means to the world outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from enrichd.api.messages import PROBLEM_TYPE, Response
from enrichd.errors import (
    EnrichdError,
    FieldProblem,
    Invalid,
    NotFound,
    ProviderError,
    Refused,
    Unavailable,
)

STATUSES: Final[tuple[tuple[type[EnrichdError], int], ...]] = (
    (Invalid, 422),
    (NotFound, 404),
    (Refused, 409),
    (Unavailable, 503),
    (ProviderError, 502),
    (EnrichdError, 500),
)
TITLES: Final[Mapping[int, str]] = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    422: "Invalid",
    428: "Precondition required",
    429: "Too many requests",
    500: "Internal error",
    502: "Provider trouble",
    503: "Unavailable",
}
RETRY_AFTER_S: Final = 5


class Problem(EnrichdError):
    """An answer that only HTTP knows: a missing key, a stale ETag, a limit."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.problem_code = code
        self.fields = tuple(fields)
        self.headers = dict(headers or {})


def problem_of(error: EnrichdError, *, request_id: str) -> Response:
    """Return the answer that an error stands for; nothing of it but its own sentence is told."""
    if isinstance(error, Problem):
        return problem(
            error.status,
            error.problem_code,
            error.message,
            request_id=request_id,
            fields=error.fields,
            headers=error.headers,
            hint=error.hint,
        )
    status = next(number for kind, number in STATUSES if isinstance(error, kind))
    # What PostgreSQL said may name hosts and tables; the log has it.
    detail = (
        "The database cannot be reached; nothing was changed." if status == 503 else error.message
    )
    return problem(
        status,
        error.code,
        detail,
        request_id=request_id,
        fields=error.fields if isinstance(error, Invalid) else (),
        headers={"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None,
        hint=None if status == 503 else error.hint,
    )


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    request_id: str,
    fields: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
    hint: str | None = None,
) -> Response:
    """Return problem details."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "code": code,
        "detail": detail,
        "requestId": request_id,
    }
    if hint:
        body["hint"] = hint
    if fields:
        body["errors"] = [{"path": part.path, "problem": part.problem} for part in fields]
    return Response(status, orjson.dumps(body), {"Content-Type": PROBLEM_TYPE, **(headers or {})})
