"""The public face for job types and data providers of your own.

    class Nap(BaseModel):
        seconds: float = 0.0

    @job_type("nap", Nap)
    async def nap(payload: Nap, context: JobContext) -> dict:
        await asyncio.sleep(payload.seconds)
        return {"slept": payload.seconds}

Name the module in `ENRICHD_PLUGINS`. A handler returns a dict, which completes the job, or one of
the outcomes below; an exception is tried again with backoff until the retries run out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel

from enrichd.domain import payloads
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
from enrichd.handlers.context import Item, JobContext
from enrichd.handlers.registry import TypedHandler, handler_of
from enrichd.providers.base import provider

__all__ = [
    "Cancelled",
    "Completed",
    "Failed",
    "Item",
    "JobContext",
    "JobError",
    "Outcome",
    "Park",
    "Retry",
    "Snooze",
    "job_type",
    "provider",
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
