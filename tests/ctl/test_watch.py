import contextlib
import os
import pty
import select
import signal
import socket
import struct
import termios
import time
from datetime import UTC, datetime
from fcntl import ioctl
from urllib.parse import urlsplit
from uuid import UUID

import orjson
import psycopg
import pytest
from psycopg import sql
from uuid_utils.compat import uuid7

from enrichd.ctl.commands.watch import draw
from enrichd.ctl.deadline import within
from enrichd.ctl.live import ERRORS_KEPT, Sight
from enrichd.ctl.panels import Panel, beside, shares, stacked
from enrichd.errors import Unavailable
from enrichd.store.database import Database
from enrichd.store.overview import AttemptError, Ended, LaneLoad, Overview, Totals
from enrichd.store.workers import Worker
from tests.ctl.conftest import ESCAPES

NOW = datetime(2030, 1, 31, 8, tzinfo=UTC)
ENTER_SCREEN, LEAVE_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"


def an_error(place=0, **fields):
    values = {
        "at": NOW,
        "job_id": UUID(int=place),
        "attempt": 1,
        "workspace_id": "default",
        "provider_id": "hunter",
        "type": "email_validation",
        "outcome": "retry",
        "kind": "provider_down",
        "message": "503",
    }
    return AttemptError(**(values | fields))


def an_overview(*, lanes=1, workers=1, errors=(), **totals):
    values = {
        "now": NOW,
        "database": "leads",
        "scheduled": 0,
        "overdue": 0,
        "next_due_s": None,
        "waiting": 0,
        "retried_1m": 0,
        "crashed_1m": 0,
    }
    return Overview(
        Totals(**(values | totals)),
        [LaneLoad(f"lane-{n}", 1000 - n, 5.0, "closed", None, None, None) for n in range(lanes)],
        [],
        [Ended(None, None, 60.0, 120, 6, 0, 20, 1, 0.5, 2.0)],
        list(errors),
        [
            Worker(uuid7(), f"host-{n}", 7, "0.1.0", "running", 10, 4, 9, 1, NOW, NOW, 1.0)
            for n in range(workers)
        ],
    )


def a_sight(**fields):
    sight = Sight(20.0)
    sight.take(an_overview(**fields))
    return sight


# What is on the screen


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 40), (140, 12), (40, 10), (250, 60)])
@pytest.mark.parametrize("many", [1, 60])
def test_the_screen_fits_the_terminal(width, height, many):
    sight = a_sight(
        lanes=many,
        workers=many,
        errors=[an_error(place, message=f"{place} went wrong " * 20) for place in range(many)],
        waiting=5,
        scheduled=123_456,
        overdue=1000,
    )

    lines = draw(sight, width, height)

    assert len(lines) <= height
    assert max(line.cell_len for line in lines) <= width
    assert all("\n" not in line.plain for line in lines)


def test_the_head_says_states_pace_and_workers():
    head = [line.plain for line in draw(a_sight(scheduled=3, next_due_s=90.0), 120, 30)[:4]]

    assert head[0].startswith("enrichctl watch   leads   all workspaces")
    assert head[1] == "pending 1,000 (oldest 5.0s)   processing 0   scheduled 3 (next in 2m)"
    assert head[2].startswith("2.0 done/s   6 failed/min   p50 500ms p95 2.0s")
    assert head[3].endswith("4 of 10 places taken")


def test_what_is_cut_is_said():
    text = "\n".join(line.plain for line in draw(a_sight(lanes=60), 80, 24))

    assert "of 60)" in text


def test_equal_errors_are_one_line_with_their_number():
    errors = [an_error(place) for place in range(7)] + [an_error(9, message="404")]

    text = "\n".join(line.plain for line in draw(a_sight(errors=errors), 80, 24))

    assert "7×" in text
    assert "1×" in text


def test_hostile_errors_are_shown_as_text():
    shown = draw(a_sight(errors=[an_error(message=ESCAPES, provider_id=ESCAPES)]), 140, 24)

    assert all(line.plain.isprintable() for line in shown)


