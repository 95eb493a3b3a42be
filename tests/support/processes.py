"""`enrichctl` as a process of its own, as a person starts it: an environment, an end, signals."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

COMMAND = (sys.executable, "-c", "from enrichd.ctl.main import main; main()")
NOBODY = "127.0.0.1:9"
"""Where nobody listens."""
NO_NETWORK = {
    "DNS_SERVERS": NOBODY,
    "GRAVATAR_BASE_URL": f"http://{NOBODY}",
    "RDAP_BASE_URL": f"http://{NOBODY}",
}
"""Settings with which nothing leaves this machine, and every answer is a refused connection."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended; `exit_code` is minus the signal that ended it.

    `peak_bytes` is the most memory it held as last seen while it ran, 20 ms before its end or less.
    """

    exit_code: int
    stdout: str
    stderr: str
    peak_bytes: int

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return orjson.loads(self.stdout)


class Running:
    """A started `enrichctl`; its ends are files in `folder`, so that nothing blocks on a pipe."""

    def __init__(
        self, words: Sequence[str], env: Mapping[str, str], folder: Path, **options: Any
    ) -> None:
        number = len(list(folder.glob("stdout-*")))
        self._paths = [folder / f"{end}-{number}" for end in ("stdout", "stderr")]
        stdout, stderr = (path.open("wb") for path in self._paths)
        with stdout, stderr:
            options = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr, **options}
            self.process = subprocess.Popen([*COMMAND, *words], env=dict(env), **options)

    def signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    @property
    def stderr(self) -> str:
        """What it said so far."""
        return self._paths[1].read_text()

    def end(self, within_s: float = 60.0) -> Ended:
        """Wait for its end."""
        deadline = time.monotonic() + within_s
        peak_bytes = 0
        while self.process.poll() is None:
            peak_bytes = peak_memory(self.process.pid) or peak_bytes
            if time.monotonic() > deadline:
                self.process.kill()
                self.process.wait()
                raise TimeoutError(f"still running after {within_s:g} s:\n{self.stderr}")
            time.sleep(0.02)
        stdout, stderr = (path.read_text() for path in self._paths)
        return Ended(self.process.returncode, stdout, stderr, peak_bytes)


def peak_memory(pid: int) -> int:
    """Return the most bytes a process ever held since it runs its program; 0 when it has ended."""
    # ru_maxrss will not do: it counts the size of who started it, which is large late in a run.
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def plain_environment(home: Path, **variables: str) -> dict[str, str]:
    """Return the environment of somebody who has set nothing, with a home of their own."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "PYTHONWARNINGS": "error", **variables}


def until(condition: Callable[[], object], within_s: float = 30.0) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition} did not hold within {within_s:g} s")
        time.sleep(0.02)
