"""What `doctor` makes of the queue: what is stuck, and who should have moved it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from enrichd.ctl.checks import Check, fail, ok, warn
from enrichd.ctl.glance import is_alive, seconds
from enrichd.store.stuck import HeldLane, Queue
from enrichd.store.workers import Worker

READY_S_MAX = 60.0


def worker_checks(found: Sequence[Worker], queue: Queue, timeout_s: float) -> Iterator[Check]:
    """Judge the workers and what they leave lying."""
    alive = [worker for worker in found if is_alive(worker, timeout_s)]
    stale = [worker for worker in found if worker.state != "dead" and worker not in alive]
    yield living(alive, queue)
    if stale:
        shown = ", ".join(f"{worker.host}:{worker.pid}" for worker in stale[:5])
        yield warn(
            "stale_workers",
            f"{len(stale):,} silent for longer than {seconds(timeout_s)}: {shown}",
            "They are declared dead by a running enrichd; look whether their hosts are up.",
        )
    else:
        yield ok("stale_workers", "none")
    versions = sorted({worker.version for worker in alive})
    if len(versions) > 1:
        yield warn(
            "worker_versions",
            f"workers of {', '.join(versions)} run side by side",
            "Fine during a deployment; else restart the old ones.",
        )


def living(alive: Sequence[Worker], queue: Queue) -> Check:
    """Somebody must be there to run what is ready."""
    if alive:
        running = sum(worker.running for worker in alive)
        room = sum(worker.concurrency for worker in alive)
        return ok("workers", f"{len(alive):,} alive, {running:,} of {room:,} places taken")
    if not queue.ready:
        return warn("workers", "none is alive; nothing is ready either", "Start enrichd.")
    message = f"none is alive and {queue.ready:,} jobs are ready"
    hint = "Start enrichd, or run enrichctl process."
    if (queue.oldest_ready_s or 0.0) > READY_S_MAX:
        return fail("workers", message, hint)
    # Where cron runs `enrichctl process` that is how it looks between two runs.
    return warn("workers", message, hint)


def queue_checks(queue: Queue, *, has_workers: bool) -> Iterator[Check]:
    """Judge what waits for longer than it should."""
    yield ready(queue, has_workers=has_workers)
    keeper = "A running enrichd does that within seconds: is one up, and what does its log say?"
    if queue.orphans:
        yield fail(
            "orphans", f"{queue.orphans:,} jobs are processing without a live worker", keeper
        )
    else:
        yield ok("orphans", "no job is held by a dead worker")
    if queue.overdue:
        yield fail("overdue", f"{queue.overdue:,} scheduled jobs are due for over 60 s", keeper)
    else:
        yield ok("overdue", "no scheduled job is late")
    if queue.late_callbacks:
        yield fail(
            "late_callbacks",
            f"{queue.late_callbacks:,} waiting jobs are past their deadline for over 60 s",
            keeper,
        )
    if queue.dead_letters_24h:
        yield warn(
            "dead_letters",
            f"{queue.dead_letters_24h:,} of {queue.ended_24h:,} jobs that ended in the last 24 h",
            "enrichctl list --status dead_letter; once it is mended, enrichctl retry --all"
            " --status dead_letter.",
        )
    else:
        yield ok("dead_letters", "none in the last 24 h")


def ready(queue: Queue, *, has_workers: bool) -> Check:
    """Judge how long ready jobs wait."""
    age_s = queue.oldest_ready_s
    message = f"{queue.ready:,} ready, the oldest for {seconds(age_s)}"
    if age_s is None:
        waits = f"{queue.ready:,} ready, all in lanes that are held back" if queue.ready else "none"
        return ok("ready_jobs", waits)
    if age_s > READY_S_MAX:
        hint = "enrichctl top shows what the places are taken by; more workers, or concurrency."
        return warn("ready_jobs", message, hint if has_workers else None)
    return ok("ready_jobs", message)


def type_check(unknown: Mapping[str, int]) -> Check:
    """Judge the jobs that no worker can run."""
    if not unknown:
        return ok("job_types", "the workers know all that wait")
    shown = [f"{job_type} ({jobs:,})" for job_type, jobs in list(unknown.items())[:5]]
    more = f" and {len(unknown) - 5:,} more" if len(unknown) > 5 else ""
    return fail(
        "job_types",
        f"no living worker knows {', '.join(shown)}{more}; these jobs wait and lose no attempt",
        "Name the plug-in that has it in ENRICHD_PLUGINS of the workers, or update them; a type"
        " that is a mistake: enrichctl cancel --all --type …",
    )


def lane_check(held: Sequence[HeldLane]) -> Check:
    """Judge the providers that are held back."""
    if not held:
        return ok("lanes", "none is throttled or broken")
    shown = []
    for lane in held[:5]:
        word = "broken" if lane.breaker == "open" else "throttled"
        if lane.breaker == "half_open":
            word = "probing"
        for_s = f" for {seconds(lane.blocked_s)}" if lane.blocked_s is not None else ""
        reason = f" ({lane.reason})" if lane.reason else ""
        shown.append(f"{lane.provider_id} {word}{for_s}{reason}")
    more = f" and {len(held) - 5:,} more" if len(held) > 5 else ""
    return warn(
        "lanes",
        "; ".join(shown) + more,
        "They open by themselves; their jobs wait and lose no attempt.",
    )