def test_errors_stay_in_sight_when_a_busy_queue_pushes_them_out():
    sight = a_sight(errors=[an_error(1)])
    sight.take(an_overview())

    assert [error.job_id for error in sight.errors.values()] == [UUID(int=1)]
    for place in range(ERRORS_KEPT + 100):
        sight.take(an_overview(errors=[an_error(place)]))
    assert len(sight.errors) == ERRORS_KEPT


def test_old_figures_are_told_with_the_reason():
    sight = a_sight()
    sight.trouble = Unavailable("PostgreSQL cannot be reached: connection refused")

    text = "\n".join(line.plain for line in draw(sight, 140, 24))

    assert "PostgreSQL cannot be reached; retrying; figures are 0s old (connection refused)" in text


def test_in_a_narrow_terminal_the_reason_goes_on_below():
    sight = a_sight()
    sight.trouble = Unavailable(
        "PostgreSQL cannot be reached: connection failed: connection to server at"
        ' "database-1.internal.example.com", port 5432 failed: Connection refused'
    )

    drawn = draw(sight, 80, 24)

    text = " ".join(line.plain for line in drawn)
    assert "port 5432 failed: Connection refused)" in text
    assert max(line.cell_len for line in drawn) <= 80
    assert len(drawn) <= 24


def test_nothing_known_yet_is_a_screen_too():
    assert [line.plain for line in draw(Sight(20.0), 80, 24)] == [
        "enrichctl watch",
        "connecting to PostgreSQL…",
    ]


# The layout


def test_lines_are_divided_by_need():
    assert shares([5, 1, 9], 9) == [4, 1, 4]
    assert shares([1, 1], 9) == [1, 1]
    assert shares([3, 3], 0) == [0, 0]
    assert shares([3, 3], None) == [3, 3]


def test_names_are_cut_and_numbers_are_not():
    panel = Panel(
        "Lanes", ["Lane", "Ready"], [["a-very-long-provider-name", "1,234,567"]], [1], cuts=[0]
    )

    (_, row) = stacked([panel], 30, 10)

    assert row.plain == "a-very-long-provid…  1,234,567"


def test_panels_stand_side_by_side():
    left = Panel("One", ["One"], [["a"], ["b"]])
    right = Panel("Two", ["Two"], [["c"]])

    assert [line.plain.rstrip() for line in beside(left, right, 20, 9)] == [
        "One              Two",
        "a                c",
        "b",
    ]


# In a pipe


def test_a_pipe_gets_one_look(enrichctl, a_job):
    a_job("pending")
    a_job("failed", error={"type": "odd", "message": "broken"})

    shown = enrichctl("watch")

    assert shown.exit_code == 0
    assert shown.stdout.startswith("enrichctl watch")
    assert "pending 1" in shown.stdout
    assert "odd: broken" in shown.stdout


def test_each_look_is_a_line_of_json(enrichctl, a_job):
    a_job("pending")
    a_job("dead_letter", error={"type": "odd", "message": "broken"}, workspace_id="theirs")

    first, second = enrichctl("watch", "--json", "--count", "2", "--interval", "100ms").lines

    assert first["states"] == {"pending": 1, "scheduled": 0, "processing": 0, "waiting": 0}
    assert first["errors"][0]["error"] == {"type": "odd", "message": "broken"}
    assert first["errors"][0]["workspaceId"] == "theirs"
    assert first["lanes"][0]["providerId"] == "-"
    assert first["pace"]["failedPerMinute"] == 1
    assert first["at"] < second["at"]


def test_one_look_without_a_database_is_unavailable(offline):
    assert offline("watch", "--once").exit_code == 5


def test_too_short_an_interval_is_refused(offline):
    assert offline("watch", "--interval", "1ms").exit_code == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stream_of_json_ends_in_order(process, number):
    with process("watch", "--json", "--interval", "100ms") as running:
        assert orjson.loads(running.stdout.readline())["states"]["pending"] == 0
        running.send_signal(number)
        stdout, stderr = running.communicate(timeout=10)

    assert (running.returncode, stderr) == (0, b"")
    assert all(orjson.loads(line) for line in stdout.splitlines())


# On a terminal


