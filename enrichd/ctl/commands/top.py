"""`enrichctl top`: what the workers are busy with, by lane and job type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click
from rich.text import Text

from enrichd.ctl.glance import (
    WIDE,
    count_of,
    ended_json,
    head,
    lane_json,
    lane_state,
    lane_style,
    per_minute,
    rate,
    seconds,
)
from enrichd.ctl.invocation import Invocation, command
from enrichd.ctl.live import Sight, View, live_options, run_live
from enrichd.ctl.panels import Panel, stacked
from enrichd.domain.jobs import iso
from enrichd.store.overview import Ended, LaneLoad, Overview

GROUPINGS = ("both", "lane", "type")
WORDS = ("Lane", "Type", "State")


@dataclass(frozen=True, slots=True)
class Row:
    """A lane, a job type, or a type in a lane (the other part is None)."""

    lane: str | None
    type: str | None
    running: int
    longest_s: float
    ended: Ended | None
    load: LaneLoad | None
    """The lane's own state, where the row is a whole lane."""

    @property
    def done(self) -> float:
        """Completed a minute."""
        return per_minute(self.ended.completed, self.ended) if self.ended else 0.0

    @property
    def failed(self) -> float:
        """Failed a minute."""
        return per_minute(self.ended.failed, self.ended) if self.ended else 0.0

    @property
    def ready(self) -> int:
        """Jobs that are ready; 0 where it is not known."""
        return self.load.ready if self.load else 0


ORDERS: dict[str, Callable[[Row], tuple[float, ...]]] = {
    "running": lambda row: (row.running, row.ready, row.done),
    "done": lambda row: (row.done, row.running),
    "failed": lambda row: (row.failed, row.running),
    "time": lambda row: ((row.ended.run_p95_s if row.ended else None) or 0.0, row.running),
}


@dataclass(slots=True)
class Choice:
    """How the table is grouped and sorted; keys change it."""

    by: str
    sort: str

    def press(self, key: str) -> None:
        """Take a key: l, t, b group, r, d, f, p sort."""
        groupings = {name[0]: name for name in GROUPINGS}
        sorts = {"r": "running", "d": "done", "f": "failed", "p": "time"}
        self.by = groupings.get(key, self.by)
        self.sort = sorts.get(key, self.sort)

    def keys(self, width: int) -> str:
        """Say which keys there are, as far as there is room."""
        if width < 110:
            return "l/t/b r/d/f/p q"
        return "group l/t/b   sort r/d/f/p   q quits"


@command(name="top", epilog="Example: enrichctl top --by lane --sort failed")
@click.option(
    "--by",
    type=click.Choice(GROUPINGS),
    default="both",
    show_default=True,
    help="A row for each lane, for each job type, or for each type in each lane.",
)
@click.option(
    "--sort",
    type=click.Choice(list(ORDERS)),
    default="running",
    show_default=True,
    help="What stands first.",
)
@live_options
def top_command(
    invocation: Invocation, by: str, sort: str, once: bool, interval: float, count: int | None
) -> int:
    """Watch what the workers are busy with, by lane and job type.

    Keys: l, t, b group by lane, type or both; r, d, f, p sort by running, done, failed, p95; q or
    Ctrl-C ends it. It shows all workspaces. In a pipe it prints one look; with --json each look is
    a line.
    """
    choice = Choice(by, sort)

    def lines(sight: Sight, width: int, height: int | None) -> Sequence[Text]:
        return draw(sight, choice, width, height)

    def document(found: Overview) -> dict[str, Any]:
        return document_of(found, choice)

    view = View(lines, document, choice.press)
    return run_live(invocation, view, once=once, interval=interval, count=count)


def draw(sight: Sight, choice: Choice, width: int, height: int | None) -> list[Text]:
    """Return the screen's lines."""
    keys = None if height is None else choice.keys(width)
    top = head("top", sight, width, keys=keys)
    if sight.overview is None:
        return top
    room = None if height is None else height - len(top)
    panel = panel_of(rows_of(sight.overview, choice), choice.by, width)
    return [*top, *stacked([panel], width, room)]


