"""What `enrichctl enrich` says: how far it is while it works, and the last word."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from enrichd.ctl import render
from enrichd.ctl.sheet_reading import Sheet
from enrichd.ctl.terminal import safe
from enrichd.settings.providers import normal_id

PLAIN_PROGRESS_S = 10.0
BAD_ROWS_SHOWN = 10
FAILURES_KEPT = 100
FAILURES_SHOWN = 3

NO_NETWORK = frozenset(
    {"network_unreachable", "no_resolver", "dns_not_public", "dns_connection_refused"}
)
# One host's own trouble looks like this as well: it means the network only if nobody answered.
PERHAPS_NO_NETWORK = frozenset(
    {"dns_failed", "dns_timeout", "connect_failed", "connect_refused", "timeout"}
)
LEFT_OUT = {
    "no_api_key": "has no API key ({name}_API_KEY)",
    "key_unreadable": "has a key that cannot be unsealed (ENRICHD_SECRET_KEYS)",
    "denied": "refused the API key",
    "exhausted": "has no credits left",
    "breaker_open": "was not asked after its last calls had failed",
    "paused": "is paused by hand",
    "would_exceed_max_credits": "would have cost more than the row may",
    "would_exceed_workspace_credits": "would have cost more than the workspace may spend",
    "would_exceed_daily_credits": "would have cost more than may be spent a day",
}
"""What of a provider's reasons somebody can do something about, in words."""
OUTCOME_WORDS = {"notFound": "not found", "dead_letter": "dead letter"}


