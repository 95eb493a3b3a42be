"""enrichd's job types of the benchmark, a plug-in."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from enrichd.plugin import JobContext, job_type
from tests.benchmarks import work


class Empty(BaseModel):
    """No fields."""


class Nap(BaseModel):
    """How long, and which one it is if its begin is to be written down."""

    seconds: float
    number: int | None = None


class Mark(BaseModel):
    """Which one it is."""

    number: int


@job_type("empty", Empty)
async def empty(payload: Empty, context: JobContext) -> dict[str, Any]:
    """Do nothing."""
    return {}


@job_type("nap", Nap)
async def nap(payload: Nap, context: JobContext) -> dict[str, Any]:
    """Sleep."""
    if payload.number is not None:
        work.mark(payload.number)
    await work.nap(payload.seconds)
    return {}


@job_type("mark", Mark)
async def mark(payload: Mark, context: JobContext) -> dict[str, Any]:
    """Write down the time."""
    work.mark(payload.number)
    return {}
