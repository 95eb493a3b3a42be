"""The public face for job types and data providers of your own.

    class Nap(BaseModel):
        seconds: float = 0.0

    @job_type("nap", Nap)
    async def nap(payload: Nap, context: JobContext) -> dict:
        await asyncio.sleep(payload.seconds)
        return {"slept": payload.seconds}

Name the module in `ENRICHD_PLUGINS`. A handler returns a dict, which completes the job, or one of
the outcomes below; an exception is tried again with backoff until the retries run out.

A provider is a class with `@provider("its-id")` above it; `docs/providers.md` has one in full. It
may come as a module of `ENRICHD_PLUGINS` too, or in a package with an entry point in the group
`enrichd.providers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel

from enrichd.domain import payloads
from enrichd.domain.email_verdicts import EmailVerification, Verdict
from enrichd.domain.facts import Fact, Json, Missing
from enrichd.domain.outcomes import (
    Cancelled,
    Completed,
    Failed,
    JobError,
    Outcome,
    Park,
    Retry,
    Snooze,
)
from enrichd.errors import (
    PersonSuppressed,
    ProviderDenied,
    ProviderDown,
    ProviderError,
    ProviderExhausted,
    ProviderGarbled,
    ProviderRejected,
    ProviderThrottled,
)
from enrichd.handlers.context import Item, JobContext
from enrichd.handlers.registry import TypedHandler, handler_of
from enrichd.providers.base import (
    Accounting,
    Asynchronous,
    Bulk,
    Found,
    Operation,
    Pending,
    Provider,
    Query,
    provider,
)
from enrichd.providers.checked_emails import checked_email
from enrichd.providers.client import Answer, Connections, send
from enrichd.providers.contracts import (
    Contract,
    Ending,
    Standing,
    Window,
    WindowSeen,
    garbled,
    judge,
)
from enrichd.providers.json_parts import object_of
from enrichd.settings.providers import ProviderSettings

__all__ = [
    "Accounting",
    "Answer",
    "Asynchronous",
    "Bulk",
    "Cancelled",
    "Completed",
    "Connections",
    "Contract",
    "EmailVerification",
    "Ending",
    "Fact",
    "Failed",
    "Found",
    "Item",
    "JobContext",
    "JobError",
    "Json",
    "Missing",
    "Operation",
    "Outcome",
    "Park",
    "Pending",
    "PersonSuppressed",
    "Provider",
    "ProviderDenied",
    "ProviderDown",
    "ProviderError",
    "ProviderExhausted",
    "ProviderGarbled",
    "ProviderRejected",
    "ProviderSettings",
    "ProviderThrottled",
    "Query",
    "Retry",
    "Snooze",
    "Standing",
    "Verdict",
    "Window",
    "WindowSeen",
    "checked_email",
    "garbled",
    "job_type",
    "judge",
    "object_of",
    "provider",
    "send",
]

Payload = TypeVar("Payload", bound=BaseModel)


def job_type(
    name: str, model: type[Payload]
) -> Callable[[TypedHandler[Payload]], TypedHandler[Payload]]:
    """Register a job type: its payload model and, as the decorated function, its handler.

    Several types may share a model.
    """
    payloads.register(name, model)
    return handler_of(name)
