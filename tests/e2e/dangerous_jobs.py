"""Job types that harm the process they run in; a plug-in of the fault tests alone."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any, Literal

from pydantic import BaseModel

from enrichd.plugin import JobContext, job_type

LEAKED: list[bytearray] = []


class Death(BaseModel, extra="forbid"):
    """How to die, and after how long."""

    way: Literal["exit", "kill", "abort"] = "kill"
    after_s: float = 0.05


class Leak(BaseModel, extra="forbid"):
    """How much memory to keep."""

    megabytes: int


class Spin(BaseModel, extra="forbid"):
    """Nothing."""


@job_type("deadly", Death)
async def deadly(payload: Death, context: JobContext) -> dict[str, Any]:
    """Take the worker down."""
    await asyncio.sleep(payload.after_s)
    match payload.way:
        case "exit":
            os._exit(1)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "abort":
            os.abort()
    return {}


@job_type("leaking_memory", Leak)
async def leaking_memory(payload: Leak, context: JobContext) -> dict[str, Any]:
    """Keep memory for ever."""
    LEAKED.append(bytearray(os.urandom(1024) * (1024 * payload.megabytes)))
    return {}


@job_type("spinning", Spin)
async def spinning(payload: Spin, context: JobContext) -> dict[str, Any]:
    """Never let the event loop turn again."""
    while True:
        pass
