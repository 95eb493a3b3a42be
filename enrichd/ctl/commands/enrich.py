"""`enrichctl enrich IN --out OUT`: the whole trip from a lead list to an enriched one."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import click

from enrichd.ctl.enrich_report import Bar, Summary
from enrichd.ctl.enriching import Trip
from enrichd.ctl.invocation import Invocation, Session, command
from enrichd.ctl.lead_jobs import Wish
from enrichd.ctl.row_feed import RowFeed
from enrichd.ctl.sheet_reading import Sheet, open_sheet
from enrichd.ctl.sheet_writing import SheetWriter
from enrichd.domain.fields import RECORD_FIELDS
from enrichd.domain.lead_results import wanted_field
from enrichd.domain.payloads import EnrichmentType, FillMode, Verdict
from enrichd.domain.result_fields import chosen_fields
from enrichd.handlers.registry import load_handlers
from enrichd.processing.processor import JobProcessor
from enrichd.processing.wiring import Runtime
from enrichd.providers.base import REGISTERED
from enrichd.store.database import Database

INTERRUPTED = 130
CONCURRENCY = 50
GRACE_S = 2.0


@command(name="enrich", epilog="Example: enrichctl enrich leads.csv --out enriched.csv")
@click.argument("source", metavar="IN", type=click.Path(allow_dash=True))
@click.option("--out", "target", metavar="OUT", required=True, help="File to write; - for stdout.")
@click.option("--map", "maps", metavar="FIELD=COLUMN", multiple=True, help="Which column is what.")
@click.option("--fields", metavar="A,B,…", help="Result columns to add; all for every one.")
@click.option("--types", metavar="A,B,…", help="What to find: email, company, social, person.")
@click.option("--provider", default="builtin", show_default=True, help="The first source to ask.")
@click.option("--fallback", "fallbacks", multiple=True, help="Further sources, in order.")
@click.option("--require", metavar="A,B,…", help="Stop once these are there: email, person.title.")
@click.option(
    "--verdict",
    "verdicts",
    type=click.Choice([str(one) for one in Verdict]),
    multiple=True,
    help="An email is enough only if it is that; may be repeated.",
)
@click.option("--no-catch-all", is_flag=True, help="No email is enough where every address exists.")
@click.option("--min-confidence", type=click.FloatRange(0, 1), help="What is surer is enough.")
@click.option("--infer-email", is_flag=True, help="Have likely addresses checked before a search.")
@click.option(
    "--fill",
    type=click.Choice([str(one) for one in FillMode]),
    help="What becomes of your own values.  [default: fillEmpty]",
)
@click.option(
    "--max-credits",
    type=click.FloatRange(0, 1_000_000),
    metavar="N",
    help="The most that a row may cost.",
)
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
    require: str | None,
    verdicts: tuple[str, ...],
    no_catch_all: bool,
    min_confidence: float | None,
    infer_email: bool,
    fill: str | None,
    max_credits: float | None,
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
        provider_id=known_provider(provider),
        fallback_providers=tuple(map(known_provider, fallbacks)),
        workspace_id=settings.workspace,
        tag="enrich",
        salt=os.urandom(8).hex() if fresh else "",
        options=options_of(
            stop_rule={
                "requiredFields": required_fields(require, is_open=bool(settings.plugins)),
                "emailVerdicts": list(verdicts),
                "acceptCatchAll": False if no_catch_all else None,
                "minConfidence": min_confidence,
            },
            infer_email=infer_email,
            fill=fill,
            max_credits=max_credits,
        ),
    )
    chosen = chosen_fields(fields)
    with (
        opened(source, mapping_of(maps)) as sheet,
        SheetWriter(target, sheet, chosen, raw=raw) as writer,
    ):
        feed = RowFeed(iter(sheet), may_block=not is_regular(source))
        began = time.monotonic()
        with Bar(total_rows(source), is_shown=sys.stderr.isatty()) as bar:
            work = travel(invocation, feed, writer, wish, concurrency, bar)
            trip = invocation.run(lambda: work)
        if trip.is_whole:
            writer.commit()
    if writer.is_closed_by_reader:
        return 0
    took_s = time.monotonic() - began
    summary = Summary(
        sheet, trip.tally, target, took_s=took_s, is_whole=trip.is_whole, is_fresh=fresh
    )
    summary.tell(invocation.is_json and target != "-")
    return 0 if trip.is_whole else INTERRUPTED


@contextlib.contextmanager
def opened(source: str, mapping: dict[str, str]) -> Iterator[Sheet]:
    """Give the open list, closed at the end if it is a file."""
    sheet = open_sheet(source, mapping=mapping)
    try:
        yield sheet
    finally:
        # To close a pipe that is just being read would wait for what it says next.
        if is_regular(source):
            sheet.close()


async def travel(
    invocation: Invocation,
    feed: RowFeed,
    writer: SheetWriter,
    wish: Wish,
    concurrency: int,
    bar: Bar,
) -> Trip:
    """Make the trip on the database of this call; Ctrl-C stops it in order, twice at once."""
    stops: list[Callable[[], object]] = []
    with interruptible(stops):
        async with (
            invocation.session(is_migrating=True) as session,
            Runtime(session.settings) as runtime,
            runner(session, wish, concurrency, runtime) as processor,
        ):
            trip = Trip(
                feed=feed,
                writer=writer,
                wish=wish,
                queue=session.queue,
                processor=processor,
                on_progress=bar.show,
            )

            def stop() -> None:
                bar.show_stopping()
                trip.stop()

            stops.append(stop)
            await trip.run()
    return trip


@contextlib.asynccontextmanager
async def runner(
    session: Session, wish: Wish, concurrency: int, runtime: Runtime
) -> AsyncIterator[JobProcessor]:
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
            only_lanes=wish.lanes,
        )
    finally:
        await hot.close()
        await control.close()


@contextlib.contextmanager
def interruptible(stops: list[Callable[[], object]]) -> Iterator[None]:
    """Let SIGINT and SIGTERM call what is in `stops`, then cancel this task, then kill.

    Until the block is left, also while connections close: python's own KeyboardInterrupt comes up
    in whatever is just running, and what is running then says so with a traceback.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    signals = (signal.SIGINT, signal.SIGTERM)

    def heard() -> None:
        if stops:
            stops.pop()()
            return
        task.cancel()
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in signals:
        loop.add_signal_handler(number, heard)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def known_provider(name: str) -> str:
    """Return the name of a source that is there, or say which one was probably meant."""
    if name in REGISTERED:
        return name
    raise click.UsageError(f"there is no source {name!r}; {nearest(name, REGISTERED)}")


