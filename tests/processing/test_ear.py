"""A worker's own ear: who is on duty, and that a hint needs nobody else to bring a job."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from enrichd.processing.duty import Duty
from tests.processing.conftest import enqueue
from tests.support.job_types import SEEN

pytestmark = pytest.mark.queue

COLLEAGUE = """
import os, sys
from enrichd.processing.duty import Duty
duty = Duty(os.fdopen(int(sys.argv[1]), "r+b"))
print(duty.take(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def colleague(duty: Duty) -> Iterator[Callable[[], tuple[subprocess.Popen[str], bool]]]:
    """Give `colleague()`: another process, which lives on, and whether it could take the duty."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], bool]:
        process = subprocess.Popen(
            [sys.executable, "-c", COLLEAGUE, str(duty.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[duty.fileno()],
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline() == "True\n"

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def duty():
    made = Duty.new()
    yield made
    made.close()


def test_one_process_is_on_duty_until_it_dies(duty, colleague):
    first, took = colleague()
    assert took
    assert duty.is_taken()
    assert not duty.take()

    first.kill()
    first.wait()

    assert not duty.is_taken()
    assert duty.take()
    assert colleague()[1] is False
    duty.give_up()
    assert colleague()[1] is True


async def test_a_hint_alone_brings_a_job_to_the_worker_on_duty(
    duty, make, queue, running, eventually
):
    running(make(poll_interval_s=60.0, duty=duty))
    await eventually(lambda: listeners(queue))

    for count in (1, 2, 3):
        await enqueue(queue, "empty")
        await eventually(lambda count=count: ended(count), within_s=3.0)


async def test_a_job_that_comes_right_after_a_hint_needs_none_of_its_own(
    duty, make, queue, running, eventually
):
    running(make(poll_interval_s=60.0, duty=duty))
    await eventually(lambda: listeners(queue))

    for count in range(2, 21, 2):
        await enqueue(queue, "empty")
        await enqueue(queue, "empty")
        await eventually(lambda count=count: ended(count), within_s=3.0)


async def test_a_hint_that_comes_during_a_run_brings_its_job_too(
    duty, make, queue, running, eventually
):
    running(make(poll_interval_s=60.0, duty=duty))
    await eventually(lambda: listeners(queue))
    await enqueue(queue, "gate")
    await eventually(lambda: begun(1))

    await enqueue(queue, "empty")

    await eventually(lambda: ended(1), within_s=3.0)


async def test_a_full_worker_leaves_the_duty_to_others(
    duty, make, queue, running, eventually, colleague
):
    running(make(concurrency=1, poll_interval_s=60.0, duty=duty))
    await eventually(lambda: listeners(queue))
    assert colleague()[1] is False

    await enqueue(queue, "gate")
    await eventually(lambda: begun(1))

    async def is_free():
        return colleague()[1]

    await eventually(is_free)


async def test_off_duty_a_worker_hears_nothing_and_is_woken(
    duty, make, queue, running, eventually, colleague
):
    assert colleague()[1] is True
    processor = make(poll_interval_s=60.0, duty=duty)
    running(processor)
    await eventually(lambda: looked(processor))
    assert not await listeners(queue)
    await enqueue(queue, "empty")

    processor.wake()

    await eventually(lambda: ended(1), within_s=3.0)


async def test_who_hears_hints_polls_less_often_and_who_is_deaf_as_often_as_asked(
    duty, make, queue, running, eventually
):
    processor = make(poll_interval_s=20.0, duty=duty)
    running(processor)
    await eventually(lambda: listeners(queue))
    assert processor._waiting.next_look_s == 20.0

    await enqueue(queue, "empty")
    await eventually(lambda: ended(1), within_s=3.0)
    assert processor._waiting.next_look_s == 60.0

    processor._waiting._ear._heard_at -= 600.0
    assert processor._waiting.next_look_s == 20.0


async def test_a_cut_connection_is_listened_on_again(duty, make, queue, running, eventually, conn):
    running(make(poll_interval_s=60.0, duty=duty))
    await eventually(lambda: listeners(queue))

    await conn.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where application_name = 'enrichd hot' and datname = current_database()"
    )
    await eventually(lambda: listeners(queue))
    await enqueue(queue, "empty")

    await eventually(lambda: ended(1), within_s=3.0)


async def listeners(queue) -> bool:
    """Say whether a worker's claiming connection last said LISTEN."""
    async with queue.database.connection() as conn:
        cursor = await conn.execute(
            "select count(*) from pg_stat_activity where application_name = 'enrichd hot'"
            " and datname = current_database() and state = 'idle' and query = 'listen enrichd'"
        )
        row = await cursor.fetchone()
    return row is not None and row[0] > 0


async def looked(processor) -> bool:
    return processor._plan.is_known_empty


async def begun(count: int) -> bool:
    return len(SEEN.started) >= count


async def ended(count: int) -> bool:
    return len(SEEN.ended) >= count
