"""`enrichctl process`: one bounded run of the queue, for cron and serverless."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import asdict

import click

from enrichd.ctl import render
from enrichd.ctl.durations import DURATION
from enrichd.ctl.invocation import Invocation, command
from enrichd.handlers.registry import load_handlers
from enrichd.processing.bounded import Done, limits_of, process
from enrichd.processing.bounds import Limits
from enrichd.processing.processor import JobProcessor


@command(name="process", epilog="Example: enrichctl process --max-jobs 100 --timeout 25s")
@click.option("--max-jobs", type=click.IntRange(1), help="Claim at most this many jobs.")
@click.option("--timeout", type=DURATION, help="Hand back what is unfinished after this long.")
@click.option("--concurrency", type=click.IntRange(1, 1000), help="Jobs at once.")
def process_command(
    invocation: Invocation, max_jobs: int | None, timeout: float | None, concurrency: int | None
) -> None:
    """Run jobs that are ready, until none is left or a bound is reached.

    Runs may overlap each other and the daemon: a job is claimed once. What could not be finished in
    time goes back to the queue without using an attempt.
    """
    settings = invocation.settings
    load_handlers(settings.plugins)
    done = invocation.run(lambda: work(invocation, limits_of(max_jobs, timeout), concurrency))
    counts = asdict(done.report)
    if invocation.is_json:
        render.json_document(
            {**counts, "remaining": done.remaining, "durationMs": round(done.duration_s * 1000)}
        )
    elif done.report.claimed == 0:
        render.line("nothing to do: no job is ready")
    else:
        shown = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        render.line(shown)


async def work(invocation: Invocation, limits: Limits, concurrency: int | None) -> Done:
    """Run the queue within the limits; SIGTERM and Ctrl-C end it in order."""
    loop = asyncio.get_running_loop()

    def heed_signals(processor: JobProcessor) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, processor.stop)

    async with invocation.session() as session:
        try:
            return await process(
                session.settings,
                session.database.dsn,
                limits,
                name="enrichctl process",
                concurrency=concurrency,
                on_start=heed_signals,
            )
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
