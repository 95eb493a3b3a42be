"""What the supervisor says of its children: in the log, and to the metrics."""

from __future__ import annotations

import time

from enrichd.logs import get_logger
from enrichd.supervisor.child import Child
from enrichd.supervisor.children import Children

log = get_logger("supervisor")


def write_down(children: Children) -> None:
    """Write what is known of every living child to the log."""
    now = time.monotonic()
    for child in children:
        log.info(
            "child_state",
            role=child.role,
            child_pid=child.pid,
            worker_id=child.worker_id,
            is_ready=child.is_ready,
            is_idle=child.is_idle,
            is_leaving=child.is_leaving,
            age_s=round(now - child.started, 1),
            silent_s=round(now - child.heard, 1),
            generation=child.generation,
        )


def replaced_because(child: Child, code: int) -> str:
    """Return why a child had to be replaced, in the words of the metric."""
    if child.killed_at is not None:
        return "hung"
    if child.is_recycled:
        return "recycled"
    if child.is_leaving:
        return "reloaded"
    return "signal" if code < 0 else "exit"
