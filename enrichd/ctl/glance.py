"""What `watch` and `top` have in common: the lines at the head of the screen, and lanes' states."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from datetime import UTC

from rich.text import Text

from enrichd.ctl import render
from enrichd.ctl.live import Sight
from enrichd.ctl.panels import bars, cut, joined, spread
from enrichd.ctl.terminal import safe
from enrichd.store.overview import Ended, LaneLoad, Overview
from enrichd.store.workers import Worker

METER_WIDTH = 20
WIDE = 120
NOTE_LINES_MAX = 3


def head(name: str, sight: Sight, width: int, *, keys: str | None) -> list[Text]:
    """Return the head of a screen: what it is, the states, the pace, the workers.

    `keys` says which keys there are; None is for a single look, where nobody can press one.
    """
    found = sight.overview
    if found is None:
        note = sight.note or "connecting to PostgreSQL…"
        return [cut(Text(f"enrichctl {name}", style="bold"), width), *told(note, width)]
    title = joined(
        [Text(f"enrichctl {name}", style="bold"), safe(found.totals.database), "all workspaces"]
    )
    clock = Text(f"{found.totals.now.astimezone(UTC):%H:%M:%SZ}", style="dim")
    ends = joined([Text(keys, style="dim"), clock]) if keys is not None else clock
    lines = [
        joined([title, clock]) if keys is None else spread(title, ends, width),
        states(found),
        pace(found, sight.rates, width),
        places(sight, found),
    ]
    return [*(cut(line, width) for line in lines), *told(sight.note, width)]


def told(note: str, width: int) -> list[Text]:
    """Return a note that nobody overlooks, in a few lines: its end may say most. At least one."""
    parts = textwrap.wrap(safe(note), width, max_lines=NOTE_LINES_MAX, placeholder="…")
    return [Text(part, style="bold red") for part in parts] or [Text()]


def states(found: Overview) -> Text:
    """Return how many jobs are in each live state."""
    totals = found.totals
    scheduled = f"{totals.scheduled:,}"
    if totals.overdue:
        scheduled += f" ({totals.overdue:,} overdue)"
    elif totals.next_due_s is not None:
        scheduled += f" (next in {seconds(totals.next_due_s)})"
    oldest = [lane.oldest_s for lane in found.lanes if lane.oldest_s is not None]
    pending = f"{sum(lane.ready for lane in found.lanes):,}"
    figures = {
        "pending": f"{pending} (oldest {seconds(max(oldest))})" if oldest else pending,
        "processing": f"{sum(running.jobs for running in found.running):,}",
        "scheduled": scheduled,
        "waiting": f"{totals.waiting:,}" if totals.waiting else "",
    }
    return joined(
        [
            Text(f"{status} ", style=render.STATUS_STYLES[status]) + Text(figure, style="bold")
            for status, figure in figures.items()
            if figure
        ]
    )


def pace(found: Overview, rates: Sequence[float], width: int) -> Text:
    """Return how fast jobs end, with the last looks as a small chart."""
    ended = all_ended(found)
    parts: list[Text | str] = [
        Text(f"{rates[-1] if rates else 0:,.1f}", style="bold green") + Text(" done/s"),
        figure_of(per_minute(ended.failed, ended), "failed/min", "bold red"),
        figure_of(found.totals.retried_1m, "retried/min", "yellow"),
        figure_of(found.totals.crashed_1m, "crashed/min", "bold red"),
        f"p50 {seconds(ended.run_p50_s)} p95 {seconds(ended.run_p95_s)}" if ended.completed else "",
    ]
    line = joined(parts)
    room = min(width - line.cell_len - 3, 60)
    if len(rates) > 1 and room >= 10:
        line = joined([line, Text(bars(list(rates), room), style="green")])
    return line


def figure_of(count: float, unit: str, style: str) -> Text:
    """Return a figure that is coloured unless it is nought, which is left out."""
    return Text(f"{count:,.0f}", style=style) + Text(f" {unit}") if count else Text()


def places(sight: Sight, found: Overview) -> Text:
    """Return the workers in one line, with a meter of the places taken."""
    alive = [worker for worker in found.workers if is_alive(worker, sight.worker_timeout_s)]
    silent = [worker for worker in found.workers if worker.state != "dead" and worker not in alive]
    if not alive:
        more = f"{len(silent):,} silent" if silent else "start enrichd, or run enrichctl process"
        return Text(f"no worker is alive; {more}", style="bold red")
    running = sum(worker.running for worker in alive)
    room = sum(worker.concurrency for worker in alive)
    filled = round(METER_WIDTH * min(running / room, 1)) if room else 0
    meter = Text("█" * filled, style="yellow") + Text("░" * (METER_WIDTH - filled), style="dim")
    word = "worker" if len(alive) == 1 else "workers"
    parts: list[Text | str] = [
        f"{len(alive):,} {word} alive",
        meter + Text(f" {running:,} of {room:,} places taken"),
    ]
    if silent:
        parts.append(Text(f"{len(silent):,} silent", style="bold red"))
    return joined(parts)


def is_alive(worker: Worker, worker_timeout_s: float) -> bool:
    """Say whether a worker's heartbeat is fresh."""
    return worker.state != "dead" and worker.silent_s <= worker_timeout_s


