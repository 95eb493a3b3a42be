"""One process of a peer.

`python -m tests.benchmarks.runner PEER DSN drain SLOTS` says `ready`, waits for a line, drains, and
says when it began and ended and when its first nap began and its last one ended;
`… serve` says `ready` and runs jobs until it is ended.
"""

from __future__ import annotations

import sys
import time

from tests.benchmarks.peers import peer, run
from tests.benchmarks.work import Span


def main() -> None:
    """Drain or serve."""
    name, dsn, what, *slots = sys.argv[1:]
    mine = peer(name)
    print("ready", flush=True)
    if what == "serve" and mine.serve is not None:
        run(mine.serve(dsn))  # type: ignore[arg-type]
        return
    sys.stdin.readline()
    began = time.monotonic()
    run(mine.drain(dsn, int(slots[0])))  # type: ignore[arg-type]
    print(began, time.monotonic(), Span.began or began, Span.ended, flush=True)


if __name__ == "__main__":
    main()
