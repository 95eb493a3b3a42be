"""One process of a drain: says `ready`, waits for a line, drains, says when it began and ended."""

from __future__ import annotations

import sys
import time

from tests.benchmarks.peers import PEERS, run


def main() -> None:
    """Run `python -m tests.benchmarks.runner PEER DSN`."""
    name, dsn = sys.argv[1:]
    peer = next(peer for peer in PEERS if peer.name == name)
    if name == "procrastinate":
        import procrastinate  # noqa: F401 - imported before the clock starts
    elif name == "pgqueuer":
        import pgqueuer  # noqa: F401 - the same
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    run(peer.drain(dsn))
    print(began, time.monotonic(), flush=True)


if __name__ == "__main__":
    main()
