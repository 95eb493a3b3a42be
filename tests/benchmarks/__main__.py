"""Measure enrichd beside its peers and print a table.

    python -m tests.benchmarks [--only rates,pick_up] [--rounds 3] [--scale 0.1] [--json FILE]

The server is a throw-away one with PostgreSQL's own durable settings, or the one at
ENRICHD_BENCH_DATABASE_URL. Peers take turns within a round, and the table shows each one's median
and its ratio to pgqueuer's: on a shared machine only ratios of one run mean anything.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from tests.benchmarks import cases, hard
from tests.benchmarks.bare import bare
from tests.benchmarks.figures import Figures
from tests.benchmarks.http import http
from tests.benchmarks.limits import limits
from tests.benchmarks.live import live
from tests.benchmarks.peers import NAMES, Peer, peer
from tests.benchmarks.processes import server
from tests.benchmarks.providers import providers
from tests.benchmarks.webhooks import webhooks

ForEach: TypeAlias = Callable[[str, Peer, int, Figures], None]
Alone: TypeAlias = Callable[[str, int, Figures], None]

FOR_EACH: dict[str, tuple[ForEach, int]] = {
    "rates": (cases.rates, 50_000),
    "naps": (cases.naps, 4_000),
    "pick_up": (cases.pick_up, 200),
    "idle": (cases.idle, 2_000),
}
"""By name: the measurement and how many jobs it takes at full scale."""
ALONE: dict[str, tuple[Alone, int]] = {
    "bare": (bare, 50_000),
    "hard": (hard.hard, 50_000),
    "crash": (hard.crash, 2_000),
    "limits": (limits, 2_000),
    "providers": (providers, 5_000),
    "webhooks": (webhooks, 20_000),
    "live": (live, 200),
    "http": (http, 1_000_000),
}
SLOW = {"procrastinate": 0.1}
"""The share of the jobs that a slow peer gets, so that a round ends."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--only", default=",".join([*FOR_EACH, *ALONE]))
    parser.add_argument("--peers", default=",".join(NAMES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of jobs")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - {*FOR_EACH, *ALONE}:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join([*FOR_EACH, *ALONE])}")
    peers = [peer(name) for name in options.peers.split(",")]
    figures = Figures()
    with server() as admin_dsn:
        for number in range(options.rounds):
            print(f"round {number + 1}", file=sys.stderr)
            for name in wanted:
                measure(name, admin_dsn, peers, options.scale, figures)
    figures.show()
    if options.json:
        options.json.write_text(json.dumps(figures.to_json(), indent=1) + "\n")


def measure(name: str, admin_dsn: str, peers: list[Peer], scale: float, figures: Figures) -> None:
    """Do one measurement, for every peer if it is one for all."""
    if name in ALONE:
        alone, jobs = ALONE[name]
        alone(admin_dsn, max(int(jobs * scale), 100), figures)
        return
    for_each, jobs = FOR_EACH[name]
    for one in peers:
        share = SLOW.get(one.name, 1.0) if name == "rates" else 1.0
        for_each(admin_dsn, one, max(int(jobs * scale * share), 100), figures)


if __name__ == "__main__":
    main()
