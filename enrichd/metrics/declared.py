"""The list of every metric, with its help text, labels and buckets.

What processes count is kept in files (`FILED`). What the queue or this host looks like right now is
asked when the page is made (`ASKED`): it is the same on every host that shares the database, so
take its maximum over hosts and not its sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]

WAIT_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
RUN_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TURN_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
CALL_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
REQUEST_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric as it stands on the page; a counter's name ends in `_total`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def family(self) -> str:
        """Return the name as prometheus_client has it: a counter's without `_total`."""
        return self.name.removesuffix("_total")


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(f"enrichd_{name}_total", "counter", help, labels)


def _histogram(name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(f"enrichd_{name}_seconds", "histogram", help, labels, buckets)


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return Metric(f"enrichd_{name}", "gauge", help, labels)


# Help texts of what is kept in files are short: the files repeat them for each series.
JOBS_ENQUEUED = _counter("jobs_enqueued", "Jobs this daemon put on the queue.", "type")
JOBS_CLAIMED = _counter("jobs_claimed", "Jobs taken by workers.", "type")
JOBS_COMPLETED = _counter("jobs_completed", "Runs that completed their job.", "type")
JOBS_FAILED = _counter("jobs_failed", "Runs that failed for good.", "type")
JOBS_DEAD_LETTER = _counter("jobs_dead_letter", "Runs that used the last retry.", "type")
JOBS_RETRIED = _counter("jobs_retried", "Runs whose job waits for another attempt.", "type")
JOBS_SNOOZED = _counter("jobs_snoozed", "Runs put back for later, no attempt used.", "type")
JOBS_PARKED = _counter("jobs_parked", "Runs that wait for a provider's callback.", "type")
JOBS_CANCELLED = _counter("jobs_cancelled", "Runs stopped because of a cancel.", "type")
JOBS_RELEASED = _counter("jobs_released", "Claimed jobs given back without a result.", "type")
JOBS_LEASE_LOST = _counter("jobs_lease_lost", "Runs whose job was no longer theirs.", "type")
JOBS_CRASHED = _counter("jobs_crashed", "Runs taken from dead workers.", "type")

JOB_WAIT = _histogram("job_wait", "From ready to claimed.", WAIT_BUCKETS_S, "type")
JOB_RUN = _histogram("job_run", "How long a run took.", RUN_BUCKETS_S, "type")
TURN = _histogram("turn", "One record and claim in PostgreSQL.", TURN_BUCKETS_S)

DB_ERRORS = _counter("db_errors", "Errors of PostgreSQL by SQLSTATE class.", "sqlstate_class")
WORKER_RESTARTS = _counter(
    "worker_restarts", "Child processes replaced by the supervisor.", "role", "reason"
)

PROVIDER_CALLS = _counter("provider_calls", "Calls to data providers.", "provider", "outcome")
PROVIDER_CALL = _histogram(
    "provider_call", "How long a provider's answer took.", CALL_BUCKETS_S, "provider"
)

WEBHOOK_DELIVERIES = _counter("webhook_deliveries", "Attempts to deliver a webhook.", "reason")
WEBHOOK_ANSWER = _histogram("webhook_answer", "How long a receiver took.", CALL_BUCKETS_S)
WEBHOOK_WAIT = _histogram("webhook_wait", "From due to sent.", WAIT_BUCKETS_S)

HTTP_REQUESTS = _counter("http_requests", "Requests answered.", "route", "status")
HTTP_REQUEST = _histogram("http_request", "Request to answer.", REQUEST_BUCKETS_S, "route")
HTTP_CONNECTIONS_CLOSED = _counter(
    "http_connections_closed", "Connections closed by the gateway's limits.", "reason"
)

LIVE_STREAMS = _counter(
    "live_streams", "Streams of live updates, by what became of them.", "reason"
)
LIVE_EVENTS = _counter("live_events", "Events told to listeners.")
REALTIME_MESSAGES = _counter("realtime_messages", "Messages for Supabase Realtime.", "reason")
INCOMING_WEBHOOKS = _counter("incoming_webhooks", "Webhooks that came in.", "reason")

FILED: tuple[Metric, ...] = (
    JOBS_ENQUEUED,
    JOBS_CLAIMED,
    JOBS_COMPLETED,
    JOBS_FAILED,
    JOBS_DEAD_LETTER,
    JOBS_RETRIED,
    JOBS_SNOOZED,
    JOBS_PARKED,
    JOBS_CANCELLED,
    JOBS_RELEASED,
    JOBS_LEASE_LOST,
    JOBS_CRASHED,
    JOB_WAIT,
    JOB_RUN,
    TURN,
    DB_ERRORS,
    WORKER_RESTARTS,
    PROVIDER_CALLS,
    PROVIDER_CALL,
    WEBHOOK_DELIVERIES,
    WEBHOOK_ANSWER,
    WEBHOOK_WAIT,
    HTTP_REQUESTS,
    HTTP_REQUEST,
    HTTP_CONNECTIONS_CLOSED,
    LIVE_STREAMS,
    LIVE_EVENTS,
    REALTIME_MESSAGES,
    INCOMING_WEBHOOKS,
)

QUEUE_DEPTH = _gauge(
    "queue_depth",
    "Jobs by lane and status. A count stops at 100,000 pending jobs of a lane and priority, and at"
    " 10,000 jobs of another status. Finished jobs are not counted.",
    "lane",
    "status",
)
OLDEST_READY_AGE = _gauge(
    "oldest_ready_age_seconds",
    "Longest wait among the first 100 ready jobs of each priority of a lane, 0 without any.",
    "lane",
)
OLDEST_DUE_AGE = _gauge(
    "oldest_due_age_seconds",
    "For how long the oldest due job has not been made ready, 0 without any.",
)
LANE_BLOCKED = _gauge(
    "lane_blocked", "1 while a provider is paused or its breaker is open.", "lane"
)
PROVIDER_BREAKER = _gauge(
    "provider_breaker",
    "A provider's breaker, the worst of its keys: 0 closed, 1 half open, 2 open.",
    "provider",
)
WORKERS = _gauge(
    "workers", "Worker processes of all hosts; silent ones have missed their heartbeats.", "state"
)
WORKER_SLOTS = _gauge("worker_slots", "Jobs that all live workers can run at the same time.")
WORKER_SLOTS_USED = _gauge("worker_slots_used", "Jobs that all live workers run now.")
DRAINING = _gauge("draining", "1 while this daemon finishes its work and takes no more.")
METRICS_FREE_BYTES = _gauge(
    "metrics_folder_free_bytes", "Room left where this daemon's processes keep their metrics."
)
SCRAPE_ERROR = _gauge(
    "scrape_error",
    "What is missing on this page. database: 1 when it did not answer in time, so all figures of"
    " the queue are left out. files: files that cannot be read. metrics: 1 when none are kept.",
    "source",
)

ASKED: tuple[Metric, ...] = (
    QUEUE_DEPTH,
    OLDEST_READY_AGE,
    OLDEST_DUE_AGE,
    LANE_BLOCKED,
    PROVIDER_BREAKER,
    WORKERS,
    WORKER_SLOTS,
    WORKER_SLOTS_USED,
    DRAINING,
    METRICS_FREE_BYTES,
    SCRAPE_ERROR,
)

METRICS: tuple[Metric, ...] = FILED + ASKED
