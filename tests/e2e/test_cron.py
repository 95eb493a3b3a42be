"""The crontab's own command line, run by two crons at once and by one that has no database."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.daemon import PLUGINS, ROOT, assert_sound, enqueue, outcomes, query

CRONTAB = ROOT / "ecosystem/cron/crontab.example"
INSTALLED_IN = "/opt/enrichd/bin"
JOBS = 300


@pytest.fixture
def cron(tmp_path):
    """Give `cron(database_url)`: what cron starts each minute, with as little environment."""
    started = []

    def start(database_url):
        secret = tmp_path / "database_url"
        secret.write_text(database_url + "\n")
        variables = dict(re.findall(r"^([A-Z_]+)=(.*)$", CRONTAB.read_text(), re.MULTILINE))
        command = command_line().replace(INSTALLED_IN, str(Path(sys.executable).parent))
        process = subprocess.Popen(
            [variables["SHELL"], "-c", command],
            cwd=tmp_path,
            env={
                **variables,
                "HOME": str(tmp_path),
                "PATH": "/usr/bin:/bin",
                "DATABASE_URL_FILE": str(secret),
                "ENRICHD_PLUGINS": PLUGINS,
                "PYTHONPATH": str(ROOT),
                "MAX_CONCURRENT_JOBS": "5",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_two_runs_at_once_share_the_jobs_and_say_nothing(cron, database_url):
    jobs = enqueue(database_url, "nap", JOBS, seconds=0.02)

    runs = [cron(database_url), cron(database_url)]
    mail = [run.communicate(timeout=40)[0] for run in runs]

    assert ([run.returncode for run in runs], mail) == ([0, 0], ["", ""])
    assert_sound(database_url, jobs)
    assert [outcomes(database_url, job) for job in jobs[:: JOBS // 10]] == [["completed"]] * 10
    ran = query(
        database_url,
        "select worker_id, count(*) from enrichment_job_attempts group by worker_id",
    )
    # Both took part, and there was one attempt for each job in all.
    assert (len(ran), sum(count for _, count in ran)) == (2, JOBS)


def test_a_run_with_nothing_to_do_is_not_worth_a_mail(cron, database_url):
    run = cron(database_url)

    assert (run.communicate(timeout=30)[0], run.returncode) == ("", 0)


def test_a_run_without_a_database_says_so_and_exits_with_5(cron):
    run = cron("postgresql://nobody@127.0.0.1:1/nothing")
    mail = run.communicate(timeout=60)[0]

    assert run.returncode == 5
    assert "127.0.0.1" in mail


def test_the_timer_runs_what_the_crontab_runs():
    unit = (ROOT / "ecosystem/cron/enrichd-process.service").read_text()

    assert f"ExecStart={command_line().removesuffix(' >/dev/null')}\n" in unit


def command_line() -> str:
    """Return the command of the crontab's one line."""
    (line,) = re.findall(r"^[*] [*] [*] [*] [*] (.*)$", CRONTAB.read_text(), re.MULTILINE)
    return line
