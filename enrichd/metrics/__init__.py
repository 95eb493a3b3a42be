"""Every metric of the daemon: declared in one list, written by its processes, read by the gateway.

Each process of a daemon writes its numbers into memory-mapped files named after its *slot*, a small
number that the supervisor gives a child and gives again only after that child was reaped. So the
files stay bounded, and a counter goes on where the slot's last process left it. The page `/metrics`
is the sum over all files, so a process that hangs or died still counts.

A process that never calls `prepare` (enrichctl) writes nothing and does not import
prometheus_client; each call then costs one look at a flag.

    prepare(folder)                 the supervisor, before the first fork
    allow(job_types=…, providers=…) once they are known; other names count as `other`
    start(slot)                     each child, first thing after the fork
"""

from enrichd.metrics.declared import METRICS, Metric
from enrichd.metrics.events import (
    connection_closed,
    db_error,
    enqueued,
    live_events_told,
    live_stream,
    process_replaced,
    provider_called,
    realtime_messages,
    request_served,
    rescued,
    turn,
    webhook,
    webhook_came_in,
)
from enrichd.metrics.folder import default_folder, prepare
from enrichd.metrics.labels import allow, bounded
from enrichd.metrics.series import folder, is_on, show_all, start, stop

__all__ = [
    "METRICS",
    "Metric",
    "allow",
    "bounded",
    "connection_closed",
    "db_error",
    "default_folder",
    "enqueued",
    "folder",
    "is_on",
    "live_events_told",
    "live_stream",
    "prepare",
    "process_replaced",
    "provider_called",
    "realtime_messages",
    "request_served",
    "rescued",
    "show_all",
    "start",
    "stop",
    "turn",
    "webhook",
    "webhook_came_in",
]
