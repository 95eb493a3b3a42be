"""Fault points: places around every commit of a job's life and of a paid call's.

    ENRICHD_FAULT=after_claim:kill        at the first claim that brought jobs
    ENRICHD_FAULT=before_record:drop@3    at the third turn that records something

A process strikes once. `before_X` stands where the statement was not sent yet, or for a transaction
where it was not committed; `after_X` where it is committed and nobody here knows it. A testing aid:
unset, as it always is outside tests, a point is one comparison.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from psycopg import BaseConnection

from enrichd.errors import InvalidSetting, Unavailable
from enrichd.logs import get_logger

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")
Conn = TypeVar("Conn", bound=BaseConnection[Any])

VARIABLE = "ENRICHD_FAULT"

COMMITS = (
    "enqueue",  # one job
    "enqueue_many",  # the transaction of a bulk enqueue
    "announce",  # a worker's row, before its first claim
    "claim",  # a turn that claims
    "record",  # a turn that records ends
    "release",  # a turn whose first end gives its attempt back: released, unstarted, snoozed
    "item",  # finished leads of a batch
    "progress",
    "heartbeat",
    "vtime",  # how far fair sharing has come
    "leave",  # a worker's row goes
    "cancel",
    "retry",
    "resume",  # a parked job whose callback came
    "promote",  # due jobs
    "expire",  # parked jobs past their deadline
    "mark_dead",  # silent workers
    "declare_dead",  # one worker whose process is gone
    "rescue",  # jobs of dead workers
    "floors",  # rank floors
    "reserve",  # the lease of a question to a provider, and its credits
    "permits",  # permits of a rate limit
    "settle",  # a provider's answer and what it did cost; before it the call is paid
)
POINTS = tuple(f"{side}_{commit}" for commit in COMMITS for side in ("before", "after"))
ACTIONS = (
    "kill",  # SIGKILL: no handler, no goodbye to PostgreSQL
    "exit",  # leave at once with 1
    "drop",  # lose the connection: the caller sees Unavailable
    "pause",  # SIGSTOP, until somebody sends SIGCONT
)

log = get_logger("faults")


@dataclass(slots=True)
class Fault:
    """What is to happen where, and how many passes before that are let through."""

    point: str
    action: str
    passes: int = 0


def parse(text: str | None) -> Fault | None:
    """Read `POINT:ACTION[@N]`; None for nothing. Raises InvalidSetting."""
    if not text:
        return None
    point, _, rest = text.partition(":")
    action, _, number = rest.partition("@")
    if point not in POINTS or action not in ACTIONS or (number and not number.isdecimal()):
        raise InvalidSetting(
            f"{VARIABLE} is {text!r}; it must be POINT:ACTION or POINT:ACTION@N, a point of"
            f" {', '.join(POINTS)}, an action of {', '.join(ACTIONS)}"
        )
    return Fault(point, action, max(int(number or 1) - 1, 0))


def arm(text: str | None) -> None:
    """Set the fault of this process."""
    global _fault
    _fault = parse(text)


# Read once, at the first import: forked children have it as well, and a point stays one comparison.
_fault = parse(os.environ.get(VARIABLE))


def point(name: str, conn: BaseConnection[Any] | None = None) -> None:
    """Strike if this is the place; `conn` is the connection that `drop` loses."""
    if _fault is not None and _fault.point == name:
        strike(_fault, conn)


def around(
    commit: str,
) -> Callable[
    [Callable[Concatenate[Conn, Arguments], Awaitable[Answer]]],
    Callable[Concatenate[Conn, Arguments], Awaitable[Answer]],
]:
    """Put both points of a commit around a store function whose statement commits by itself."""
    before, after = f"before_{commit}", f"after_{commit}"

    def decorate(
        work: Callable[Concatenate[Conn, Arguments], Awaitable[Answer]],
    ) -> Callable[Concatenate[Conn, Arguments], Awaitable[Answer]]:
        @functools.wraps(work)
        async def between(
            conn: Conn, /, *arguments: Arguments.args, **named: Arguments.kwargs
        ) -> Answer:
            point(before, conn)
            answer = await work(conn, *arguments, **named)
            point(after, conn)
            return answer

        return between

    return decorate


def strike(fault: Fault, conn: BaseConnection[Any] | None) -> None:
    """Do what the fault says, unless it lets this pass through. Raises Unavailable for a drop."""
    if fault.passes:
        fault.passes -= 1
        return
    arm(None)
    log.critical("fault_struck", point=fault.point, action=fault.action, pid=os.getpid())
    match fault.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(1)
        case "pause":
            os.kill(os.getpid(), signal.SIGSTOP)
        case _:
            if conn is not None:
                conn.pgconn.finish()
            raise Unavailable(f"the connection was dropped at {fault.point}")