def all_ended(found: Overview) -> Ended:
    """Return what ended in all lanes and types together."""
    nothing = Ended(None, None, 60.0, 0, 0, 0, 0, 0, None, None)
    return next((e for e in found.ended if e.provider_id is None and e.type is None), nothing)


def per_minute(count: int, ended: Ended) -> float:
    """Return a count of what ended as a rate."""
    return count * 60 / max(ended.window_s, 0.001)


def rate(count: int, ended: Ended | None) -> str:
    """Return a rate for a table: a dot for none."""
    if ended is None or not count:
        return "·"
    figure = per_minute(count, ended)
    return f"{figure:,.0f}" if figure >= 1 else f"{figure:.1f}"


def count_of(jobs: int) -> str:
    """Return a count for a table: a dot for none."""
    return f"{jobs:,}" if jobs else "·"


def seconds(value: float | None) -> str:
    """Return a duration with two figures below ten seconds."""
    if value is not None and 1 <= value < 10:
        return f"{value:.1f}s"
    return render.duration(value)


def lane_state(lane: LaneLoad) -> str:
    """Return whether jobs of a lane are claimed, and why not."""
    state = "open"
    if lane.blocked_s is not None:
        state = f"throttled {seconds(lane.blocked_s)}"
    if lane.breaker == "open":
        state = "broken" if lane.blocked_s is None else f"broken {seconds(lane.blocked_s)}"
    elif lane.breaker == "half_open":
        state = "probing"
    if state != "open" and lane.reason:
        state += f": {lane.reason}"
    return state


def lane_style(lane: LaneLoad) -> str:
    """Return the colour of a lane's row."""
    if lane.breaker == "open":
        return "red"
    return "yellow" if lane.blocked_s is not None or lane.breaker == "half_open" else ""


def lane_json(lane: LaneLoad) -> dict[str, object]:
    """Return a lane in camelCase."""
    return {
        "providerId": lane.provider_id,
        "ready": lane.ready,
        "oldestReadySeconds": lane.oldest_s,
        "breaker": lane.breaker,
        "throttledSeconds": lane.blocked_s,
        "reason": lane.reason,
        "inflightCap": lane.inflight_cap,
    }


def ended_json(ended: Ended | None) -> dict[str, object]:
    """Return rates and run times in camelCase; null where there is nothing to measure."""
    if ended is None:
        ended = Ended(None, None, 60.0, 0, 0, 0, 0, 0, None, None)
    return {
        "completedPerMinute": per_minute(ended.completed, ended),
        "failedPerMinute": per_minute(ended.failed, ended),
        "cancelledPerMinute": per_minute(ended.cancelled, ended),
        "runP50Seconds": ended.run_p50_s,
        "runP95Seconds": ended.run_p95_s,
    }


def lane_ended(found: Overview) -> dict[str, Ended]:
    """Return what ended, by lane."""
    return {
        ended.provider_id: ended
        for ended in found.ended
        if ended.provider_id is not None and ended.type is None
    }
