"""`enrichd` under the real PM2, with the configuration that is shipped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from enrichd.supervisor.manager import CONFIGURATION_ERROR, KILL_EXTRA_S
from tests.e2e import daemon as e2e
from tests.e2e.daemon import QUICK, ROOT, parent_of_each, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("npm") is None and "CI" not in os.environ, reason="npm is not installed"
    ),
]

CONFIG = ROOT / "ecosystem/pm2/ecosystem.config.js"
# The shipped application, run from a checkout on a database of the test.
WRAPPER = """
const app = require({shipped}).apps[0];
const given = {given};
module.exports = {{ apps: [{{ ...app, ...given, env: {{ ...app.env, ...given.env }} }}] }};
"""
ENTRY = """#!{python}
from enrichd.daemon import main
main()
"""


@pytest.fixture(scope="module")
def pm2_program(tmp_path_factory):
    """Install PM2 and give its path."""
    folder = tmp_path_factory.mktemp("pm2")
    done = subprocess.run(
        ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--prefix", folder, "pm2@7"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode != 0 and "CI" not in os.environ:
        pytest.skip(f"PM2 cannot be installed: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return folder / "node_modules/.bin/pm2"


class Pm2:
    """A PM2 of this test alone and the one application in it; a context manager."""

    def __init__(self, program: Path, folder: Path, database_url: str) -> None:
        self.database_url = database_url
        self._program = program
        self._folder = folder
        self._log = folder / "enrichd.log"
        # Sockets are made in it, so its path must be short.
        self._home = Path(tempfile.mkdtemp(prefix="pm2-"))
        self._seen: set[int] = set()

    def __enter__(self) -> Pm2:
        return self

    def __exit__(self, *_: object) -> None:
        self.processes()
        self._pm2("kill")
        for pid in self.processes():
            e2e.kill(pid, signal.SIGKILL)
        shutil.rmtree(self._home, ignore_errors=True)

    def start(self, *, env: dict[str, str] | None = None, **options: object) -> None:
        """Start the application as the shipped file has it, but for `options` and `env`."""
        self._pm2("start", self.config(env or {}, options))

    def config(self, env: dict[str, str], options: dict[str, object]) -> Path:
        """Write the shipped configuration, fit for a checkout and a test, and return its path."""
        entry = self._folder / "enrichd"
        entry.write_text(ENTRY.format(python=sys.executable))
        entry.chmod(0o755)
        given = {
            "script": str(entry),
            "cwd": str(self._folder),
            "error_file": str(self._log),
            "merge_logs": True,  # or PM2 puts a number into the name
            "env": {
                **QUICK,
                "WORKER_COUNT": "2",
                "RUNTIME_DIRECTORY": str(self._folder),
                "DATABASE_URL": self.database_url,
                "PYTHONPATH": str(ROOT),
                **env,
            },
            **options,
        }
        path = self._folder / "ecosystem.config.js"
        path.write_text(WRAPPER.format(shipped=json.dumps(str(CONFIG)), given=json.dumps(given)))
        return path

    def command(self, *words: str) -> None:
        """Run `pm2 WORDS… enrichd`."""
        self._pm2(*words, "enrichd")

    def state(self) -> dict[str, object]:
        """Return PM2's own view: `status`, `restart_time`, `pid`."""
        listed = self._pm2("jlist")
        (app,) = json.loads(listed[listed.index("[{") :])
        return {"pid": app["pid"], **{k: app["pm2_env"][k] for k in ("status", "restart_time")}}

    def events(self, name: str) -> list[dict[str, object]]:
        """Return the log's events of one name, oldest first."""
        lines = self.log_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in events if event["event"] == name]

    def log_text(self) -> str:
        """Return what enrichd wrote so far."""
        return self._log.read_text() if self._log.exists() else ""

    def wait_for_event(self, name: str, within_s: float = 15.0, *, count: int = 1) -> None:
        wait_for(lambda: len(self.events(name)) >= count, within_s, what=self._tail)

    def processes(self) -> list[int]:
        """Return every living process that PM2 started, or that those did."""
        god = self._home / "pm2.pid"
        if god.exists():
            self._seen.add(int(god.read_text()))
        parents = parent_of_each()
        for pid, parent in sorted(parents.items()):
            if parent in self._seen:
                self._seen.add(pid)
        return [pid for pid in self._seen if pid in parents]

    def enqueue(self, count: int, seconds: float) -> list[str]:
        return e2e.enqueue(self.database_url, "nap", count, seconds=seconds)

    def statuses(self) -> dict[str, int]:
        """Return how many jobs are in each state."""
        statement = "select status, count(*) from enrichment_jobs group by status"
        return dict(e2e.query(self.database_url, statement))

    def wait_until_processing(self, count: int) -> None:
        wait_for(lambda: self.statuses().get("processing", 0) >= count, what=self._tail)

    def wait_until_completed(self, count: int) -> None:
        wait_for(lambda: self.statuses() == {"completed": count}, 25.0, what=self._tail)

    def assert_nothing_ran_twice(self, jobs: list[str]) -> None:
        """Assert that no attempt was ever lost: a job completed at its first counted attempt."""
        e2e.assert_sound(self.database_url, jobs)
        crashed = "select count(*) from enrichment_job_attempts where outcome = 'crashed'"
        assert e2e.query(self.database_url, crashed) == [(0,)]
        attempts = "select distinct attempts from enrichment_jobs where status = 'completed'"
        assert e2e.query(self.database_url, attempts) in ([], [(1,)])
        waiting = "select distinct attempts from enrichment_jobs where status <> 'completed'"
        assert e2e.query(self.database_url, waiting) in ([], [(0,)])

    def begin(self, *words: object) -> subprocess.Popen[str]:
        """Start `pm2 WORDS…` and do not wait for it."""
        return subprocess.Popen(
            [self._program, *words],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self._folder),
                "PM2_HOME": str(self._home),
                "PM2_DISABLE_VERSION_CHECK": "true",
            },
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _pm2(self, *words: object) -> str:
        """Run `pm2 WORDS…` and return what it printed."""
        with self.begin(*words) as running:
            out, errors = running.communicate(timeout=120)
        assert running.returncode == 0, (words, out, errors)
        return out

    def _tail(self) -> object:
        return self.statuses(), self.log_text()[-6000:]