def rows_of(found: Overview, choice: Choice) -> list[Row]:
    """Return the rows as they are grouped and sorted; groups without anything are left out."""
    has_lane, has_type = choice.by != "type", choice.by != "lane"

    def key_of(lane: str | None, job_type: str | None) -> tuple[str | None, str | None]:
        return (lane if has_lane else None, job_type if has_type else None)

    jobs: dict[tuple[str | None, str | None], int] = {}
    longest: dict[tuple[str | None, str | None], float] = {}
    for group in found.running:
        key = key_of(group.provider_id, group.type)
        jobs[key] = jobs.get(key, 0) + group.jobs
        longest[key] = max(longest.get(key, 0.0), group.longest_s)
    ended = {
        (group.provider_id, group.type): group
        for group in found.ended
        if (group.provider_id is not None) == has_lane and (group.type is not None) == has_type
    }
    loads: dict[tuple[str | None, str | None], LaneLoad] = {}
    if not has_type:
        loads = {(lane.provider_id, None): lane for lane in found.lanes}
    keys = dict.fromkeys([*jobs, *ended, *loads])
    rows = [
        Row(*key, jobs.get(key, 0), longest.get(key, 0.0), ended.get(key), loads.get(key))
        for key in keys
    ]
    rows.sort(key=lambda row: (row.lane or "", row.type or ""))
    rows.sort(key=ORDERS[choice.sort], reverse=True)
    return rows


def panel_of(rows: Sequence[Row], by: str, width: int) -> Panel:
    """Return the rows as a table; a narrow one has fewer columns."""
    total = sum(row.running for row in rows)
    columns: dict[str, Callable[[Row], str]] = {
        "Lane": lambda row: row.lane or "",
        "Type": lambda row: row.type or "",
        "Run": lambda row: count_of(row.running),
        "Share": lambda row: f"{row.running / total:.0%}" if row.running else "·",
        "Done/min": lambda row: rate(row.ended.completed if row.ended else 0, row.ended),
        "Fail/min": lambda row: rate(row.ended.failed if row.ended else 0, row.ended),
        "P50": lambda row: seconds(row.ended.run_p50_s if row.ended else None),
        "P95": lambda row: seconds(row.ended.run_p95_s if row.ended else None),
        "Longest": lambda row: seconds(row.longest_s) if row.running else "-",
        "Ready": lambda row: count_of(row.ready),
        "Oldest": lambda row: seconds(row.load.oldest_s if row.load else None),
        "State": lambda row: lane_state(row.load) if row.load else "-",
    }
    absent = {"lane": {"Type"}, "type": {"Lane"}, "both": set()}[by]
    if by != "lane":
        absent |= {"Ready", "Oldest", "State"}
    if width < WIDE:
        absent |= {"Share", "P50"} if by == "lane" else {"Share"}
    headings = [name for name in columns if name not in absent]
    words = [place for place, name in enumerate(headings) if name in WORDS]
    return Panel(
        headings[0],
        headings,
        [[columns[name](row) for name in headings] for row in rows],
        right=[place for place in range(len(headings)) if place not in words],
        cuts=words,
        row_styles={
            place: lane_style(row.load) for place, row in enumerate(rows) if row.load is not None
        },
        empty="nothing runs, and nothing ended in the last minute",
    )


def document_of(found: Overview, choice: Choice) -> dict[str, Any]:
    """Return one look in camelCase; `ready` and the lane's state only where a row is a lane."""
    rows = []
    for row in rows_of(found, choice):
        shape: dict[str, Any] = {
            "providerId": row.lane,
            "type": row.type,
            "running": row.running,
            "longestRunSeconds": row.longest_s if row.running else None,
            **ended_json(row.ended),
        }
        rows.append(shape | (lane_json(row.load) if row.load is not None else {}))
    return {"at": iso(found.totals.now), "by": choice.by, "rows": rows}
