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
from enrichd.processing.bounds import Limits, Report
from enrichd.processing.wiring import Runtime
from enrichd.store.database import Database


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
    limits = Limits(max_jobs=max_jobs, timeout_s=timeout, is_until_empty=True)
    report = invocation.run(lambda: work(invocation, limits, concurrency))
    counts = asdict(report)
    if invocation.is_json:
        render.json_document(counts)
    elif report.claimed == 0:
        render.line("nothing to do: no job is ready")
    else:
        shown = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
        render.line(shown)


async def work(invocation: Invocation, limits: Limits, concurrency: int | None) -> Report:
    """Run the queue within the limits; SIGTERM and Ctrl-C end it in order."""
    async with invocation.session() as session, Runtime(session.settings) as runtime:
        hot, control = (
            Database(
                session.database.dsn,
                name=f"enrichctl process {purpose}",
                is_pooler=session.settings.is_pooler,
            )
            for purpose in ("hot", "control")
        )
        options = {"concurrency": concurrency} if concurrency else {}
        processor = runtime.processor(hot=hot, control=control, **options)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, processor.stop)
        try:
            return await processor.run(limits)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            await hot.close()
            await control.close()
