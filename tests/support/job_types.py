"""Job types for tests; `ENRICHD_PLUGINS=tests.support.job_types` registers them as a plug-in.

What a handler saw is kept in `SEEN`, and handlers that wait do so for an event in `GATES`, so that
a test decides when they go on.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from enrichd.domain.outcomes import Released
from enrichd.errors import (
    Invalid,
    ProviderDenied,
    ProviderDown,
    ProviderGarbled,
    ProviderThrottled,
    Refused,
    Unavailable,
)
from enrichd.plugin import (
    Cancelled,
    Completed,
    Failed,
    JobContext,
    JobError,
    Park,
    Retry,
    Snooze,
    job_type,
)


@dataclass(slots=True)
class Seen:
    """What the handlers of this process did since `reset`."""

    started: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    running: int = 0
    running_max: int = 0
    cleaned_up: list[str] = field(default_factory=list)
    variable: list[str | None] = field(default_factory=list)


SEEN = Seen()
GATES: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
LEFT_BEHIND: set[asyncio.Task[None]] = set()
variable: contextvars.ContextVar[str | None] = contextvars.ContextVar("variable", default=None)


def reset() -> None:
    """Forget what was seen; called before each test."""
    for name, value in {slot: getattr(Seen(), slot) for slot in Seen.__slots__}.items():
        setattr(SEEN, name, value)
    GATES.clear()
    LEFT_BEHIND.clear()


class Empty(BaseModel, extra="forbid"):
    """Nothing."""


class Nap(BaseModel, extra="forbid"):
    """How long."""

    seconds: float = 0.0


class Gate(BaseModel, extra="forbid"):
    """Which event of GATES to wait for."""

    gate: str = "go"


class Error(BaseModel, extra="forbid"):
    """Which error to raise, by its name in ERRORS."""

    error: str = "value"


class Answer(BaseModel, extra="forbid"):
    """What to return, by its name in ANSWERS."""

    answer: str = "dict"


class Leads(BaseModel, extra="forbid"):
    """The leads of a batch, and where to die in it."""

    keys: list[str]
    wait_at: str | None = None


class Anything(BaseModel, extra="allow"):
    """Any object."""


class Size(BaseModel, extra="forbid"):
    """How much text to return."""

    characters: int


@job_type("empty", Empty)
async def empty(payload: Empty, context: JobContext) -> dict[str, Any]:
    """Do nothing."""
    SEEN.started.append(str(context.job_id))
    SEEN.ended.append(str(context.job_id))
    return {}


class Running:
    """Counts a run while it is in the block."""

    def __init__(self, context: JobContext) -> None:
        self._id = str(context.job_id)

    def __enter__(self) -> None:
        SEEN.started.append(self._id)
        SEEN.running += 1
        SEEN.running_max = max(SEEN.running_max, SEEN.running)

    def __exit__(self, *_: object) -> None:
        SEEN.running -= 1
        SEEN.ended.append(self._id)


@job_type("nap", Nap)
async def nap(payload: Nap, context: JobContext) -> dict[str, Any]:
    """Sleep without keeping others from running."""
    with Running(context):
        await asyncio.sleep(payload.seconds)
    return {"slept": payload.seconds}


@job_type("gate", Gate)
async def gate(payload: Gate, context: JobContext) -> dict[str, Any]:
    """Wait until the test opens the gate."""
    with Running(context):
        await GATES[payload.gate].wait()
    return {"gate": payload.gate}


class Unprintable(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Uninitialised(Invalid):
    """An error of ours whose author forgot `super().__init__`."""

    def __init__(self) -> None:
        pass


class Panic(BaseException):
    """What a library of another language raises (pyo3's PanicException is no Exception)."""


ERRORS: Mapping[str, BaseException | type[BaseException]] = {
    "value": ValueError("a broken thing"),
    "surrogate": ValueError("text \ud800 with NUL \0"),
    "long": ValueError("x" * 1_000_000),
    "unprintable": Unprintable,
    "uninitialised": Uninitialised,
    "group": ExceptionGroup("two", [ValueError("a"), TypeError("b")]),
    "assertion": AssertionError("never"),
    "memory": MemoryError(),
    "recursion": RecursionError("too deep"),
    "invalid": Invalid("the lead has no name"),
    "refused": Refused("not in this state"),
    "unavailable": Unavailable("no database"),
    "down": ProviderDown("503", provider="hunter"),
    "denied": ProviderDenied("401", provider="hunter"),
    "garbled": ProviderGarbled("not JSON", provider="hunter"),
    "throttled": ProviderThrottled("429", provider="hunter", retry_after_s=30.0),
    "throttled_nan": ProviderThrottled("429", provider="hunter", retry_after_s=float("nan")),
    "throttled_none": ProviderThrottled("429", provider="hunter", retry_after_s=None),  # type: ignore[arg-type]
    "stop_iteration": StopIteration(),
    "timeout": TimeoutError("of its own"),
    "cancelled": asyncio.CancelledError,
    "exit": SystemExit(3),
    "panic": Panic("panic in Rust"),
}


@job_type("raising", Error)
async def raising(payload: Error, context: JobContext) -> dict[str, Any]:
    """Raise."""
    SEEN.started.append(str(context.job_id))
    await asyncio.sleep(0)
    raise ERRORS[payload.error]


class HostileMapping(Mapping[str, Any]):
    """A mapping that fails when it is read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("no")

    def __iter__(self) -> Any:
        raise RuntimeError("no")

    def __len__(self) -> int:
        return 1


def cyclic() -> dict[str, Any]:
    """Return a tree whose nodes know their parent: endless for whoever walks it."""
    root: dict[str, Any] = {"name": "root", "children": []}
    for name in ("a", "b", "c"):
        root["children"].append({"name": name, "parent": root})
    return root


ANSWERS: Mapping[str, Any] = {
    "dict": {"a": 1},
    "none": None,
    "list": [1],
    "text": "text",
    "number": 7,
    "set_inside": {"a": {1, 2}},
    "object_inside": {"a": object()},
    "completed_list": Completed([1, 2]),  # type: ignore[arg-type]
    "completed_none": Completed(None),  # type: ignore[arg-type]
    "hostile_mapping": HostileMapping(),
    "failed_text": Failed("boom"),  # type: ignore[arg-type]
    "failed": Failed(JobError("no_lead", "nobody has that name")),
    "failed_object": Failed(JobError(object(), "x")),  # type: ignore[arg-type]
    "retry": Retry(JobError("later", "try later", retryable=True)),
    "retry_now": Retry(JobError("later", "try later", retryable=True), delay_s=0.0),
    "retry_text": Retry("later"),  # type: ignore[arg-type]
    "retry_inf": Retry(JobError("later", "x"), delay_s=float("inf")),
    "retry_nan": Retry(JobError("later", "x"), delay_s=float("nan")),
    "retry_negative": Retry(JobError("later", "x"), delay_s=-5.0),
    "retry_huge": Retry(JobError("later", "x"), delay_s=1e30),
    "snooze": Snooze(60.0, "provider is away"),
    "snooze_none": Snooze(None),  # type: ignore[arg-type]
    "snooze_text": Snooze("5"),  # type: ignore[arg-type]
    "snooze_nan": Snooze(float("nan")),
    "snooze_inf": Snooze(float("inf")),
    "park": Park(60.0, "waits for its callback"),
    "cancelled": Cancelled("not wanted any more"),
    "released": Released(),
}


@job_type("answering", Answer)
async def answering(payload: Answer, context: JobContext) -> Any:
    """Return what the test wants."""
    SEEN.started.append(str(context.job_id))
    return cyclic() if payload.answer == "cyclic" else ANSWERS[payload.answer]


@job_type("echo", Anything)
async def echo(payload: Anything, context: JobContext) -> dict[str, Any]:
    """Return the payload."""
    return dict(payload.model_extra or {})


@job_type("size", Size)
async def size(payload: Size, context: JobContext) -> dict[str, Any]:
    """Return much text."""
    return {"text": "x" * payload.characters}


@job_type("blocking", Nap)
async def blocking(payload: Nap, context: JobContext) -> dict[str, Any]:
    """Keep the whole event loop from running."""
    time.sleep(payload.seconds)  # noqa: ASYNC251 - that is what this one is for
    return {}


@job_type("swallowing", Gate)
async def swallowing(payload: Gate, context: JobContext) -> dict[str, Any]:
    """Ignore cancellation until the gate opens."""
    with Running(context):
        while not GATES[payload.gate].is_set():
            try:
                await GATES[payload.gate].wait()
            except asyncio.CancelledError:
                SEEN.cleaned_up.append("swallowed")
    return {"swallowed": True}


@job_type("completing_when_cancelled", Gate)
async def completing_when_cancelled(payload: Gate, context: JobContext) -> dict[str, Any]:
    """Finish with a result when cancelled."""
    SEEN.started.append(str(context.job_id))
    try:
        await GATES[payload.gate].wait()
    except asyncio.CancelledError:
        return {"partial": True}
    return {}


@job_type("cleaning", Gate)
async def cleaning(payload: Gate, context: JobContext) -> dict[str, Any]:
    """Need a moment to clean up when cancelled."""
    SEEN.started.append(str(context.job_id))
    try:
        await GATES[payload.gate].wait()
    finally:
        await asyncio.sleep(0.4)
        SEEN.cleaned_up.append(str(context.job_id))
    return {}


@job_type("leaking", Empty)
async def leaking(payload: Empty, context: JobContext) -> dict[str, Any]:
    """Set a context variable and say what it was."""
    SEEN.variable.append(variable.get())
    variable.set(str(context.job_id))
    return {}


@job_type("leaving_a_task", Gate)
async def leaving_a_task(payload: Gate, context: JobContext) -> dict[str, Any]:
    """Start a task and forget it."""

    async def forgotten() -> None:
        await GATES[payload.gate].wait()

    LEFT_BEHIND.add(asyncio.create_task(forgotten()))
    return {}


@job_type("batch", Leads)
async def batch(payload: Leads, context: JobContext) -> dict[str, Any]:
    """Do leads one after the other, leaving out those that are done; wait at one if told to."""
    SEEN.started.append(str(context.job_id))
    done = await context.finished_items()
    for number, key in enumerate(payload.keys, 1):
        if key in done:
            continue
        if key == payload.wait_at and not GATES[key].is_set():
            SEEN.cleaned_up.append(key)
            await GATES[key].wait()
        SEEN.ended.append(key)
        await context.record_item(key, status="completed", result={"lead": key})
        await context.progress(number, len(payload.keys))
    return {"leads": len(payload.keys), "resumed": len(done)}


class Reporting(BaseModel, extra="forbid"):
    """What to report as progress, then wait for the gate."""

    done: Any = 1
    total: Any = 2
    gate: str = "go"


@job_type("reporting", Reporting)
async def reporting(payload: Reporting, context: JobContext) -> dict[str, Any]:
    """Report progress, then wait."""
    SEEN.started.append(str(context.job_id))
    await context.progress(payload.done, payload.total)
    await GATES[payload.gate].wait()
    return {}


class Item(BaseModel, extra="forbid"):
    """An item to record; `text` may hold what JSON in PostgreSQL cannot, see KEYS."""

    key: str
    status: str = "completed"


KEYS = {"surrogate": "lead \ud800", "nul": "a\0b", "long": "k" * 10_000, "plain": "lead"}


@job_type("item", Item)
async def item(payload: Item, context: JobContext) -> dict[str, Any]:
    """Record one item with a hostile key."""
    await context.record_item(
        KEYS.get(payload.key, payload.key),
        status=payload.status,
        result={"a": 1},  # type: ignore[arg-type]
    )
    return {}


class Chain(BaseModel, extra="forbid"):
    """Whom to call in the middle of a run, by its name in HOOKS."""

    hook: str


HOOKS: dict[str, Any] = {}


@job_type("hooked", Chain)
async def hooked(payload: Chain, context: JobContext) -> dict[str, Any]:
    """Let the test do something from inside a run."""
    await HOOKS[payload.hook]()
    return {}
