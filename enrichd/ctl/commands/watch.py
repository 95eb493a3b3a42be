"""`enrichctl watch`: the whole queue on one screen, as it moves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from rich.text import Text

from enrichd.ctl.commands.workers import document_of as worker_json
from enrichd.ctl.commands.workers import state_of
from enrichd.ctl.glance import (
    WIDE,
    all_ended,
    count_of,
    ended_json,
    head,
    lane_ended,
    lane_json,
    lane_state,
    lane_style,
    rate,
    seconds,
)
from enrichd.ctl.invocation import Invocation, command
from enrichd.ctl.live import Sight, View, live_options, run_live
from enrichd.ctl.panels import Panel, beside, stacked
from enrichd.domain.jobs import iso
from enrichd.store.overview import AttemptError, LaneLoad, Overview
from enrichd.store.workers import Worker

DIGITS = 13
SIDE_BY_SIDE_MIN = 132
IDS_MIN = 160
KEYS = "q quits"


@command(name="watch", epilog="Example: enrichctl watch --interval 2s")
@live_options
def watch_command(invocation: Invocation, once: bool, interval: float, count: int | None) -> int:
    """Watch the queue: states, pace, lanes, workers, recent errors.

    It shows all workspaces, since they share the lanes and the workers. q or Ctrl-C ends it; in a
    pipe it prints one look. With --json each look is a line.
    """

    def lines(sight: Sight, width: int, height: int | None) -> Sequence[Text]:
        return draw(sight, width, height)

    def document(found: Overview) -> dict[str, Any]:
        return document_of(found, invocation.settings.worker_timeout_s)

    return run_live(invocation, View(lines, document), once=once, interval=interval, count=count)


def draw(sight: Sight, width: int, height: int | None) -> list[Text]:
    """Return the screen's lines."""
    top = head("watch", sight, width, keys=None if height is None else KEYS)
    found = sight.overview
    if found is None:
        return top
    room = None if height is None else height - len(top)
    lanes = lanes_panel(found, width)
    workers = workers_panel(found.workers, sight.worker_timeout_s)
    errors = errors_panel(sight, width)
    if width < SIDE_BY_SIDE_MIN or height is None:
        return [*top, *stacked([lanes, workers, errors], width, room)]
    assert room is not None
    upper_max = max(room - min(errors.rows_wanted, room // 3) - 2, 3)
    upper = beside(lanes, workers, width, upper_max)
    return [*top, *upper, Text(), *errors.lines(width, max(room - len(upper) - 2, 0))]


def lanes_panel(found: Overview, width: int) -> Panel:
    """Return the lanes, those with the most to do first."""
    ended = lane_ended(found)
    running: defaultdict[str, int] = defaultdict(int)
    for group in found.running:
        running[group.provider_id] += group.jobs

    def weight(lane: LaneLoad) -> tuple[int, ...]:
        done = ended[lane.provider_id].completed if lane.provider_id in ended else 0
        return (lane.ready + running[lane.provider_id], done)

    lanes = sorted(found.lanes, key=weight, reverse=True)
    rows = []
    for lane in lanes:
        past = ended.get(lane.provider_id)
        rows.append(
            [
                lane.provider_id,
                count_of(lane.ready),
                seconds(lane.oldest_s),
                count_of(running[lane.provider_id]),
                rate(past.completed if past else 0, past),
                rate(past.failed if past else 0, past),
                seconds(past.run_p95_s if past else None),
                lane_state(lane),
            ]
        )
    return Panel(
        "Lanes",
        ["Lane", "Ready", "Oldest", "Run", "Done/min", "Fail/min", "P95", "State"],
        rows,
        right=range(1, 7),
        cuts=(0, 7),
        row_styles={place: lane_style(lane) for place, lane in enumerate(lanes)},
        empty="no job was ever enqueued",
    )


def workers_panel(found: Sequence[Worker], timeout_s: float) -> Panel:
    """Return the workers, silent ones first."""
    order = {"stale": 0, "dead": 2}
    shown = sorted(found, key=lambda worker: order.get(state_of(worker, timeout_s), 1))
    rows = [
        [
            f"{worker.host}:{worker.pid}",
            state_of(worker, timeout_s),
            f"{worker.running}/{worker.concurrency}",
            f"{worker.completed:,}",
            f"{worker.failed:,}",
            seconds(worker.silent_s),
        ]
        for worker in shown
    ]
    styles = {"stale": "bold red", "dead": "dim", "draining": "yellow"}
    return Panel(
        "Workers",
        ["Worker", "State", "Run", "Completed", "Failed", "Silent"],
        rows,
        right=range(2, 6),
        cuts=(0,),
        row_styles={
            place: styles.get(state_of(worker, timeout_s), "") for place, worker in enumerate(shown)
        },
    )


def errors_panel(sight: Sight, width: int) -> Panel:
    """Return the errors of late, equal ones as one row, the newest first."""
    groups: dict[tuple[str, str, str], list[AttemptError]] = {}
    for error in sorted(sight.errors.values(), key=lambda error: error.at, reverse=True):
        groups.setdefault((error.provider_id, error.type, message_of(error)), []).append(error)
    is_wide = width >= WIDE
    rows: list[list[str]] = []
    styles: dict[int, str] = {}
    for (provider_id, job_type, message), errors in groups.items():
        newest = errors[0]
        styles[len(rows)] = "yellow" if newest.outcome == "retry" else "red"
        row = [f"{newest.at.astimezone(UTC):%H:%M:%SZ}", f"{len(errors):,}×"]
        if is_wide:
            row += [newest.outcome, newest.workspace_id, job_type]
        row.append(str(newest.job_id) if width >= IDS_MIN else newest.job_id.hex[:DIGITS])
        rows.append([*row, provider_id, message])
    headings = ["Errors", "Times", *(["Outcome", "Workspace", "Type"] if is_wide else [])]
    headings += ["Job", "Lane", "Error"]
    lane = len(headings) - 2
    return Panel(
        "Errors",
        headings,
        rows,
        right=[1],
        cuts=(lane, 3, 4, lane + 1) if is_wide else (lane, lane + 1),
        row_styles=styles,
        empty="none of late",
    )


def message_of(error: AttemptError) -> str:
    """Return an error in one line."""
    return ": ".join(part for part in (error.kind, error.message) if part) or "(no message)"


def document_of(found: Overview, worker_timeout_s: float) -> dict[str, Any]:
    """Return one look in camelCase."""
    totals = found.totals
    ended = lane_ended(found)
    return {
        "at": iso(totals.now),
        "states": {
            "pending": sum(lane.ready for lane in found.lanes),
            "scheduled": totals.scheduled,
            "processing": sum(running.jobs for running in found.running),
            "waiting": totals.waiting,
        },
        "overdue": totals.overdue,
        "retriedLastMinute": totals.retried_1m,
        "crashedLastMinute": totals.crashed_1m,
        "pace": ended_json(all_ended(found)),
        "lanes": [
            {**lane_json(lane), **ended_json(ended.get(lane.provider_id))} for lane in found.lanes
        ],
        "workers": [worker_json(worker, worker_timeout_s) for worker in found.workers],
        "errors": [
            {
                "at": iso(error.at),
                "jobId": str(error.job_id),
                "attempt": error.attempt,
                "workspaceId": error.workspace_id,
                "type": error.type,
                "providerId": error.provider_id,
                "outcome": error.outcome,
                "error": {"type": error.kind, "message": error.message},
            }
            for error in found.errors
        ],
    }
