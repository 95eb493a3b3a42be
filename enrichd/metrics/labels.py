"""Label values: a bounded set for each label, `other` for everything else.

A value is never taken from a job as it is: tenants choose names, and each new one would be a new
series in the files and in Prometheus for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

from enrichd.metrics.declared import Metric

NAMES_MAX = 64
NAME_LENGTH_MAX = 60
OTHER = "other"

_fixed: dict[str, tuple[str, ...]] = {
    "outcome": (
        "found",
        "nothing",
        "pending",
        "down",
        "throttled",
        "denied",
        "garbled",
        "rejected",
        "suppressed",
    ),
    "sqlstate_class": ("08", "22", "23", "25", "40", "42", "53", "54", "55", "57", "58", "none"),
    "role": ("worker", "housekeeper", "gateway"),
    "status": ("2xx", "3xx", "4xx", "5xx"),
    "route": ("/health", "/livez", "/readyz", "/metrics"),
}
_reasons: dict[str, tuple[str, ...]] = {
    "enrichd_worker_restarts_total": ("exit", "signal", "hung", "recycled", "reloaded"),
    "enrichd_webhook_deliveries_total": (
        "delivered",
        "http_4xx",
        "http_5xx",
        "redirected",
        "timeout",
        "connect_refused",
        "connect_failed",
        "dns_failed",
        "tls_failed",
        "address_refused",
        "bad_url",
        "bad_response",
        "dropped",
    ),
    "enrichd_http_connections_closed_total": ("slow_request", "evicted", "too_many"),
    "enrichd_live_streams_total": ("opened", "overrun", "revoked"),
    "enrichd_realtime_messages_total": ("sent", "failed", "dropped"),
    "enrichd_incoming_webhooks_total": (
        "resumed",
        "kept",
        "duplicate",
        "late",
        "unknown",
        "refused",
    ),
}
# What is known only once plug-ins are imported and settings read. `-` is the lane of jobs that
# name no provider.
_learnt: dict[str, dict[str, None]] = {"type": {}, "provider": {"-": None}}
_SAME_NAMES = {"lane": "provider"}


def allow(*, job_types: Iterable[str] = (), providers: Iterable[str] = ()) -> None:
    """Let these names stand on the page; past 64 of a kind, names count as `other`.

    Call it between `prepare` and `start`: the files are sized for what is allowed then.
    """
    for label, names in (("type", job_types), ("provider", providers)):
        known = _learnt[label]
        for name in names:
            if len(known) < NAMES_MAX and len(name) <= NAME_LENGTH_MAX:
                known[name] = None


def bounded(label: str, value: str) -> str:
    """Return a value as the page shows it: itself if it is allowed, else `other`."""
    label = _SAME_NAMES.get(label, label)
    return value if value in _learnt.get(label, _fixed.get(label, ())) else OTHER


def bounded_reason(metric: Metric, value: str) -> str:
    """Return a metric's `reason` as the page shows it."""
    return value if value in _reasons[metric.name] else OTHER


def combinations(metric: Metric) -> Iterator[tuple[str, ...]]:
    """Yield every combination of label values that a metric may have; () without labels."""
    return product(*(_values(metric, label) for label in metric.labels))


def _values(metric: Metric, label: str) -> tuple[str, ...]:
    if label == "reason":
        return (*_reasons[metric.name], OTHER)
    return (*_learnt.get(label, _fixed.get(label, ())), OTHER)