@pytest.fixture
def pm2(pm2_program, tmp_path, database_url):
    """Give a PM2 in which nothing runs yet."""
    with Pm2(pm2_program, tmp_path, database_url) as running:
        yield running


def test_pm2_is_told_when_the_workers_are_ready(pm2):
    longest_s = 60.0
    began = time.monotonic()
    pm2.start(listen_timeout=longest_s * 1000)

    # PM2 came back because it was told so, not because the time was up.
    assert time.monotonic() - began < longest_s / 2
    assert len(pm2.events("supervisor_ready")) == 1
    assert pm2.state()["status"] == "online"


def test_it_is_launching_until_it_says_that_it_is_ready(pm2):
    # Without a database that takes 10 s, longer than PM2 waits by itself.
    nowhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    with pm2.begin("start", pm2.config(nowhere, {})) as start:
        pm2.wait_for_event("supervisor_started")
        assert pm2.state()["status"] == "launching"
        assert pm2.events("supervisor_ready") == []
        start.communicate(timeout=30)

    (ready,) = pm2.events("supervisor_ready")
    assert "cannot be reached" in ready["status"]
    assert pm2.state()["status"] == "online"


@pytest.mark.parametrize("treekill", [False, True], ids=["as shipped", "signal to all"])
def test_stop_under_load_loses_nothing_and_counts_no_attempt(pm2, treekill):
    # With treekill PM2 signals the children before us, and we have to guess that it is a stop.
    pm2.start(treekill=treekill)
    jobs = pm2.enqueue(24, seconds=0.5)
    pm2.wait_until_processing(8)

    pm2.command("stop")

    assert pm2.state()["status"] == "stopped"
    assert pm2.statuses().keys() <= {"completed", "pending"}
    assert pm2.statuses()["pending"] > 0
    pm2.assert_nothing_ran_twice(jobs)
    assert pm2.events("child_died") == []
    assert len(pm2.events("child_started")) == 4, "a child was started while stopping"
    assert pm2.events("supervisor_stopped")[0]["exit_code"] == 0

    pm2.command("restart")
    pm2.wait_until_completed(24)
    pm2.assert_nothing_ran_twice(jobs)


