"""One child of the daemon, run by a test that holds the supervisor's end of its link."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.e2e.daemon import QUICK, ROOT, START_S, wait_for

SCRIPT = """
import socket, sys
from enrichd.daemon import load_settings
from enrichd.handlers.registry import load_handlers
from enrichd.housekeeper.main import run_housekeeper
from enrichd.worker.main import run_worker

settings = load_settings()
load_handlers(settings.plugins)
run = {"worker": run_worker, "housekeeper": run_housekeeper}[sys.argv[1]]
sys.exit(run(settings, socket.socket(fileno=int(sys.argv[2])), 0))
"""


class LinkedChild:
    """A worker or housekeeper process; a context manager that ends it."""

    def __init__(
        self,
        role: Literal["worker", "housekeeper"],
        database_url: str,
        folder: Path,
        **environ: str,
    ) -> None:
        self._role = role
        self._folder = folder
        self._environ = {**QUICK, "DATABASE_URL": database_url, "PYTHONPATH": str(ROOT), **environ}
        self._log_path = folder / f"{role}.log"
        self._heard = ""

    def __enter__(self) -> Self:
        self._link, theirs = socket.socketpair()
        with theirs, open(self._log_path, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, self._role, str(theirs.fileno())],
                env=self._environ,
                cwd=self._folder,
                pass_fds=[theirs.fileno()],
                stderr=log,
                stdout=log,
            )
        self._link.setblocking(False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._link.close()
        self.process.kill()
        self.process.wait()
        if kind is not None:
            sys.stderr.write(self.log())

    def log(self) -> str:
        """Return what it wrote."""
        return self._log_path.read_text()

    def say(self, line: str) -> None:
        """Be the supervisor that says a line."""
        self._link.send(line.encode() + b"\n")

    def heard(self) -> list[str]:
        """Return every line it has said, the sign of life aside."""
        try:
            while data := self._link.recv(65536):
                self._heard += data.decode()
        except OSError:
            pass
        return [line for line in self._heard.splitlines() if line != "."]

    def wait_for_line(self, start: str, within_s: float = 10.0, *, count: int = 1) -> str:
        """Wait until it said lines that start like this; return the last."""

        def found() -> list[str]:
            lines = [line for line in self.heard() if line.startswith(start)]
            return lines if len(lines) >= count else []

        return wait_for(found, within_s, what=lambda: (start, self.heard(), self.log()[-3000:]))[-1]

    def wait_until_ready(self) -> None:
        """Wait until it says that it is ready."""
        self.wait_for_line("ready", START_S)

    def hang_up(self) -> None:
        """Be a supervisor that died."""
        self._link.close()

    def ended(self, within_s: float = 10.0) -> int:
        """Wait until it ended and return its exit code."""
        return self.process.wait(within_s)
