"""A process killed, or cut off, before and after every commit of a job's life loses nothing.

Each test strikes one commit four ways, every time in a real process on a database of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from enrichd.errors import InvalidSetting, Unavailable
from enrichd.store import faults
from enrichd.store.database import Database
from tests.e2e import fault_life
from tests.e2e.daemon import ROOT, assert_sound, query
from tests.e2e.fault_life import END, END_AFTER_CRASH, ids_from
from tests.support import postgres

LIFE_S = 60.0


@dataclass(frozen=True, slots=True)
class Lived:
    """How a life ended."""

    exit_code: int
    text: str

    @property
    def was_struck(self) -> bool:
        return "fault_struck" in self.text


# Forked by a process that has imported everything: 120 lives begin with the import else.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([fault_life.__name__])


def live(dsn: str, first: UUID, fault: str = "") -> Lived:
    """Live a life in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        process = PROCESSES.Process(target=fault_life.main, args=(dsn, first, fault, log))
        process.start()
        process.join(LIFE_S)
        exit_code = process.exitcode
        process.kill()
        process.join()
        process.close()
        text = log.read_text()
        assert exit_code is not None, f"{fault} after {LIFE_S:g} s:\n{text}"
        return Lived(exit_code, text)


@pytest.fixture
def fresh(clones: postgres.Clones) -> Iterator[Callable[[], str]]:
    """Give `fresh()`: the address of another fresh database."""
    with ExitStack() as stack:

        def taken() -> str:
            dsn = clones.take()
            stack.callback(clones.drop, dsn)
            return dsn

        yield taken


def statuses(dsn: str, first: UUID) -> dict[str, str]:
    """Return each named job's state."""
    found = dict(query(dsn, "select id, status from enrichment_jobs"))
    return {name: found.pop(job_id, "lost") for name, job_id in ids_from(first).items()} | found


def assert_ended(dsn: str, first: UUID, fault: str = "") -> None:
    """Assert what holds at the end of every life."""
    assert_sound(dsn, [str(job_id) for job_id in ids_from(first).values()])
    batch = ids_from(first)["batch"]
    items = query(dsn, "select item_key from enrichment_job_items where job_id = %s", batch)
    assert sorted(items) == [("a",), ("b",), ("c",)]
    # A retry by hand starts the count again, the log keeps them all.
    unlogged = query(
        dsn,
        "select id, crashes from enrichment_jobs as job"
        " where crashes > (select count(*) from enrichment_attempt_log as log"
        "                   where log.job_id = job.id and outcome = 'crashed')",
    )
    assert not unlogged, f"crashes without an attempt: {unlogged}"
    assert query(dsn, "select outcome from enrichment_provider_cache") == [("found",)]
    # Only a life that ended between paying and its record leaves what may have been paid twice.
    may_be_lost = fault in ("after_reserve:kill", "before_settle:kill") or "_permits:kill" in fault
    promised = query(dsn, "select id from enrichment_credit_reservations")
    assert len(promised) <= may_be_lost, f"credits set aside for nobody: {promised}"
    if fault != "before_leave:drop":  # That row goes stale; nothing hangs on it.
        left = query(dsn, "select id from enrichment_workers where state <> 'dead'")
        assert not left, f"workers' rows left behind: {left}"


def strike(dsn: str, fault: str) -> None:
    """Live with a fault, live again if it was deadly, and check the end."""
    first = uuid7()
    lived = live(dsn, first, fault)
    assert lived.was_struck, f"{fault} was never reached:\n{lived.text}"
    if fault.endswith(":drop"):
        assert lived.exit_code == 0, f"{fault}:\n{lived.text}"
        assert statuses(dsn, first) == END, fault
    else:
        assert lived.exit_code == -signal.SIGKILL, f"{fault}:\n{lived.text}"
        again = live(dsn, first)
        assert again.exit_code == 0, f"after {fault}:\n{lived.text}\n--- again\n{again.text}"
        ends = statuses(dsn, first)
        wrong = {
            name: status
            for name, status in ends.items()
            if status not in {END.get(name), *END_AFTER_CRASH.get(name, ())}
        }
        assert not wrong, fault
    assert_ended(dsn, first, fault)


@pytest.mark.slow
@pytest.mark.parametrize("commit", faults.COMMITS)
def test_a_fault_beside_a_commit_loses_nothing(fresh, commit):
    wanted = [
        f"{side}_{commit}:{action}" for side in ("before", "after") for action in ("kill", "drop")
    ]
    with ThreadPoolExecutor(len(wanted)) as threads:
        for done in [threads.submit(strike, fresh(), fault) for fault in wanted]:
            done.result()


def test_a_life_without_a_fault_ends_as_a_life_with_one_must(fresh):
    dsn, first = fresh(), uuid7()
    lived = live(dsn, first)
    assert lived.exit_code == 0, lived.text
    assert not lived.was_struck
    assert statuses(dsn, first) == END
    assert_ended(dsn, first)


def test_every_commit_that_is_listed_has_its_points_in_the_code():
    source = "".join(path.read_text() for path in Path(ROOT, "enrichd").rglob("*.py"))
    around = set(re.findall(r'@around\("(\w+)"\)', source))
    single = set(re.findall(r'"((?:before|after)_\w+)"', source)) & set(faults.POINTS)
    placed = single | {f"{side}_{name}" for name in around for side in ("before", "after")}
    assert placed == set(faults.POINTS)
    assert around <= set(faults.COMMITS)


@pytest.mark.parametrize(
    "text", ["after_claim", "after_lunch:kill", "after_claim:love", "x:kill@y"]
)
def test_a_fault_that_does_not_exist_is_refused(text):
    with pytest.raises(InvalidSetting, match="ENRICHD_FAULT"):
        faults.parse(text)


def test_the_environment_sets_the_fault_of_a_process():
    done = subprocess.run(
        [sys.executable, "-c", "from enrichd.store import faults; faults.point('before_claim')"],
        env={**os.environ, "ENRICHD_FAULT": "before_claim:exit", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIFE_S,
        check=False,
    )
    assert done.returncode == 1
    assert "fault_struck" in done.stdout + done.stderr


async def test_a_fault_lets_passes_through_and_strikes_once(database: Database):
    faults.arm("before_claim:drop@2")
    try:
        async with database.connection() as conn:
            faults.point("before_claim", conn)
            with pytest.raises(Unavailable):
                faults.point("before_claim", conn)
            assert conn.closed
        async with database.connection() as conn:
            faults.point("before_claim", conn)
            assert not conn.closed
    finally:
        faults.arm(None)
