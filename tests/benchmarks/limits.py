"""The rate limiter: is a limit kept and used up, and what does a permit cost.

Four processes of 25 callers each want more than one provider allows. The provider notes when calls
arrive, by its own clock, and refuses what is above a window less 50 ms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from enrichd.providers.contracts import Window
from tests.benchmarks.figures import Figures
from tests.benchmarks.peers import peer
from tests.benchmarks.processes import database
from tests.support.arrivals import Arrivals, arrivals, run_callers

PROCESSES = 4
SLACK_S = 0.05
LATENCY_S = 0.1
WHOSE = "enrichd"

BOTH = (Window(1, 100), Window(60, 2000))
SECOND = (Window(1, 100),)
PLENTY = (Window(1, 100_000),)
# Callers, and how long they think between calls: 80 calls a second of the 100.
BUSY: tuple[int, float] = (20, 1.0)
BACKLOG: tuple[int, float] = (25, LATENCY_S)


def limits(admin_dsn: str, calls: int, figures: Figures) -> None:
    """100/s and 2,000/min for as long as so many calls take, 60 s at full scale."""
    seconds = calls * 60 / 2000
    title = f"100/s + 2,000/min, {seconds:g} s"
    server, reports = measured(admin_dsn, BOTH, seconds, BACKLOG)
    began = min(server.times)
    used = sum(at < began + seconds for at in server.times)
    possible = min(100 * seconds, 2000 * max(seconds / 60, 1))
    figures.add(f"{title}: rejected", WHOSE, server.rejected, "calls")
    for window in BOTH:
        worst = 100 * server.worst(window) / window.calls
        figures.add(f"{title}: fullest {window.seconds} s", WHOSE, worst, "% of the limit")
    figures.add(f"{title}: used", WHOSE, 100 * used / possible, "%")
    figures.add(f"{title}: round trips", WHOSE, round_trips(reports), "a permit")

    for name, windows, callers in (
        ("100/s, backlog", SECOND, BACKLOG),
        ("100/s, 80 wanted", SECOND, BUSY),
        ("100,000/s, 1,000 wanted", PLENTY, BACKLOG),
    ):
        server, reports = measured(admin_dsn, windows, seconds / 4, callers)
        rate = steady_rate(server.times)
        figures.add(f"{name}: rejected", WHOSE, server.rejected, "calls")
        figures.add(f"{name}: rate", WHOSE, rate, "calls/s")
        figures.add(f"{name}: round trips", WHOSE, round_trips(reports), "a permit")


def measured(
    admin_dsn: str, windows: Sequence[Window], seconds: float, callers: tuple[int, float]
) -> tuple[Arrivals, list[dict[str, Any]]]:
    """Let all processes call within windows; return the provider and what each process did."""
    count, latency_s = callers
    options = {
        "callers": count,
        "seconds": seconds,
        "wait_s_max": 5.0,
        "latency_s": latency_s,
        "windows": [[window.seconds, window.calls] for window in windows],
    }

    async def run(dsn: str) -> tuple[Arrivals, list[dict[str, Any]]]:
        async with arrivals(windows, slack_s=SLACK_S) as server:
            return server, await run_callers(dsn, server.url, PROCESSES, options)

    with database(admin_dsn, peer("enrichd")) as dsn:
        return asyncio.run(run(dsn))


def round_trips(reports: Sequence[dict[str, Any]]) -> float:
    """Return the round trips that a permit did cost."""
    return sum(report["asks"] for report in reports) / sum(report["given"] for report in reports)


def steady_rate(times: Sequence[float]) -> float:
    """Return the calls a second, over whole seconds after the first, when all was free."""
    first, last = min(times) + 1, max(times)
    seconds = int(last - first)
    return sum(first <= at < first + seconds for at in times) / seconds
