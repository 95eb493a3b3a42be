"""The unit files: systemd takes them, they lock the service up, and `enrichd` keeps their side."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from enrichd.settings import Settings
from enrichd.settings.model import SECRETS, VARIABLES
from enrichd.settings.providers import is_secret, split
from enrichd.supervisor.manager import CONFIGURATION_ERROR, KILL_EXTRA_S, REAP_S
from tests.e2e.daemon import ROOT, wait_for

SERVICE = ROOT / "systemd/enrichd.service"
ENV_EXAMPLE = ROOT / "systemd/enrichd.env.example"
RUN_SERVICE = ROOT / "ecosystem/cron/enrichd-process.service"
RUN_TIMER = ROOT / "ecosystem/cron/enrichd-process.timer"
CALL_SERVICE = ROOT / "ecosystem/cron/enrichd-call.service"
CALL_TIMER = ROOT / "ecosystem/cron/enrichd-call.timer"
UNITS = (SERVICE, RUN_SERVICE, RUN_TIMER, CALL_SERVICE, CALL_TIMER)
INSTALLED_IN = "/opt/enrichd/bin"
EXPOSURE_MAX = "12"
"""In tenths of what systemd-analyze prints: the unit scores 1.2, and 11 fails."""

ENVIRONMENT_LINE = r"(?:^#?Environment=|(?<=\w) )(\w+)(?==[/%\w])"
NOT_OURS = ("PYTHONFAULTHANDLER", "SHELL", "PATH", "MAILTO")
SANDBOX = re.compile(
    r"Dynamic|UMask|NoNewPriv|Cap|Ambient|Protect|Private|Proc|Restrict(?!art)|Lock|Memory|RemoveIPC"
    r"|SystemCall|IPAddress|LimitCORE|LimitNOFILE"
)

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and "CI" not in os.environ,
    reason="systemd-analyze is not installed",
)


@pytest.fixture
def installed(tmp_path):
    """Give a folder of the units whose programs exist, as after an installation."""
    for unit in UNITS:
        text = unit.read_text().replace(INSTALLED_IN, str(Path(sys.executable).parent))
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_unit_without_a_word(installed, unit):
    done = systemd_analyze("verify", "--man=no", installed / unit.name)

    # A misspelt directive is only a warning, so the output counts as well as the exit code.
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", [SERVICE, RUN_SERVICE, CALL_SERVICE], ids=lambda path: path.name)
def test_the_service_is_locked_up(installed, unit):
    done = systemd_analyze(
        "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", installed / unit.name
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_bounded_run_has_the_sandbox_of_the_daemon():
    daemon, run, call = (
        {name: given for name, given in directives(unit).items() if SANDBOX.match(name)}
        for unit in (SERVICE, RUN_SERVICE, CALL_SERVICE)
    )

    assert run == call == daemon
    assert len(daemon) > 25


def test_systemd_waits_longer_than_the_supervisor_takes_to_stop():
    settings = Settings.load({}, directory=Path("/nonexistent"))
    longest_s = settings.graceful_shutdown_timeout_s + KILL_EXTRA_S + REAP_S

    assert float(one(SERVICE, "TimeoutStopSec")) > longest_s + 10


def test_a_wrong_configuration_is_not_tried_again(daemon):
    assert one(SERVICE, "RestartPreventExitStatus") == str(CONFIGURATION_ERROR)
    with daemon(is_ready_awaited=False, WORKER_COUNT="many") as running:
        assert running.ended() == CONFIGURATION_ERROR
        assert "WORKER_COUNT" in running.log_text()


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        (SERVICE, ENVIRONMENT_LINE),
        (RUN_SERVICE, ENVIRONMENT_LINE),
        (ENV_EXAMPLE, r"^#?(\w+)="),
        (ROOT / "ecosystem/cron/crontab.example", r"^#?(\w+)="),
        (ROOT / "ecosystem/pm2/ecosystem.config.js", r"^ +(?:// )?([A-Z]\w+): "),
    ],
    ids=lambda given: given.name if isinstance(given, Path) else "",
)
def test_every_variable_in_a_file_is_a_setting(file, pattern):
    written = re.findall(pattern, file.read_text(), re.MULTILINE)

    assert len(written) >= 1
    assert [name for name in written if not is_setting(name)] == []


def test_the_example_of_settings_is_accepted_whole(tmp_path):
    lines = ENV_EXAMPLE.read_text().splitlines()
    given = dict(line.lstrip("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line))

    settings = Settings.load({k: v.strip("'\"") for k, v in given.items()}, directory=tmp_path)

    assert settings.warnings == ()


# `enrichd` as systemd starts it.


@pytest.fixture
def notifications(tmp_path):
    """Give what systemd would hear: a socket, and `(name, value, time)` for each line so far."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.setblocking(False)
        yield Notifications(sock, str(tmp_path / "notify"))


