"""`enrichctl metrics`: how much is in the queue, and how fast it moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from enrichd.api.job_shapes import figures_of
from enrichd.ctl import render
from enrichd.ctl.invocation import Invocation, command
from enrichd.ctl.terminal import safe
from enrichd.domain.jobs import JobStatus, iso
from enrichd.store import stats, workers
from enrichd.store.stats import Pace, TypeCount
from enrichd.store.workers import Worker


@dataclass(frozen=True, slots=True)
class Figures:
    """The queue of one workspace, and the workers, which serve all."""

    workspace_id: str
    counts: Sequence[TypeCount]
    pace: Pace
    workers: Sequence[Worker]

    def by_status(self) -> Counter[str]:
        """Return the jobs counted by state."""
        totals: Counter[str] = Counter()
        for count in self.counts:
            totals[count.status] += count.jobs
        return totals


@command(name="metrics", epilog="Example: enrichctl metrics --json")
def metrics_command(invocation: Invocation) -> None:
    """Show job counts, the pace of the last hour, the workers.

    Jobs are those of the workspace, by type and state; workers run the jobs of all workspaces.
    """
    figures = invocation.run(lambda: read_figures(invocation))
    if invocation.is_json:
        render.json_document(document_of(figures))
        return
    render_counts(figures)
    render.line("")
    render_pace(figures)
    if figures.workers:
        render.line("")
        render_workers(figures.workers)
    elif figures.by_status()["pending"]:
        click.echo("note: jobs are ready and no worker runs; try enrichctl process", err=True)


async def read_figures(invocation: Invocation) -> Figures:
    """Read all figures."""
    async with invocation.session() as session, session.database.connection() as conn:
        return Figures(
            session.workspace,
            await stats.counts(conn, workspace_id=session.workspace),
            await stats.pace(conn, workspace_id=session.workspace),
            await workers.list_all(conn),
        )


def document_of(figures: Figures) -> dict[str, Any]:
    """Return the figures in camelCase; times in seconds, null where there is nothing to measure."""
    document = figures_of(figures.workspace_id, figures.counts, figures.by_status(), figures.pace)
    return document | {
        "workers": [
            {
                "id": str(worker.id),
                "host": worker.host,
                "pid": worker.pid,
                "version": worker.version,
                "state": worker.state,
                "concurrency": worker.concurrency,
                "running": worker.running,
                "completed": worker.completed,
                "failed": worker.failed,
                "startedAt": iso(worker.started_at),
                "heartbeatAt": iso(worker.heartbeat_at),
                "silentSeconds": worker.silent_s,
            }
            for worker in figures.workers
        ],
    }


def render_counts(figures: Figures) -> None:
    """Print states by types; where that is too wide, one line for each type and state."""
    if not figures.counts:
        render.line(f"There are no jobs in workspace {figures.workspace_id}.")
        return
    totals = figures.by_status()
    jobs = {(count.type, count.status): count.jobs for count in figures.counts}
    types = list(dict.fromkeys(count.type for count in figures.counts))
    rows = []
    for status in JobStatus:
        if totals[status]:
            cells = [grouped(jobs.get((name, status), 0)) for name in types]
            rows.append([str(status), *cells, grouped(totals[status])])
    # A type's words stand one below the other: the five of enrichd then fit 80 columns.
    headings = ["Status", *(safe(name).replace("_", "\n") for name in types), "all"]
    if render.fits(headings, rows):
        render.table(headings, rows, right=range(1, len(headings)))
    else:
        listed = [[count.type, count.status, grouped(count.jobs)] for count in figures.counts]
        render.table(["Type", "Status", "Jobs"], listed, right=[2], whole=[1, 2])


def grouped(count: int) -> str:
    """Return a count with its thousands apart, a dot for none."""
    return f"{count:,}" if count else "·"


def render_pace(figures: Figures) -> None:
    """Print the last hour's figures."""
    pace = figures.pace
    oldest = "-" if pace.oldest_ready_s is None else f"waits {precise(pace.oldest_ready_s)}"
    render.fields(
        [
            (
                "completed",
                f"{pace.completed_1m:,} in the last minute, {pace.completed_1h:,} in the last hour",
            ),
            ("failed", f"{pace.failed_1h:,} in the last hour"),
            ("run time", f"p50 {precise(pace.run_p50_s)}, p95 {precise(pace.run_p95_s)}"),
            ("oldest ready", oldest),
            ("workers", f"{pace.workers:,} alive, {busy(figures.workers)}"),
        ]
    )


def precise(seconds: float | None) -> str:
    """Return a duration with two figures below ten seconds."""
    if seconds is not None and 1 <= seconds < 10:
        return f"{seconds:.1f}s"
    return render.duration(seconds)


def busy(found: Sequence[Worker]) -> str:
    """Return how much of the workers' room is used."""
    alive = [worker for worker in found if worker.state != "dead"]
    running = sum(worker.running for worker in alive)
    return f"{running:,} of {sum(worker.concurrency for worker in alive):,} places taken"


def render_workers(found: Sequence[Worker]) -> None:
    """Print the worker processes."""
    rows = [
        [
            worker.host,
            str(worker.pid),
            worker.state,
            f"{worker.running}/{worker.concurrency}",
            f"{worker.completed:,}",
            f"{worker.failed:,}",
            precise(worker.silent_s),
        ]
        for worker in found
    ]
    headings = ["Host", "Pid", "State", "Running", "Completed", "Failed", "Silent"]
    render.table(headings, rows, right=range(3, 7), whole=range(1, 7))
