"""Reading `enqueue --from`: JSON lines, one job each, with every wrong line named.

Here a line becomes a NewJob by its shape alone; what its parts may be is the queue's to say.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO
from uuid import UUID

from enrichd.ctl.json_input import json_kind, parse_object
from enrichd.domain.jobs import DEFAULT_MAX_RETRIES, DEFAULT_PRIORITY, PAYLOAD_BYTES_MAX, NewJob
from enrichd.errors import InvalidPayload

LINE_BYTES_MAX = 2 * PAYLOAD_BYTES_MAX
SKIP_BYTES = 1 << 20

KEYS = (
    "type",
    "workspaceId",
    "payload",
    "id",
    "priority",
    "maxRetries",
    "tags",
    "webhookUrl",
    "idempotencyKey",
    "scheduledAt",
    "delayMs",
    "providerId",
)


@dataclass(frozen=True, slots=True)
class JobLine:
    """A line that has the shape of a job."""

    number: int
    job: NewJob
    size_bytes: int


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that has not, and why."""

    number: int
    problem: str


def read_job_lines(file: BinaryIO, *, workspace_id: str) -> Iterator[JobLine | BadLine]:
    """Yield the jobs of a file line by line; blank lines are left out.

    `workspace_id` is for lines that name none. Memory is bounded by the longest line allowed.
    """
    number = 0
    while line := file.readline(LINE_BYTES_MAX + 1):
        number += 1
        if len(line) > LINE_BYTES_MAX:
            yield BadLine(number, f"is longer than {LINE_BYTES_MAX:,} bytes")
            while line and not line.endswith(b"\n"):
                line = file.readline(SKIP_BYTES)
        elif line.strip():
            try:
                yield JobLine(number, job_of(parse_object(line.rstrip()), workspace_id), len(line))
            except InvalidPayload as error:
                yield BadLine(number, error.message)


def job_of(line: dict[str, Any], workspace_id: str) -> NewJob:
    """Return the job that an object describes. Raises InvalidPayload for a wrong key or kind."""
    for key in line:
        if key not in KEYS:
            close = difflib.get_close_matches(key, KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(KEYS)}"
            raise InvalidPayload(f"has the unknown key {key[:80]!r}; {hint}")
    for key in ("type", "payload"):
        if line.get(key) is None:
            raise InvalidPayload(f"has no {key}")
    given = {key: value for key, value in line.items() if value is not None}
    delay_ms = read(given, "delayMs", (int, float), "a number of milliseconds")
    return NewJob(
        type=read(given, "type", str, "text"),
        payload=read(given, "payload", dict, "an object"),
        workspace_id=read(given, "workspaceId", str, "text", workspace_id),
        id=parsed(given, "id", UUID, "a UUID"),
        priority=read(given, "priority", int, "a whole number", DEFAULT_PRIORITY),
        provider_id=read(given, "providerId", str, "text"),
        max_retries=read(given, "maxRetries", int, "a whole number", DEFAULT_MAX_RETRIES),
        tags=read(given, "tags", list, "an array of texts", ()),
        webhook_url=read(given, "webhookUrl", str, "text"),
        idempotency_key=read(given, "idempotencyKey", str, "text"),
        scheduled_at=parsed(
            given, "scheduledAt", datetime.fromisoformat, "a time such as 2030-01-31T08:00:00Z"
        ),
        delay_s=None if delay_ms is None else delay_ms / 1000,
    )


def read(
    given: dict[str, Any],
    key: str,
    kind: type | tuple[type, ...],
    wanted: str,
    default: Any = None,
) -> Any:
    """Return a key's value if it is of its kind, the default if it is absent."""
    if key not in given:
        return default
    value = given[key]
    # True is an int to Python, not to JSON.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InvalidPayload(f"{key} must be {wanted}, not {json_kind(value)}")
    return value


def parsed(given: dict[str, Any], key: str, parse: Callable[[str], Any], wanted: str) -> Any:
    """Return what a key's text stands for, None if it is absent."""
    text = read(given, key, str, wanted)
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError:
        raise InvalidPayload(f"{key} is {text[:60]!r}; it must be {wanted}") from None