@pytest.mark.parametrize("treekill", [False, True], ids=["as shipped", "signal to all"])
def test_stop_lets_running_jobs_finish(pm2, treekill):
    pm2.start(treekill=treekill)
    jobs = pm2.enqueue(8, seconds=1.5)
    pm2.wait_until_processing(8)

    pm2.command("stop")

    assert pm2.statuses() == {"completed": 8}
    assert [e2e.outcomes(pm2.database_url, job) for job in jobs] == [["completed"]] * 8


def test_reload_under_load_runs_every_job_once(pm2):
    pm2.start()
    before = pm2.state()
    jobs = pm2.enqueue(60, seconds=0.2)
    pm2.wait_until_processing(8)

    pm2.command("reload")

    after = pm2.state()
    assert (after["status"], after["pid"] != before["pid"]) == ("online", True)
    pm2.wait_until_completed(60)
    pm2.assert_nothing_ran_twice(jobs)


def test_sighup_replaces_the_workers_and_keeps_the_supervisor(pm2):
    pm2.start()
    before = pm2.state()
    jobs = pm2.enqueue(40, seconds=0.2)
    pm2.wait_until_processing(8)

    pm2.command("sendSignal", "SIGHUP")
    pm2.wait_for_event("reload_done")

    assert pm2.state() == before
    pm2.wait_until_completed(40)
    pm2.assert_nothing_ran_twice(jobs)


def test_a_killed_supervisor_is_started_again_and_its_jobs_are_done(pm2):
    pm2.start()
    first = pm2.state()["pid"]
    jobs = pm2.enqueue(40, seconds=0.3)
    pm2.wait_until_processing(8)
    pm2.processes()

    os.kill(first, signal.SIGKILL)
    pm2.wait_for_event("supervisor_ready", count=2)
    pm2.wait_until_completed(40)

    now = pm2.state()
    assert (now["status"], now["restart_time"], now["pid"] != first) == ("online", 1, True)
    e2e.assert_sound(pm2.database_url, jobs)
    # Those whose parent died have left too.
    wait_for(lambda: len(pm2.processes()) == 1 + 1 + 4, what=pm2.processes)


def test_a_killed_supervisor_is_started_again_on_its_fixed_port(pm2):
    with_port = {"HEALTH_CHECK_PORT": str(free_port())}
    pm2.start(env=with_port)
    pm2.processes()

    os.kill(pm2.state()["pid"], signal.SIGKILL)
    pm2.wait_for_event("supervisor_ready", count=2)
    pm2.wait_for_event("gateway_listening", count=2)

    assert pm2.state()["status"] == "online"


def test_a_wrong_configuration_is_not_tried_again(pm2):
    pm2.start(env={"WORKER_COUNT": "many"})

    # PM2 lists it as `waiting restart`, because it has a backoff, but does not wait for anything.
    wait_for(lambda: pm2.state()["pid"] == 0, what=pm2.state)
    for _ in range(3):  # each takes longer than the first backoff
        assert (pm2.state()["pid"], pm2.state()["restart_time"]) == (0, 0)
    assert "WORKER_COUNT" in pm2.log_text()


def test_the_shipped_file_waits_longer_than_the_supervisor_takes_to_stop():
    app = json.loads(
        subprocess.run(
            ["node", "-p", f"JSON.stringify(require({json.dumps(str(CONFIG))}).apps[0])"],
            check=True,
            capture_output=True,
            timeout=30,
        ).stdout
    )

    default_grace_s = 30
    assert app["kill_timeout"] > (default_grace_s + KILL_EXTRA_S + 10) * 1000
    assert app["stop_exit_codes"] == [CONFIGURATION_ERROR]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