class Notifications:
    """The service manager's end of NOTIFY_SOCKET."""

    def __init__(self, sock: socket.socket, path: str) -> None:
        self.path = path
        self._sock = sock
        self._heard: list[tuple[str, str, float]] = []

    def heard(self, name: str) -> list[tuple[str, float]]:
        """Return every value of a name with when it was heard, oldest first."""
        while True:
            try:
                lines = self._sock.recv(4096).decode().splitlines()
            except BlockingIOError:
                return [(value, when) for key, value, when in self._heard if key == name]
            for line in lines:
                key, _, value = line.partition("=")
                self._heard.append((key, value, time.monotonic()))

    def names(self) -> list[str]:
        """Return all that was heard but pings and texts, in order."""
        self.heard("")
        return [key for key, _, _ in self._heard if key not in ("WATCHDOG", "STATUS")]


@pytest.fixture
def runtime_directory(tmp_path):
    """Give the folder that RuntimeDirectory= has systemd make."""
    folder = tmp_path / one(SERVICE, "RuntimeDirectory")
    folder.mkdir(mode=int(one(SERVICE, "RuntimeDirectoryMode"), 8))
    return folder


@pytest.fixture
def service(daemon, notifications, runtime_directory):
    """Give `service()`: the daemon with what the unit has systemd set for it."""

    def make(**environ):
        watchdog_usec = int(one(SERVICE, "WatchdogSec")) * 1_000_000
        assert "PYTHONFAULTHANDLER=1" in directives(SERVICE)["Environment"]
        return daemon(
            # Only the started process itself knows its id.
            command=("sh", "-c", 'ulimit -c 0; WATCHDOG_PID=$$ exec "$@"', "sh"),
            RUNTIME_DIRECTORY=str(runtime_directory),
            NOTIFY_SOCKET=notifications.path,
            WATCHDOG_USEC=str(watchdog_usec),
            PYTHONFAULTHANDLER="1",
            **environ,
        )

    return make


def test_systemd_hears_of_start_reload_and_stop_in_order(service, notifications):
    assert one(SERVICE, "Type") == "notify"
    with service() as running:
        wait_for(lambda: notifications.names() == ["READY"], what=notifications.names)

        accepted = running.enqueue("nap", 4, seconds=0.5)
        running.wait_until_started(4)
        before = time.monotonic()
        reload(running.process.pid)
        wait_for(lambda: notifications.names()[-1] == "READY", what=notifications.names)
        wait_for(lambda: len(notifications.names()) == 4, what=notifications.names)
        assert notifications.names() == ["READY", "RELOADING", "MONOTONIC_USEC", "READY"]
        ((stamp, _),) = notifications.heard("MONOTONIC_USEC")
        assert before <= int(stamp) / 1e6 <= time.monotonic()

        assert running.stop() == 0
        assert notifications.names()[4:] == ["STOPPING"]
        running.assert_sound(accepted)
        assert running.statuses() == {"completed": 4}


def test_the_watchdog_is_spoken_to_at_least_twice_in_its_time(service, notifications):
    half_s = float(one(SERVICE, "WatchdogSec")) / 2
    with service():
        pings = wait_for(
            lambda: len(found := notifications.heard("WATCHDOG")) >= 3 and found, within_s=half_s
        )
        assert max(later - sooner for (_, sooner), (_, later) in pairwise(pings)) < half_s


def test_the_supervisor_that_systemd_aborts_says_where_it_was(service):
    with service() as running:
        running.processes()
        os.kill(running.process.pid, getattr(signal, one(SERVICE, "WatchdogSignal")))
        assert running.ended() == -signal.SIGABRT
        assert "Fatal Python error: Aborted" in running.log_text()
        assert "manager.py" in running.log_text()


def test_metrics_are_kept_in_the_runtime_directory(service, runtime_directory):
    with service():
        assert list(runtime_directory.glob("metrics/*.db")) != []


def reload(pid: int) -> None:
    """Run the unit's ExecReload."""
    command = one(SERVICE, "ExecReload").replace("$MAINPID", str(pid))
    subprocess.run(shlex.split(command), check=True, timeout=10)


def systemd_analyze(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)],
        env={**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def directives(unit: Path) -> dict[str, list[str]]:
    """Return a unit's settings; each may be given several times."""
    found = defaultdict(list)
    for line in unit.read_text().splitlines():
        if match := re.match(r"(\w+)=(.*)", line):
            found[match[1]].append(match[2])
    return dict(found)


def one(unit: Path, name: str) -> str:
    (value,) = directives(unit)[name]
    return value


def is_setting(name: str) -> bool:
    """Say whether enrichd, Python or cron itself reads a variable of that name."""
    plain = name.removesuffix("_FILE")
    is_known = plain in VARIABLES or split(plain) is not None
    may_be_file = plain in SECRETS or is_secret(plain)
    return name in NOT_OURS or (is_known and (plain == name or may_be_file))