class Terminal:
    """The far side of a pseudo-terminal of 80 by 24."""

    def __init__(self):
        self.far, self.near = pty.openpty()
        self.resize(80, 24)
        self.seen = b""

    def resize(self, width, height):
        ioctl(self.near, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def wait_for(self, text, within_s=20.0):
        """Read until a text is seen; what came up to it is forgotten."""
        deadline = time.monotonic() + within_s
        while text not in self.seen:
            ready, _, _ = select.select([self.far], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{text!r} was not seen in {self.seen[-500:]!r}"
            self.seen += os.read(self.far, 65536)
        self.seen = self.seen.partition(text)[2]

    def close(self):
        os.close(self.far)
        os.close(self.near)


@pytest.fixture
def terminal():
    made = Terminal()
    yield made
    made.close()


@pytest.fixture
def on_terminal(process, terminal, monkeypatch):
    """Give `with on_terminal(*words)`: enrichctl on the terminal, in a session of its own."""

    def adopt():
        os.setsid()
        ioctl(0, termios.TIOCSCTTY, 0)

    @contextlib.contextmanager
    def start(*words):
        ends = dict.fromkeys(("stdin", "stdout", "stderr"), terminal.near)
        running = process(*words, **ends, preexec_fn=adopt)
        try:
            yield running
        finally:
            running.kill()
            running.wait()

    monkeypatch.setenv("TERM", "xterm")
    return start


@pytest.mark.parametrize("key", [b"q", b"\x03", b"\x1b"])
def test_a_key_ends_it_and_the_terminal_is_as_before(on_terminal, terminal, a_job, key):
    a_job("pending")
    before = termios.tcgetattr(terminal.near)

    with on_terminal("watch") as running:
        terminal.wait_for(ENTER_SCREEN)
        terminal.wait_for(b"pending")
        os.write(terminal.far, key)
        terminal.wait_for(LEAVE_SCREEN)
        assert running.wait(10) == 0

    assert termios.tcgetattr(terminal.near) == before


def test_the_screen_follows_the_queue_and_the_terminals_size(on_terminal, terminal, a_job):
    with on_terminal("watch", "--interval", "100ms") as running:
        terminal.wait_for(b"no job was ever enqueued")
        a_job("pending", provider_id="hunter")
        terminal.wait_for(b"hunter")
        assert b"Outcome" not in terminal.seen
        a_job("failed")
        terminal.wait_for(b"(no message)")
        terminal.resize(140, 30)
        os.kill(running.pid, signal.SIGWINCH)
        terminal.wait_for(b"Outcome")
        os.write(terminal.far, b"\x1b[A")  # an arrow does not end it
        terminal.wait_for(b"Outcome")
        os.write(terminal.far, b"q")
        terminal.wait_for(LEAVE_SCREEN)
        assert running.wait(10) == 0


def test_a_count_ends_the_screen(on_terminal, terminal):
    with on_terminal("watch", "--count", "2", "--interval", "100ms") as running:
        terminal.wait_for(LEAVE_SCREEN)
        assert running.wait(10) == 0


# A database that goes away


@contextlib.contextmanager
def shut(admin_dsn, name):
    """Cut everybody off from a database and let nobody in, for the block."""
    with psycopg.connect(admin_dsn, autocommit=True) as admin:
        database = sql.Identifier(name)
        admin.execute(sql.SQL("alter database {} allow_connections false").format(database))
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name]
        )
        yield
        admin.execute(sql.SQL("alter database {} allow_connections true").format(database))


def test_the_screen_goes_on_when_the_database_is_back(
    on_terminal, terminal, database_url, admin_dsn
):
    name = urlsplit(database_url).path[1:]
    with on_terminal("watch", "--interval", "100ms") as running:
        terminal.wait_for(b"enqueued")
        with shut(admin_dsn, name):
            terminal.wait_for(b"PostgreSQL cannot be reached; retrying")
        terminal.seen = b""
        terminal.wait_for(b"no worker is alive")
        os.write(terminal.far, b"q")
        assert running.wait(10) == 0


async def test_a_server_that_says_nothing_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = Database(f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/x")
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"within 0\.2 s"):
            await within(0.2, database, lambda conn: conn.execute("select 1"))
        assert time.monotonic() - began < 2
