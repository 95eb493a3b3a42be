"""A job type that does nothing."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from enrichd.plugin import JobContext, job_type


class Empty(BaseModel):
    """No fields."""


@job_type("empty", Empty)
async def empty(payload: Empty, context: JobContext) -> dict[str, Any]:
    """Do nothing."""
    return {}
