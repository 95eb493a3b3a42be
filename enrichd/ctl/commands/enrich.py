"""`enrichctl enrich IN --out OUT`: the whole trip from a lead list to an enriched one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from enrichd.ctl import render
from enrichd.ctl.enriching import Tally, Trip, Wish
from enrichd.ctl.invocation import Invocation, Session, command
from enrichd.ctl.sheet_fields import chosen_fields
from enrichd.ctl.sheet_reading import Sheet, open_sheet
from enrichd.ctl.sheet_writing import SheetWriter
from enrichd.ctl.terminal import safe
from enrichd.domain.payloads import EnrichmentType
from enrichd.handlers.registry import load_handlers
from enrichd.processing.wiring import Runtime
from enrichd.store.database import Database

INTERRUPTED = 130
CONCURRENCY = 50
GRACE_S = 2.0
PLAIN_PROGRESS_S = 10.0
NO_NETWORK = ("network_unreachable", "no_resolver", "dns_timeout", "connect_refused")


@command(name="enrich", epilog="Example: enrichctl enrich leads.csv --out enriched.csv")
@click.argument("source", metavar="IN", type=click.Path(allow_dash=True))
@click.option("--out", "target", metavar="OUT", required=True, help="File to write; - for stdout.")
@click.option("--map", "maps", metavar="FIELD=COLUMN", multiple=True, help="Which column is what.")
@click.option("--fields", metavar="A,B,…", help="Result columns to add; all for every one.")
@click.option("--types", metavar="A,B,…", help="What to find: email, company, social, person.")
@click.option("--provider", default="builtin", show_default=True, help="The first source to ask.")
@click.option("--fallback", "fallbacks", multiple=True, help="Further sources, in order.")
@click.option("--concurrency", type=click.IntRange(1, 1000), default=CONCURRENCY, show_default=True)
@click.option("--raw", is_flag=True, help="Do not neutralise spreadsheet formulas.")
@click.option("--fresh", is_flag=True, help="Use no result of an earlier run.")
def enrich_command(
    invocation: Invocation,
    source: str,
    target: str,
    maps: tuple[str, ...],
    fields: str | None,
    types: str | None,
    provider: str,
    fallbacks: tuple[str, ...],
    concurrency: int,
    raw: bool,
    fresh: bool,
) -> int:
    """Enrich a list of leads: CSV or JSON lines in, the same with results out.

    Your columns, values and row order stay; results are added. Run it again on the same list and
    only what is new is done. With neither a database nor keys, it brings a PostgreSQL along and
    uses the sources that need no key.
    """
    settings = invocation.settings
    load_handlers(settings.plugins)
    wish = Wish(
        types=chosen_types(types),
        provider_id=provider,
        fallback_providers=fallbacks,
        workspace_id=settings.workspace,
        tag="enrich",
        salt=os.urandom(8).hex() if fresh else "",
    )
    chosen = chosen_fields(fields)
    with (
        open_sheet(source, mapping=mapping_of(maps)) as sheet,
        SheetWriter(target, sheet, chosen, raw=raw) as writer,
    ):
        progress = Bar(total_rows(source), is_shown=sys.stderr.isatty())
        with progress:
            began = time.monotonic()
            work = travel(invocation, sheet, writer, wish, concurrency, progress)
            is_whole, tally = invocation.run(lambda: work)
            took_s = time.monotonic() - began
        if is_whole:
            writer.commit()
    summary = Summary(sheet, tally, target, took_s, is_whole)
    if writer.is_closed_by_reader:
        return 0
    summary.tell(invocation.is_json and target != "-")
    return 0 if is_whole else INTERRUPTED


async def travel(
    invocation: Invocation,
    sheet: Sheet,
    writer: SheetWriter,
    wish: Wish,
    concurrency: int,
    progress: Bar,
) -> tuple[bool, Tally]:
    """Make the trip on the database of this call; Ctrl-C stops it in order, twice at once."""
    async with (
        invocation.session(is_migrating=True) as session,
        Runtime(session.settings) as runtime,
        runner(session, wish, concurrency, runtime) as processor,
    ):
        trip = Trip(
            sheet=sheet,
            writer=writer,
            wish=wish,
            queue=session.queue,
            processor=processor,
            on_progress=progress.show,
        )
        with interruptible(trip):
            is_whole = await trip.run()
    return is_whole, trip.tally


@contextlib.asynccontextmanager
async def runner(session: Session, wish: Wish, concurrency: int, runtime: Runtime) -> Any:
    """Give a JobProcessor that runs the jobs of this trip's lanes, and no others."""
    hot = Database(session.database.dsn, name="enrichctl hot", is_pooler=session.settings.is_pooler)
    control = Database(
        session.database.dsn, name="enrichctl control", is_pooler=session.settings.is_pooler
    )
    try:
        yield runtime.processor(
            hot=hot,
            control=control,
            concurrency=concurrency,
            grace_s=GRACE_S,
            only_lanes=frozenset({wish.provider_id}),
        )
    finally:
        await hot.close()
        await control.close()


