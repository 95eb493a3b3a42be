"""`enrichctl workers`: the worker processes of all hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from enrichd.ctl import render
from enrichd.ctl.glance import is_alive, seconds
from enrichd.ctl.invocation import Invocation, command
from enrichd.domain.jobs import iso
from enrichd.store import workers
from enrichd.store.workers import Worker


@command(name="workers", epilog="Example: enrichctl workers --min 2")
@click.option(
    "--min", "least", type=click.IntRange(1), metavar="N", help="Exit with 1 if fewer are alive."
)
def workers_command(invocation: Invocation, least: int | None) -> int:
    """List the worker processes of all hosts.

    A worker that is silent for longer than WORKER_TIMEOUT is marked stale; soon it is declared
    dead, and its jobs are run by others. With --json each worker is a line.
    """
    found = invocation.run(lambda: read(invocation))
    timeout_s = invocation.settings.worker_timeout_s
    alive = [worker for worker in found if is_alive(worker, timeout_s)]
    if invocation.is_json:
        for worker in found:
            render.json_line(document_of(worker, timeout_s))
    elif found:
        render_workers(found, timeout_s)
        render.line("")
        render.line(total_of(alive))
    else:
        render.line("There are no workers. Start enrichd, or run enrichctl process.")
    if least is not None and len(alive) < least:
        click.echo(f"{len(alive):,} of at least {least:,} workers alive", err=True)
        return 1
    return 0


async def read(invocation: Invocation) -> list[Worker]:
    """Read the workers."""
    async with invocation.session() as session, session.database.connection() as conn:
        return await workers.list_all(conn)


def document_of(worker: Worker, timeout_s: float) -> dict[str, Any]:
    """Return a worker in camelCase."""
    return {
        "id": str(worker.id),
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "state": worker.state,
        "isAlive": is_alive(worker, timeout_s),
        "concurrency": worker.concurrency,
        "running": worker.running,
        "completed": worker.completed,
        "failed": worker.failed,
        "startedAt": iso(worker.started_at),
        "heartbeatAt": iso(worker.heartbeat_at),
        "silentSeconds": worker.silent_s,
    }


def state_of(worker: Worker, timeout_s: float) -> str:
    """Return a worker's state; one that should have spoken by now is stale."""
    is_stale = worker.state != "dead" and not is_alive(worker, timeout_s)
    return "stale" if is_stale else worker.state


def render_workers(found: Sequence[Worker], timeout_s: float) -> None:
    """Print the workers as a table."""
    rows = []
    for worker in found:
        up_s = (worker.heartbeat_at - worker.started_at).total_seconds() + worker.silent_s
        rows.append(
            [
                worker.host,
                str(worker.pid),
                state_of(worker, timeout_s),
                f"{worker.running}/{worker.concurrency}",
                f"{worker.completed:,}",
                f"{worker.failed:,}",
                seconds(worker.silent_s),
                seconds(up_s),
                worker.version,
            ]
        )
    headings = ["Host", "Pid", "State", "Running", "Completed", "Failed", "Silent", "Up", "Version"]
    render.table(headings, rows, right=[1, *range(3, 8)], whole=range(1, 8))


def total_of(alive: Sequence[Worker]) -> str:
    """Return the workers that are alive in one line."""
    running = sum(worker.running for worker in alive)
    room = sum(worker.concurrency for worker in alive)
    return f"{len(alive):,} alive, {running:,} of {room:,} places taken"
