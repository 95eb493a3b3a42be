"""A minute of the nemesis, with a new seed each time; its own checks are tested as well."""

from __future__ import annotations

import secrets
from pathlib import Path
from uuid import uuid4

import pytest

from tests.e2e.nemesis import nemesis
from tests.e2e.nemesis_check import Run, overlapping, runs_of

SECONDS = 60.0


@pytest.mark.slow
def test_a_minute_of_random_faults_breaks_no_guarantee(tmp_path):
    seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    assert nemesis(SECONDS, seed, daemons=2, folder=tmp_path) == [], f"seed {seed}, {tmp_path}"


def test_two_runs_at_once_are_found_unless_the_first_process_was_stopped():
    job = uuid4()
    first = Run(job, 1, 10, began=0, ended=100, was_paused=False)
    second = Run(job, 2, 11, began=50, ended=200, was_paused=False)
    assert len(overlapping([second, first])) == 1
    assert overlapping([second, Run(job, 1, 10, began=0, ended=100, was_paused=True)]) == []
    assert overlapping([first, Run(job, 2, 11, began=100, ended=200, was_paused=False)]) == []
    assert overlapping([Run(job, 1, 10, began=0, ended=None, was_paused=False), second]) == []


def test_the_log_of_runs_tells_a_death_and_a_pause(tmp_path: Path):
    job = uuid4()
    log = tmp_path / "runs.log"
    log.write_text(f"10 begin {job} 1 7\n20 begin {job} 2 8\n30 end {job} 2 8\n")
    assert sorted(runs_of(log, [(8, 25, 26)]), key=lambda run: run.began) == [
        Run(job, 1, 7, 10, None, was_paused=False),
        Run(job, 2, 8, 20, 30, was_paused=True),
    ]
