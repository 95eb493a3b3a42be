"""From what a caller asks for to a row the table takes, with every wrong part named."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import NoneType
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import orjson
from pydantic import BaseModel, ValidationError
from uuid_utils.compat import uuid7

from enrichd.domain import payloads
from enrichd.domain.jobs import (
    DELAY_S_MAX,
    MAX_RETRIES_LIMIT,
    NO_PROVIDER,
    PAYLOAD_BYTES_MAX,
    PRIORITIES,
    TAGS_MAX,
    NewJob,
)
from enrichd.errors import FieldProblem, InvalidPayload
from enrichd.store.json_text import is_encodable
from enrichd.store.new_jobs import Row

NUL = b"\\u0000"
NULL = b"null"
YEARS = range(2000, 10_000)


def row_of(new: NewJob) -> Row:
    """Check a new job and return it as a row. Raises InvalidPayload naming each wrong field."""
    if not is_plain(new) and (problems := problems_of(new)):
        shown = "; ".join(map(str, problems[:5]))
        raise InvalidPayload(f"the job cannot be enqueued: {shown}", fields=problems)
    payload = payload_text(new.payload)
    model = model_of(new.type, payload)
    # By position: by name it takes twice as long, for each job of a bulk enqueue.
    return Row(
        new.id or uuid7(),
        new.workspace_id,
        new.type,
        new.priority,
        new.provider_id or lane_of(model),
        payload,
        new.tags,
        new.max_retries,
        payloads.cost_of(model),
        new.webhook_url,
        new.idempotency_key,
        new.scheduled_at.isoformat() if new.scheduled_at else None,
        new.delay_s,
        new.id is None and new.idempotency_key is None,
    )


def is_plain(new: NewJob) -> bool:
    """Say whether a job is so simple that problems_of could find nothing, in an eighth of its time.

    Most jobs of a bulk enqueue are. False says nothing.
    """
    workspace = new.workspace_id
    return (
        type(new.type) is str
        and type(new.payload) is dict
        and type(workspace) is str
        and 1 <= len(workspace) <= 100
        and workspace.isascii()
        and workspace.isprintable()
        and type(new.priority) is int
        and new.priority in PRIORITIES
        and type(new.max_retries) is int
        and 0 <= new.max_retries <= MAX_RETRIES_LIMIT
        and new.tags == ()
        and new.id is None
        and new.provider_id is None
        and new.webhook_url is None
        and new.idempotency_key is None
        and new.scheduled_at is None
        and new.delay_s is None
    )


def model_of(job_type: str, payload: str) -> BaseModel:
    """Return a payload's text as its model. Raises InvalidPayload with every wrong field.

    The text, because that is what the worker will read: an infinite float is null in it. What is
    right goes to the model's core, around two calls that take as long as a small payload.
    """
    known = payloads.MODELS.get(job_type)
    if known is not None:
        try:
            return known.__pydantic_validator__.validate_json(payload)  # type: ignore[no-any-return]
        except ValidationError:
            pass  # Said with every field named below.
    return payloads.parse(job_type, payload)


def lane_of(model: BaseModel) -> str:
    """Return the lane that a payload names, or `-`."""
    return model.provider_id if isinstance(model, payloads.Sourcing) else NO_PROVIDER


def problems_of(new: NewJob) -> list[FieldProblem]:
    """Return what is wrong with everything about a job but its payload."""
    problems = []

    def wrong(field: str, problem: str) -> None:
        problems.append(FieldProblem(field, problem))

    for field, value, kinds, wanted in (
        ("type", new.type, str, "text"),
        ("id", new.id, (UUID, NoneType), "a UUID"),
        ("payload", new.payload, (dict, Mapping), "a JSON object"),
    ):
        if not isinstance(value, kinds):
            wrong(field, f"must be {wanted}, not {json_kind(value)}")
    if type(new.priority) is not int or new.priority not in PRIORITIES:
        wrong("priority", f"is {new.priority!r}; it must be 1 (highest) to 5 (lowest)")
    if type(new.max_retries) is not int or not 0 <= new.max_retries <= MAX_RETRIES_LIMIT:
        wrong("maxRetries", f"is {new.max_retries!r}; it must be 0 to {MAX_RETRIES_LIMIT}")
    if text_problem := text_problem_of(new.workspace_id, 100):
        wrong("workspaceId", text_problem)
    if new.provider_id is not None and (text_problem := text_problem_of(new.provider_id, 100)):
        wrong("providerId", text_problem)
    if new.idempotency_key is not None and (
        text_problem := text_problem_of(new.idempotency_key, 255)
    ):
        wrong("idempotencyKey", text_problem)
    if new.delay_s is not None and new.scheduled_at is not None:
        wrong("delay", "give a delay or a time, not both")
    if new.delay_s is not None and (problem := delay_problem_of(new.delay_s)):
        wrong("delay", problem)
    if new.scheduled_at is not None and (problem := time_problem_of(new.scheduled_at)):
        wrong("scheduledAt", problem)
    if new.webhook_url is not None and (problem := url_problem_of(new.webhook_url)):
        wrong("webhookUrl", problem)
    if isinstance(new.tags, str) or not isinstance(new.tags, Sequence):
        wrong("tags", f"must be an array of texts, not {json_kind(new.tags)}")
        return problems
    if len(new.tags) > TAGS_MAX:
        wrong("tags", f"has {len(new.tags)} entries; {TAGS_MAX} is the limit")
    for place, tag in enumerate(new.tags):
        if problem := text_problem_of(tag, 100):
            wrong(f"tags.{place}", problem)
    return problems


def text_problem_of(text: object, length_max: int) -> str | None:
    """Say what is wrong with a short text, or None."""
    if not isinstance(text, str):
        return f"must be text, not {json_kind(text)}"
    if not 1 <= len(text) <= length_max:
        return f"has {len(text)} characters; it must have 1 to {length_max}"
    if "\0" in text or not (text.isascii() or is_encodable(text)):
        return "holds a character that cannot be stored (NUL or a lone surrogate)"
    return None


def delay_problem_of(delay_s: object) -> str | None:
    """Say what is wrong with a delay, or None."""
    if type(delay_s) not in (int, float):
        return f"must be a number of seconds, not {json_kind(delay_s)}"
    assert isinstance(delay_s, (int, float))
    if not 0 <= delay_s <= DELAY_S_MAX:
        return f"is {delay_s:g} s; it must be 0 to {DELAY_S_MAX} s (366 days)"
    return None


def time_problem_of(moment: object) -> str | None:
    """Say what is wrong with a due time, or None."""
    if not isinstance(moment, datetime):
        return f"must be a date and time, not {json_kind(moment)}"
    if moment.tzinfo is None:
        return f"is {moment.isoformat()}; it needs a time zone, such as {moment.isoformat()}Z"
    if moment.year not in YEARS:
        return f"is in the year {moment.year}; it must be between 2000 and 9999"
    return None


def url_problem_of(url: str) -> str | None:
    """Say what is wrong with a webhook's address, or None; sending checks who it may reach."""
    problem = text_problem_of(url, 2048)
    if problem:
        return problem
    if any(char.isspace() or not char.isprintable() for char in url):
        return "must not hold spaces or control characters"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https") or not host or port == 0:
        return "must be an http(s) URL with a host"
    if parts.username or parts.password:
        return "must not hold a user name or password"
    return None


