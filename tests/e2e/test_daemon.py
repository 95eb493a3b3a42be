"""The daemon's life without faults: start, work, signals, readiness, what it leaves behind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from tests.e2e.daemon import title_of, wait_for


def test_jobs_are_done_and_nothing_is_left_behind(daemon):
    with daemon(WORKER_COUNT="2") as running:
        accepted = running.enqueue("nap", 50, seconds=0.01)
        assert running.wait_until_done() == {"completed": 50}
        assert running.stop() == 0
        running.assert_sound(accepted)
        assert running.query("select count(*) from enrichment_workers") == [(0,)]


def test_every_process_says_what_it_is(daemon):
    with daemon(WORKER_COUNT="2") as running:
        assert title_of(running.process.pid) == "enrichd: supervisor"
        titles = ["gateway", "housekeeper", "worker", "worker"]
        wait_for(lambda: sorted(running.children().values()) == titles, what=running.children)


def test_the_supervisor_has_one_thread_and_no_connection(daemon):
    with daemon() as running:
        place = Path(f"/proc/{running.process.pid}")
        assert len(list((place / "task").iterdir())) == 1
        sockets = [fd for fd in (place / "fd").iterdir() if "socket:" in os.readlink(fd)]
        of_signals = 2
        assert len(sockets) == of_signals + len(running.children())


def test_sigint_to_every_process_at_once_lets_short_jobs_finish(daemon):
    # PM2 and a terminal's Ctrl-C signal the whole tree, workers first.
    with daemon(WORKER_COUNT="2") as running:
        accepted = running.enqueue("nap", 4, seconds=1.0)
        running.wait_until_started(4)
        for pid in sorted(running.processes(), reverse=True):
            os.kill(pid, signal.SIGINT)
        assert running.ended() == 0
        assert running.statuses() == {"completed": 4}
        assert [running.outcomes(job_id) for job_id in accepted] == [["completed"]] * 4
        assert running.events("child_died") == []


def test_the_next_daemon_takes_the_metrics_folder_of_the_last(daemon, tmp_path):
    with daemon() as first, daemon() as second:
        folders = {path.name for path in tmp_path.glob("metrics*")}
        assert folders == {"metrics", "metrics-2"}, "one each"
        first.process.kill()
        second.process.kill()
        wait_for(lambda: not first.processes() and not second.processes())
    with daemon():
        assert {path.name for path in tmp_path.glob("metrics*")} == folders


@pytest.fixture
def data_folder():
    """Give a folder that the embedded server's account can reach."""
    folder = Path(tempfile.mkdtemp(prefix="enrichd-data-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_without_a_database_the_daemon_brings_one_and_takes_it_away(daemon, data_folder, number):
    with daemon(url=None, ENRICHD_DATA_DIR=str(data_folder)) as running:
        (pid_file,) = data_folder.glob("**/postmaster.pid")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for_event("reload_done")
        running.process.send_signal(number)
        assert running.ended() == (0 if number is signal.SIGTERM else -signal.SIGKILL)
        wait_for(lambda: not pid_file.exists(), 15.0, what="the server's end")
