"""A supervisor of tiny children, as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.daemon import ROOT, parent_of_each, wait_for


class Supervised:
    """A running supervisor and what is in its log."""

    def __init__(
        self, fleet: str, log: Path, *, command: Sequence[str] = (), **environ: str
    ) -> None:
        self._log = log
        environ = {**os.environ, "MARKER": str(log.with_suffix(".marker")), **environ}
        with open(log, "wb") as stream:
            self.process = subprocess.Popen(
                [*command, sys.executable, "-m", "tests.supervisor.fleets", fleet],
                cwd=ROOT,
                env=environ,
                stdout=stream,
                stderr=stream,
            )

    def log(self) -> str:
        """Return all it wrote."""
        return self._log.read_text(errors="replace")

    def events(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the events of that name that have these fields."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name and fields.items() <= line.items()]

    def wait_for(self, name: str, *, count: int = 1, within_s: float = 10.0, **fields: Any) -> None:
        """Wait until an event was logged so many times."""
        wait_for(
            lambda: len(self.events(name, **fields)) >= count,
            within_s,
            what=lambda: f"{name} {fields}\n{self.log()}",
        )

    def children(self) -> list[int]:
        """Return the process ids of its living children."""
        return [pid for pid, parent in parent_of_each().items() if parent == self.process.pid]

    def workers(self) -> list[int]:
        """Return the process ids of the workers that were started and live, oldest first."""
        alive = self.children()
        started = self.events("child_started", role="worker")
        return [event["child_pid"] for event in started if event["child_pid"] in alive]

    def state(self) -> dict[str, Any]:
        """Ask for its state and return it."""
        count = len(self.events("supervisor_state"))
        self.signal(signal.SIGUSR1)
        self.wait_for("supervisor_state", count=count + 1)
        return self.events("supervisor_state")[-1]

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor a signal."""
        self.process.send_signal(number)

    def ended(self, within_s: float = 10.0) -> int:
        """Wait for its end and return the exit code."""
        return self.process.wait(within_s)

    def stop(self) -> int:
        """Stop it and return the exit code; no child may be left."""
        children = self.children()
        self.signal(signal.SIGTERM)
        code = self.ended()
        assert not set(children) & parent_of_each().keys()
        return code


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    """Give `supervise(fleet)`: start a supervisor; it is gone at the end."""
    started: list[Supervised] = []

    def start(fleet: str, **options: Any) -> Supervised:
        started.append(Supervised(fleet, tmp_path / f"{fleet}.log", **options))
        return started[-1]

    yield start
    for supervised in started:
        for pid in [*supervised.children(), supervised.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        supervised.process.wait(5)