def json_kind(value: object) -> str:
    """Return JSON's name for a value's type."""
    names = {dict: "an object", list: "an array", str: "text", bool: "true or false"}
    return names.get(type(value), "null" if value is None else type(value).__name__)


def payload_text(payload: Mapping[str, Any]) -> str:
    """Return a payload as JSON text that jsonb takes, or raise InvalidPayload saying why not."""
    try:
        data = orjson.dumps(payload)
    except (TypeError, ValueError, RecursionError) as error:
        raise unstorable(str(error)) from None
    if NUL in data and holds(payload, lambda part: isinstance(part, str) and "\0" in part):
        raise unstorable("it holds a NUL character (\\u0000), which PostgreSQL cannot store")
    if NULL in data and holds(
        payload, lambda part: isinstance(part, float) and not math.isfinite(part)
    ):
        raise unstorable("it holds NaN or an infinite number, which JSON does not know")
    if len(data) > PAYLOAD_BYTES_MAX:
        raise InvalidPayload(
            f"the payload has {len(data):,} bytes; {PAYLOAD_BYTES_MAX:,} is the limit",
            fields=[FieldProblem("payload", "too large")],
            hint="Split a batch into several jobs, or enqueue leads one by one.",
        )
    return data.decode()


def unstorable(reason: str) -> InvalidPayload:
    """Return the error for a payload that JSON or PostgreSQL cannot hold."""
    return InvalidPayload(
        f"the payload cannot be stored: {reason}", fields=[FieldProblem("payload", reason)]
    )


def holds(value: object, is_wanted: Callable[[object], bool]) -> bool:
    """Say whether a JSON value is or has a part that is wanted, keys included."""
    match value:
        case Mapping():
            return any(is_wanted(key) or holds(part, is_wanted) for key, part in value.items())
        case list() | tuple():
            return any(holds(part, is_wanted) for part in value)
        case _:
            return is_wanted(value)