def options_of(
    *,
    stop_rule: dict[str, Any],
    infer_email: bool,
    fill: str | None,
    max_credits: float | None,
) -> dict[str, Any]:
    """Return what of a payload was chosen; what was not is left to the payload's own defaults."""
    rule = {name: part for name, part in stop_rule.items() if part not in (None, [])}
    options: dict[str, Any] = {
        "stopRule": rule or None,
        "inferEmail": infer_email or None,
        "fillMode": fill,
        "maxCredits": max_credits,
    }
    return {name: part for name, part in options.items() if part is not None}


def required_fields(text: str | None, *, is_open: bool) -> list[str]:
    """Read `--require a,b`; a misspelt field would have every provider asked about every row.

    `is_open`: a plug-in's provider may bring fields that nobody here knows.
    """
    paths = [part.strip() for part in (text or "").split(",") if part.strip()]
    for path in paths:
        entity, name = wanted_field(path)
        if is_open or name.partition(".")[0] in RECORD_FIELDS[entity]:
            continue
        whose = {word: one for one, words in RECORD_FIELDS.items() for word in sorted(words)}
        whose |= dict.fromkeys(RECORD_FIELDS[entity], entity)
        known = ", ".join(f"{one}.{word}" for word, one in whose.items())
        close = difflib.get_close_matches(name, whose, n=1)
        hint = f"did you mean {whose[close[0]]}.{close[0]}?" if close else f"give some of {known}"
        raise click.UsageError(f"--require has {path!r}; {hint}")
    return paths


def nearest(word: str, words: Collection[str]) -> str:
    """Return what was probably meant, else all there is."""
    close = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {close[0]}?" if close else f"give one of {', '.join(sorted(words))}"


def chosen_types(text: str | None) -> tuple[str, ...]:
    """Read `--types a,b`; all of them for None."""
    if text is None:
        return tuple(EnrichmentType)
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise click.UsageError(f"--types is {text!r}; give some of {', '.join(EnrichmentType)}")
    for name in names:
        if name not in set(EnrichmentType):
            raise click.UsageError(f"--types has {name!r}; {nearest(name, list(EnrichmentType))}")
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
    if not is_regular(source):
        return None
    try:
        with open(source, "rb") as file:
            ends = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return None
    return max(ends - 1, 1)


def is_regular(source: str) -> bool:
    """Tell a file from a pipe or a device, whose bytes come when they come."""
    return source != "-" and Path(source).is_file()