@dataclass(slots=True)
class Tally:
    """How far the trip is, for the progress bar and the last word."""

    read: int = 0
    written: int = 0
    done_ahead: int = 0
    """Rows whose jobs have ended but that wait for a row before them."""
    known: int = 0
    """Jobs that an earlier run had finished."""
    outcomes: Counter[str] = field(default_factory=Counter)
    bad_rows: list[str] = field(default_factory=list)
    bad_count: int = 0
    offline: int = 0
    """Rows that lack facts because there is no network."""
    perhaps_offline: int = 0
    has_reached_anybody: bool = False
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows for which a provider was not asked or had no answer, by its name and why."""
    cost_credits: Decimal = Decimal(0)
    """What the jobs that were made for these rows did cost."""
    failures: Counter[str] = field(default_factory=Counter)
    """Rows by what their jobs failed of."""
    waiting_for: str | None = None
    """A provider that is broken down: nothing goes on until it is asked again."""

    @property
    def ended(self) -> int:
        """How many rows are done, written or not."""
        return self.written + self.done_ahead

    def count_result(self, result: Mapping[str, Any], *, is_first: bool = True) -> None:
        """Count a row by its result; `is_first`: its job was made for it."""
        if is_first:
            self.cost_credits += Decimal(str(result.get("costCredits") or 0))
        self.left_out.update(
            {
                (str(call.get("provider")), reason)
                for call in result.get("providers") or ()
                if (reason := call.get("skipReason") or call.get("outcome")) in LEFT_OUT
            }
        )
        outcome = str(result.get("outcome", "complete"))
        self.outcomes[outcome] += 1
        reasons = {str(gap.get("reason")) for gap in result.get("missing") or ()}
        verification = result.get("emailVerification") or {}
        reasons.update(verification.get("reasons") or ())
        if reasons & NO_NETWORK:
            self.offline += 1
        elif reasons & PERHAPS_NO_NETWORK:
            self.perhaps_offline += 1
        elif outcome != "notFound":
            self.has_reached_anybody = True
        if (verification.get("mx") or {}).get("found") is not None:
            self.has_reached_anybody = True

    def count_failure(self, status: str, message: str) -> None:
        """Count a row whose job failed; the first messages are kept to be named."""
        self.outcomes[status] += 1
        if message in self.failures or len(self.failures) < FAILURES_KEPT:
            self.failures[message] += 1

    def count_unusable(self, line: int, reason: str) -> None:
        """Count a row that no job could be made of; the first ones are kept to be named."""
        self.bad_count += 1
        self.outcomes["unusable"] += 1
        if len(self.bad_rows) < BAD_ROWS_SHOWN:
            self.bad_rows.append(f"line {line}: {reason}")

    @property
    def without_network(self) -> int:
        """How many rows lack facts because there is no network, as far as one can tell."""
        return self.offline + (0 if self.has_reached_anybody else self.perhaps_offline)


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
        done = tally.ended
        now = time.monotonic()
        rate = done / max(now - self._began, 0.1)
        total = self._total
        if total is not None:
            total = max(total, tally.read)
        count = f"{done:,}/{total:,}" if total is not None else f"{done:,}"
        if self._is_shown:
            # Of one width, so that the bar does not jump.
            count = count.rjust(len(f"{total:,}") * 2 + 1) if total is not None else count
            pace = f"{rate:,.0f}/s".rjust(8)
            name = tally.waiting_for
            self._progress.update(
                self._task,
                description=f"waiting for {safe(name)}" if name else "enriching",
                completed=done,
                total=total,
                count=count,
                rate=pace,
            )
        elif now - self._told >= PLAIN_PROGRESS_S:
            self._told = now
            why = f", waiting for {tally.waiting_for}" if tally.waiting_for else ""
            click.echo(safe(f"enriching: {count} rows, {rate:,.0f}/s{why}"), err=True)

    def show_stopping(self) -> None:
        """Say that the trip is being stopped, which may take a moment."""
        self._progress.update(self._task, description="stopping")
        if not self._is_shown:
            click.echo("stopping; once more to stop at once", err=True)


class Summary:
    """The last word: what was done, what could not be used, how to go on."""

    def __init__(
        self,
        sheet: Sheet,
        tally: Tally,
        target: str,
        *,
        took_s: float,
        is_whole: bool,
        is_fresh: bool,
    ) -> None:
        self._sheet = sheet
        self._tally = tally
        self._target = target
        self._took_s = took_s
        self._is_whole = is_whole
        self._is_fresh = is_fresh

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
            "rowsWithoutNetwork": self._tally.without_network,
            "knownJobs": self._tally.known,
            "costCredits": float(self._tally.cost_credits),
            "providersLeftOut": [
                {"provider": name, "reason": reason, "rows": count}
                for (name, reason), count in sorted(self._tally.left_out.items())
            ],
            "seconds": round(self._took_s, 3),
        }

    def sentences(self) -> Iterator[str]:
        """Yield the summary for people."""
        for note in self._sheet.notes:
            yield f"note: {note}"
        yield from self._whole() if self._is_whole else self._stopped()

    def _stopped(self) -> Iterator[str]:
        written = rows(self._tally.written)
        if self._target == "-":
            yield f"Stopped after {written}."
        else:
            yield f"Stopped after {written}; {self._target} was not written."
        if self._is_fresh:
            yield "Run the same command again to begin anew, as --fresh says."
        else:
            yield "Run the same command again to go on: what is finished is not done twice."

    def _whole(self) -> Iterator[str]:
        tally = self._tally
        rate = tally.written / max(self._took_s, 0.001)
        where = "" if self._target == "-" else f" to {self._target}"
        yield f"Wrote {rows(tally.written)}{where} in {self._took_s:.1f} s ({rate:,.0f} a second)."
        shown = ", ".join(
            f"{count:,} {OUTCOME_WORDS.get(name, name)}"
            for name, count in tally.outcomes.most_common()
        )
        if shown:
            yield f"Outcomes: {shown}."
        if tally.known:
            was = "1 lead was" if tally.known == 1 else f"{tally.known:,} leads were"
            yield f"{was} known from an earlier run; --fresh asks again."
        if tally.bad_count:
            yield f"{rows(tally.bad_count)} could not be used:"
            yield from (f"  {row}" for row in tally.bad_rows)
            if tally.bad_count > len(tally.bad_rows):
                yield f"  … and {tally.bad_count - len(tally.bad_rows):,} more"
        for message, count in tally.failures.most_common(FAILURES_SHOWN):
            yield f"{rows(count)} failed: {message.rstrip('.')}."
        for (name, reason), count in sorted(tally.left_out.items()):
            why = LEFT_OUT[reason].format(name=normal_id(name).upper())
            yield f"{name} {why}: {rows(count)}."
        if tally.cost_credits:
            unit = "credit" if tally.cost_credits == 1 else "credits"
            yield f"Spent {tally.cost_credits.normalize():f} {unit}."
        if offline := tally.without_network:
            lack = "lacks" if offline == 1 else "lack"
            yield f"{rows(offline)} {lack} facts because the internet could not be reached."
            yield "Once it can be, run the same command with --fresh."


def rows(count: int) -> str:
    """Return `1 row`, `2 rows`."""
    return "1 row" if count == 1 else f"{count:,} rows"
