"""The daemon's life without faults: start, work, signals, readiness, what it leaves behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.e2e.daemon import title_of


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
        assert sorted(running.children().values()) == ["gateway", "housekeeper", "worker", "worker"]


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
