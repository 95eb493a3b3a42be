"""`/api/enrichment/process`: one bounded run of the queue, for whoever calls it in turn.

Vercel's cron sends a GET without a body, others may POST. Calls may come late, twice or at the same
time: each claims what the others have not.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BeforeValidator, Field

from enrichd.api.job_models import ApiModel
from enrichd.api.messages import Answer, json_response
from enrichd.api.problems import Problem
from enrichd.api.routing import Access, Call, route
from enrichd.processing.aside import Aside, NoRun
from enrichd.processing.bounded import Done, limits_of

if TYPE_CHECKING:
    from enrichd.api.application import Api

RUNS: Final = "process"
"""The name of the runs among the Api's parts."""
DURATION = re.compile(r"([0-9]{1,9})(ms|s|m)?", re.ASCII)
UNITS_MS: Final = {"ms": 1, None: 1, "s": 1_000, "m": 60_000}
ALLOW: Final = "GET, OPTIONS, POST"
TIMEOUT_MS_MIN: Final = 1_000
JOBS_MAX: Final = 1_000_000


Milliseconds = Annotated[int, Field(ge=TIMEOUT_MS_MIN)]
Text = Annotated[str, Field(pattern=r"^[0-9]{1,9}(ms|s|m)?$")]


def milliseconds(given: object) -> object:
    """Read `25s`; a number is milliseconds."""
    match = DURATION.fullmatch(given) if isinstance(given, str) else None
    return int(match[1]) * UNITS_MS[match[2]] if match else given


def number(given: object) -> object:
    """Read digits, as they stand in a query."""
    is_digits = isinstance(given, str) and given.isascii() and given.isdecimal()
    return int(given) if isinstance(given, str) and is_digits and len(given) <= 9 else given


class ProcessLimits(ApiModel):
    """How far a run goes; in the query or in the body, which counts more."""

    max_jobs: Annotated[
        Annotated[int, Field(ge=1, le=JOBS_MAX, strict=True)] | None, BeforeValidator(number)
    ] = None
    """Claim at most this many jobs; absent: any number."""
    timeout: Annotated[
        Annotated[int, Field(ge=TIMEOUT_MS_MIN, strict=True)] | None,
        BeforeValidator(milliseconds, json_schema_input_type=Milliseconds | Text | None),
    ] = None
    """Be done after so many milliseconds, or `25s`; at most, and if absent, PROCESS_TIMEOUT_MAX."""


class ProcessReport(ApiModel):
    """What a run did."""

    claimed: int
    completed: int
    failed: int
    retried: int
    """Put off after a failed attempt, for another one."""
    snoozed: int
    """Put off without an attempt, or waiting for a callback."""
    cancelled: int
    released: int
    """Handed back unfinished, without an attempt; a batch keeps the leads it has finished."""
    lost: int
    """Given away meanwhile, or deleted."""
    remaining: int | None
    """Jobs that were ready at the end, counted up to 10,000; null if that could not be asked."""
    duration_ms: int


@route("GET", "/process", Access.CRON, query=ProcessLimits, answers={200: ProcessReport})
async def process_by_get(call: Call) -> Answer:
    """Run jobs that are ready, for a bounded time; for cron."""
    if call.request.method == "HEAD":
        raise Problem(
            405, "method_not_allowed", "Asking runs jobs: GET or POST.", headers={"Allow": ALLOW}
        )
    return await process(call)


@route(
    "POST",
    "/process",
    Access.CRON,
    query=ProcessLimits,
    body=ProcessLimits,
    is_body_optional=True,
    answers={200: ProcessReport},
)
async def process_by_post(call: Call) -> Answer:
    """Run jobs that are ready, for a bounded time."""
    return await process(call)


async def process(call: Call) -> Answer:
    """Run jobs within what the caller asks for and PROCESS_TIMEOUT_MAX allows."""
    settings = call.api.settings
    asked = [part for part in (call.body, call.query) if part is not None]
    max_jobs = next((one.max_jobs for one in asked if one.max_jobs is not None), None)
    timeout_ms = next((one.timeout for one in asked if one.timeout is not None), None)
    timeout_s = settings.process_timeout_max_s
    if timeout_ms is not None:
        timeout_s = min(timeout_ms / 1000, timeout_s)
    runs: Aside | None = call.api.parts.get(RUNS)
    if runs is None:
        runs = call.api.parts[RUNS] = Aside(settings, name="enrichd process")
    match await runs.run(limits_of(max_jobs, timeout_s)):
        case Done() as done:
            return json_response(report_of(done), Cache_Control="no-store")
        case NoRun.BUSY:
            raise Problem(
                503,
                "too_many_runs",
                "So many runs wait for their turn that one more would change nothing.",
                headers={"Retry-After": "60"},
            )
        case NoRun.STOPPED:
            raise Problem(
                503, "stopping", "This process is about to end.", headers={"Retry-After": "5"}
            )
        case NoRun.OVERRAN:
            raise Problem(
                503,
                "run_overran",
                "A job holds its run up and cannot be stopped; the log says more.",
                headers={"Retry-After": "60"},
            )


async def close_runs(api: Api) -> None:
    """Have every run hand back its jobs, because the server ends; wait for that, not for long."""
    runs: Aside | None = api.parts.get(RUNS)
    if runs is not None:
        await runs.close()


def report_of(done: Done) -> dict[str, int | None]:
    """Return a run's counts as they are told."""
    return {
        **asdict(done.report),
        "remaining": done.remaining,
        "durationMs": round(done.duration_s * 1000),
    }
