"""What happens, one function for each kind of event; free of charge while no metrics are kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from enrichd.metrics import declared
from enrichd.metrics.labels import bounded, bounded_reason
from enrichd.metrics.series import book


class Claim(Protocol):
    """A claimed job, as far as it is counted."""

    @property
    def type(self) -> str:
        """Return the job's type."""

    @property
    def waited_s(self) -> float | None:
        """Return how long it was ready before the claim; None if that is not known."""


class End(Protocol):
    """How a run ended, as far as it is counted."""

    @property
    def id(self) -> str:
        """Return the job's id."""

    @property
    def type(self) -> str:
        """Return the job's type; "" if the run was never seen here."""

    @property
    def status(self) -> str:
        """Return the job's new status."""

    @property
    def outcome(self) -> str:
        """Return the attempt's outcome; `unstarted` for a job that never began."""

    @property
    def ran_s(self) -> float | None:
        """Return how long the run took; None for a job that never began."""


OUTCOMES = {
    "completed": declared.JOBS_COMPLETED,
    "failed": declared.JOBS_FAILED,
    "dead_letter": declared.JOBS_DEAD_LETTER,
    "retry": declared.JOBS_RETRIED,
    "snoozed": declared.JOBS_SNOOZED,
    "parked": declared.JOBS_PARKED,
    "cancelled": declared.JOBS_CANCELLED,
    "released": declared.JOBS_RELEASED,
    "unstarted": declared.JOBS_RELEASED,
}


def turn(
    seconds: float, claimed: Sequence[Claim], ended: Sequence[End], lost: Collection[str]
) -> None:
    """Count one committed turn: what it claimed, what it recorded, and the ids that were lost."""
    if not book.is_on:
        return
    book.observe(declared.TURN, (), (seconds,))
    waits: defaultdict[str, list[float]] = defaultdict(list)
    claims: defaultdict[str, int] = defaultdict(int)
    for job in claimed:
        claims[job.type] += 1
        if job.waited_s is not None:
            waits[job.type].append(max(job.waited_s, 0.0))
    runs: defaultdict[str, list[float]] = defaultdict(list)
    ends: defaultdict[tuple[str, str], int] = defaultdict(int)
    missing = set(lost)
    for end in ended:
        if end.id in missing:
            outcome = "lost"
        else:
            outcome = "dead_letter" if end.status == "dead_letter" else end.outcome
        ends[outcome, end.type] += 1
        if end.ran_s is not None:
            runs[end.type].append(end.ran_s)
    for job_type, count in claims.items():
        book.add(declared.JOBS_CLAIMED, (bounded("type", job_type),), count)
    for (outcome, job_type), count in ends.items():
        metric = OUTCOMES.get(outcome, declared.JOBS_LEASE_LOST)
        book.add(metric, (bounded("type", job_type),), count)
    for metric, by_type in ((declared.JOB_WAIT, waits), (declared.JOB_RUN, runs)):
        for job_type, values in by_type.items():
            book.observe(metric, (bounded("type", job_type),), values)


def enqueued(job_types: Iterable[str]) -> None:
    """Count jobs that were put on the queue, one name each."""
    _count_types(declared.JOBS_ENQUEUED, job_types)


def rescued(job_types: Iterable[str]) -> None:
    """Count runs that were taken from dead workers, one job type each."""
    _count_types(declared.JOBS_CRASHED, job_types)


def db_error(sqlstate: str | None) -> None:
    """Count an error of PostgreSQL by the first two characters of its SQLSTATE, or `none`."""
    if book.is_on:
        found = bounded("sqlstate_class", (sqlstate or "none")[: 2 if sqlstate else None])
        book.add(declared.DB_ERRORS, (found,))


def provider_called(provider: str, outcome: str, seconds: float) -> None:
    """Count a provider's answer: found, nothing, pending, down, throttled …"""
    if book.is_on:
        name = bounded("provider", provider)
        book.add(declared.PROVIDER_CALLS, (name, bounded("outcome", outcome)))
        book.observe(declared.PROVIDER_CALL, (name,), (seconds,))


def webhook(reason: str, answer_s: float | None = None, waited_s: float | None = None) -> None:
    """Count an attempt to deliver a webhook: delivered, http_5xx, timeout, dropped …"""
    if book.is_on:
        metric = declared.WEBHOOK_DELIVERIES
        book.add(metric, (bounded_reason(metric, reason),))
        if answer_s is not None:
            book.observe(declared.WEBHOOK_ANSWER, (), (answer_s,))
        if waited_s is not None:
            book.observe(declared.WEBHOOK_WAIT, (), (max(waited_s, 0.0),))


def process_replaced(role: str, reason: str) -> None:
    """Count a child's end that the supervisor answers with a new one.

    Reasons: exit, signal, hung, recycled, reloaded.
    """
    if book.is_on:
        metric = declared.WORKER_RESTARTS
        book.add(metric, (bounded("role", role), bounded_reason(metric, reason)))


def request_served(route: str, status: int, seconds: float) -> None:
    """Count an HTTP answer by its route's template, not by its path."""
    if book.is_on:
        name = bounded("route", route)
        book.add(declared.HTTP_REQUESTS, (name, bounded("status", f"{status // 100}xx")))
        book.observe(declared.HTTP_REQUEST, (name,), (seconds,))


def connection_closed(reason: str) -> None:
    """Count a connection closed by a limit: slow_request, evicted, too_many."""
    if book.is_on:
        metric = declared.HTTP_CONNECTIONS_CLOSED
        book.add(metric, (bounded_reason(metric, reason),))


def live_stream(reason: str) -> None:
    """Count a stream of live updates: opened; ended because it was overrun or its key revoked."""
    _count_reason(declared.LIVE_STREAMS, reason)


def live_events_told(count: int) -> None:
    """Count events told to listeners, each listener's."""
    if book.is_on:
        book.add(declared.LIVE_EVENTS, (), count)


def realtime_messages(reason: str, count: int) -> None:
    """Count messages for Supabase Realtime: sent, failed, dropped."""
    _count_reason(declared.REALTIME_MESSAGES, reason, count)


def webhook_came_in(reason: str) -> None:
    """Count a webhook by what became of it: resumed, kept, duplicate, late, unknown, refused."""
    _count_reason(declared.INCOMING_WEBHOOKS, reason)


def _count_reason(metric: declared.Metric, reason: str, count: int = 1) -> None:
    if book.is_on:
        book.add(metric, (bounded_reason(metric, reason),), count)


def _count_types(metric: declared.Metric, job_types: Iterable[str]) -> None:
    if not book.is_on:
        return
    counts: defaultdict[str, int] = defaultdict(int)
    for job_type in job_types:
        counts[bounded("type", job_type)] += 1
    for job_type, count in counts.items():
        book.add(metric, (job_type,), count)