@contextlib.contextmanager
def interruptible(trip: Trip) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop the trip in order; a second one ends the process as usual."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        for number in signals:
            loop.remove_signal_handler(number)
        trip.stop()

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


class Bar:
    """The progress bar on a terminal; a line every ten seconds otherwise."""

    def __init__(self, total: int | None, *, is_shown: bool) -> None:
        self._total = total
        self._is_shown = is_shown
        self._began = self._told = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
            disable=not is_shown,
        )
        self._task: TaskID = self._progress.add_task("enriching", total=total, count="", rate="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, tally: Tally) -> None:
        """Show how far the trip is."""
        done = tally.written + tally.done_ahead
        now = time.monotonic()
        rate = done / max(now - self._began, 0.1)
        total = self._total
        if total is not None:
            total = max(total, tally.read)
        count = f"{done:,}/{total:,}" if total is not None else f"{done:,}"
        if self._is_shown:
            self._progress.update(
                self._task, completed=done, total=total, count=count, rate=f"{rate:,.0f}/s"
            )
        elif now - self._told >= PLAIN_PROGRESS_S:
            self._told = now
            click.echo(f"enriching: {count} rows, {rate:,.0f}/s", err=True)


class Summary:
    """The last word: what was done, what could not be used, how to go on."""

    def __init__(
        self, sheet: Sheet, tally: Tally, target: str, took_s: float, is_whole: bool
    ) -> None:
        self._sheet = sheet
        self._tally = tally
        self._target = target
        self._took_s = took_s
        self._is_whole = is_whole

    def tell(self, is_json: bool) -> None:
        """Print it: JSON on stdout, or sentences on stderr, where they disturb no pipe."""
        if is_json:
            render.json_document(self.to_json())
            return
        for sentence in self.sentences():
            click.echo(safe(sentence), err=True)

    def to_json(self) -> dict[str, Any]:
        """Return the machine-readable summary."""
        return {
            "isWhole": self._is_whole,
            "out": self._target,
            "rows": self._tally.written,
            "outcomes": dict(self._tally.outcomes),
            "unusableRows": self._tally.bad_count,
            "knownJobs": self._tally.known,
            "seconds": round(self._took_s, 3),
        }

    def sentences(self) -> Iterator[str]:
        """Yield the summary for people."""
        tally = self._tally
        for note in self._sheet.notes:
            yield f"note: {note}"
        if not self._is_whole:
            yield (
                f"Stopped after {tally.written:,} rows; nothing was written to {self._target}."
                if self._target != "-"
                else f"Stopped after {tally.written:,} rows."
            )
            yield "Run the same command again to go on: what is finished is not done twice."
            return
        rate = tally.written / max(self._took_s, 0.001)
        where = "" if self._target == "-" else f" to {self._target}"
        yield f"Wrote {tally.written:,} rows{where} in {self._took_s:.1f} s ({rate:,.0f} a second)."
        shown = ", ".join(f"{count:,} {name}" for name, count in tally.outcomes.most_common())
        if shown:
            yield f"Outcomes: {shown}."
        if tally.known:
            yield f"{tally.known:,} were known from an earlier run; --fresh asks again."
        if tally.bad_count:
            yield f"{tally.bad_count:,} rows could not be used:"
            yield from (f"  {row}" for row in tally.bad_rows)
            if tally.bad_count > len(tally.bad_rows):
                yield f"  … and {tally.bad_count - len(tally.bad_rows):,} more (column error)"
        offline = sum(tally.reasons[reason] for reason in NO_NETWORK)
        if offline:
            yield (
                f"{offline:,} rows lack facts because the network could not be reached"
                " (column missing). With a network, run it again with --fresh."
            )


def chosen_types(text: str | None) -> tuple[str, ...]:
    """Read `--types a,b`; all of them for None."""
    if text is None:
        return tuple(EnrichmentType)
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    wrong = [name for name in names if name not in set(EnrichmentType)]
    if wrong or not names:
        shown = ", ".join(EnrichmentType)
        raise click.UsageError(f"--types is {text!r}; give some of {shown}")
    return names


def mapping_of(maps: tuple[str, ...]) -> dict[str, str]:
    """Read `--map field=column` options."""
    mapping = {}
    for text in maps:
        name, equals, column = text.partition("=")
        if not equals or not name.strip() or not column.strip():
            raise click.UsageError(f"--map is {text!r}; write it as field=column, email=Mail")
        mapping[name.strip()] = column.strip()
    return mapping


def total_rows(source: str) -> int | None:
    """Return about how many rows a file has, by its line ends; None for a pipe."""
    path = Path(source)
    if source == "-" or not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            ends = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return None
    return max(ends - 1, 1)
