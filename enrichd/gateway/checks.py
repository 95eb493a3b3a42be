"""The checks behind `/health` and `/readyz`: each one sentence that anybody may read.

No check names a host, an address, a workspace or a version: the pages are open to everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from enrichd import metrics
from enrichd.gateway.readings import Failure, Read
from enrichd.gateway.standing import Standing
from enrichd.metrics.series import free_bytes
from enrichd.store.health import QueueFigures, Readiness

Status: TypeAlias = Literal["pass", "warn", "fail"]

# A backlog is what a queue is for; a job that waits this long is worth a look.
READY_AGE_S_WARN = 600.0
# Due jobs are made ready within a second or so, by any worker or housekeeper.
DUE_AGE_S_WARN = 60.0
FREE_BYTES_WARN = 1 << 20


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: its verdict, what was measured, and a sentence."""

    name: str
    status: Status
    output: str
    observed: float | bool | None = None
    unit: str | None = None
    age_s: float = 0.0
    """How long ago it was measured."""


def supervisor(standing: Standing) -> Check:
    """Check that the supervisor's loop turns."""
    age_s = round(standing.tick_age_s, 1)
    if standing.is_alive:
        return Check("supervisor", "pass", "the supervisor is alive", age_s, "s")
    output = f"the supervisor has not been heard of for {age_s:.0f} s"
    return Check("supervisor", "fail", output, age_s, "s")


def draining(standing: Standing) -> Check:
    """Check that the daemon takes new work."""
    if standing.is_draining:
        return Check("draining", "warn", "this daemon is draining: it takes no new jobs", True)
    return Check("draining", "pass", "this daemon takes jobs", False)


def readiness(read: Read[Readiness], age_s: float, turn_timeout_s: float) -> list[Check]:
    """Check the database, its schema and the workers; without the first the rest is unknown."""
    value = read.value
    if isinstance(value, Failure):
        return [Check("database", "fail", value.reason, age_s=age_s)]
    took_ms = round(read.took_s * 1000, 1)
    found = [Check("database", "pass", "PostgreSQL answers", took_ms, "ms", age_s)]
    if value.missing_migrations:
        output = f"{value.missing_migrations} migrations are missing: run enrichctl db migrate"
        return [
            *found,
            Check("migrations", "fail", output, value.missing_migrations, "migrations", age_s),
        ]
    found.append(Check("migrations", "pass", "the schema is up to date", 0, "migrations", age_s))
    return [*found, *_workers(value, age_s, turn_timeout_s)]


def _workers(value: Readiness, age_s: float, turn_timeout_s: float) -> list[Check]:
    live = value.live_workers
    if not live:
        output = "no worker is alive on any host"
        return [Check("workers", "fail", output, 0, "workers", age_s)]
    found = [Check("workers", "pass", f"workers alive: {live}", live, "workers", age_s)]
    turn_s = None if value.last_turn_age_s is None else round(value.last_turn_age_s, 1)
    if value.turning_workers:
        output = f"workers that look for jobs or are busy: {value.turning_workers}"
        return [*found, Check("claims", "pass", output, turn_s, "s", age_s)]
    since = "yet" if turn_s is None else f"for {turn_s:.0f} s"
    output = (
        f"workers are alive, but none has asked PostgreSQL for jobs {since}"
        f" (expected every {turn_timeout_s:.0f} s at least)"
    )
    return [*found, Check("claims", "fail", output, turn_s, "s", age_s)]


def queue(read: Read[QueueFigures], age_s: float) -> list[Check]:
    """Check that ready jobs are run and due jobs become ready in time."""
    value = read.value
    if isinstance(value, Failure):
        output = f"the queue could not be counted: {value.reason}"
        return [Check("readyJobs", "warn", output, age_s=age_s)]
    ready_s = round(max((age for _, age in value.oldest_ready_s), default=0.0), 1)
    due_s = round(value.oldest_due_s, 1)
    return [
        Check("readyJobs", "pass", "ready jobs are run in time", ready_s, "s", age_s)
        if ready_s < READY_AGE_S_WARN
        else Check(
            "readyJobs", "warn", f"a ready job has waited for {ready_s:.0f} s", ready_s, "s", age_s
        ),
        Check("dueJobs", "pass", "due jobs are made ready in time", due_s, "s", age_s)
        if due_s < DUE_AGE_S_WARN
        else Check(
            "dueJobs",
            "warn",
            f"a job that was due {due_s:.0f} s ago is not ready yet",
            due_s,
            "s",
            age_s,
        ),
    ]


def metrics_kept() -> Check:
    """Check that there is room for the metrics."""
    folder = metrics.folder()
    if folder is None or not metrics.is_on():
        return Check("metrics", "warn", "this daemon keeps no metrics: its log says why")
    try:
        free = free_bytes(folder)
    except OSError:
        return Check("metrics", "warn", "the folder of the metrics is gone")
    if free < FREE_BYTES_WARN:
        return Check("metrics", "warn", "there is hardly any room for metrics", free, "bytes")
    return Check("metrics", "pass", "metrics are kept", free, "bytes")


def worst(checks: list[Check]) -> Status:
    """Return the verdict of all checks together."""
    statuses = {check.status for check in checks}
    return "fail" if "fail" in statuses else "warn" if "warn" in statuses else "pass"
