"""A screen that is drawn anew every second, for `watch` and `top`.

Reading and drawing go side by side: while PostgreSQL hangs, the screen still answers to keys and
says how old its figures are. Reading is paced so that it takes a twentieth of the time at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import click
import orjson
from rich.console import Group
from rich.live import Live
from rich.text import Text

from enrichd.ctl import render
from enrichd.ctl.deadline import within
from enrichd.ctl.durations import DURATION
from enrichd.ctl.invocation import Invocation, Session
from enrichd.ctl.terminal import safe
from enrichd.errors import EnrichdError, NotMigrated, Unavailable
from enrichd.store import overview
from enrichd.store.database import Database
from enrichd.store.overview import AttemptError, Overview

if sys.platform != "win32":
    import termios
    import tty

INTERVAL_S = 1.0
INTERVAL_S_MIN = 0.1
READ_TIMEOUT_S = 5.0
REST_PER_READ = 20
UNREACHED = "PostgreSQL cannot be reached"
RATES_KEPT = 300
ERRORS_KEPT = 500
QUIT_KEYS = frozenset({"q", "Q", "\x03", "\x04", "\x1b"})

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look, and how many times; None is without end."""

    interval_s: float
    count: int | None


@dataclass(slots=True)
class Sight:
    """What is known by now: the newest figures, and what earlier ones said."""

    worker_timeout_s: float
    overview: Overview | None = None
    trouble: EnrichdError | None = None
    """Why there are no newer figures."""
    read_at: float = field(default_factory=time.monotonic)
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=RATES_KEPT))
    """Jobs completed a second, one figure for each look."""
    errors: dict[tuple[UUID, int], AttemptError] = field(default_factory=dict)
    """By job and attempt: a busy queue would push them out of sight within seconds."""

    def take(self, found: Overview) -> None:
        """Take new figures in."""
        self.overview, self.trouble, self.read_at = found, None, time.monotonic()
        window_s, completed = 10.0, 0
        for ended in found.ended:
            if ended.provider_id is None and ended.type is None:
                window_s, completed = min(10.0, ended.window_s), ended.completed_10s
        self.rates.append(completed / max(window_s, 0.001))
        self.errors |= {(error.job_id, error.attempt): error for error in found.errors}
        if len(self.errors) > ERRORS_KEPT:
            newest = sorted(self.errors.items(), key=lambda item: item[1].at)[-ERRORS_KEPT:]
            self.errors = dict(newest)

    @property
    def note(self) -> str:
        """Say that the figures are old, and why; empty while they are fresh."""
        age_s = time.monotonic() - self.read_at
        age = f"; figures are {age_s:.0f}s old" if self.overview is not None else ""
        if self.trouble is not None:
            reason = self.trouble.message.removeprefix(UNREACHED).removeprefix(": ")
            return f"{UNREACHED}; retrying{age} ({reason})"
        return ""


@dataclass(frozen=True, slots=True)
class View:
    """One live command: how it looks and what it is as JSON."""

    lines: Callable[[Sight, int, int | None], Sequence[Text]]
    """(sight, width, height) to lines; height None is without end."""
    document: Callable[[Overview], dict[str, Any]]
    press: Callable[[str], None] = lambda key: None
    """Takes a key that does not quit."""


def live_options(function: Function) -> Function:
    """Add `--once`, `--interval` and `--count`; the function gets them by these names."""
    for option in (
        click.option("--count", type=click.IntRange(1), metavar="N", help="Look N times."),
        click.option(
            "--interval",
            type=DURATION,
            default=INTERVAL_S,
            metavar="TIME",
            help="Time between two looks: 2s, 500ms. Default: 1s.",
        ),
        click.option("--once", is_flag=True, help="Print what there is now, and end."),
    ):
        function = option(function)
    return function


def run_live(
    invocation: Invocation, view: View, *, once: bool, interval: float, count: int | None
) -> int:
    """Show a view: on a terminal as a screen, in a pipe as text, with --json as lines.

    A pipe gets one look unless `--count` says more. Returns 0 however it is ended.
    """
    if interval < INTERVAL_S_MIN:
        raise click.UsageError(f"--interval must be at least {INTERVAL_S_MIN * 1000:.0f}ms")
    is_terminal = render.console().is_terminal and os.environ.get("TERM") != "dumb"
    if once or (count is None and not is_terminal and not invocation.is_json):
        count = 1
    pace = Pace(interval, count)
    has_screen = is_terminal and not invocation.is_json and count != 1
    invocation.run(lambda: show(invocation, view, pace, has_screen=has_screen))
    return 0


async def show(invocation: Invocation, view: View, pace: Pace, *, has_screen: bool) -> None:
    """Show a view until its count is reached or somebody ends it."""
    async with invocation.session() as session:
        sight = Sight(session.settings.worker_timeout_s)
        if has_screen:
            await show_screen(session, view, pace, sight)
        elif pace.count == 1:
            sight.take(await within(READ_TIMEOUT_S, session.database, overview.snapshot))
            print_look(view, sight, is_json=invocation.is_json)
        else:
            await until_stopped(print_looks(session, view, pace, sight, invocation.is_json))


async def follow(database: Database, pace: Pace, sight: Sight) -> AsyncGenerator[None, None]:
    """Look again and again; an outage is a look without new figures.

    Raises NotMigrated when the first look finds no tables: that mends itself for nobody.
    """
    looks = 0
    while pace.count is None or looks < pace.count:
        began, rest_s = time.monotonic(), 0.0
        try:
            sight.take(await within(READ_TIMEOUT_S, database, overview.snapshot))
            rest_s = REST_PER_READ * (time.monotonic() - began)
        except NotMigrated as error:
            if sight.overview is None:
                raise
            sight.trouble = error
        except Unavailable as error:
            sight.trouble = error
        took_s = time.monotonic() - began
        looks += 1
        yield
        if looks != pace.count:
            await asyncio.sleep(max(pace.interval_s - took_s, rest_s, INTERVAL_S_MIN))


# In a pipe


async def print_looks(
    session: Session, view: View, pace: Pace, sight: Sight, is_json: bool
) -> None:
    """Print look after look; an outage is told once, on standard error."""
    was_told = False
    async with contextlib.aclosing(follow(session.database, pace, sight)) as looks:
        async for _ in looks:
            if sight.trouble is None:
                print_look(view, sight, is_json=is_json)
                sys.stdout.flush()
                was_told = False
            elif not was_told:
                click.echo(f"warning: {safe(sight.note)}", err=True)
                was_told = True


def print_look(view: View, sight: Sight, *, is_json: bool) -> None:
    """Print the newest figures."""
    assert sight.overview is not None
    if is_json:
        document = orjson.loads(orjson.dumps(view.document(sight.overview)))
        render.json_line(document)
        return
    out = render.console()
    for line in view.lines(sight, out.width, None):
        out.print(line, soft_wrap=True)


async def until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Do something until it is done, or SIGINT or SIGTERM ends it in order."""
    task = asyncio.ensure_future(work)
    with signals(task.cancel):
        await asyncio.wait({task})
    if not task.cancelled():
        task.result()


@contextlib.contextmanager
def signals(stop: Callable[[], object]) -> Iterator[None]:
    """Have SIGINT and SIGTERM call `stop`."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


# On a terminal


async def show_screen(session: Session, view: View, pace: Pace, sight: Sight) -> None:
    """Draw look after look over the whole terminal, which is restored whatever happens."""
    changed = asyncio.Event()

    async def look() -> None:
        async with contextlib.aclosing(follow(session.database, pace, sight)) as looks:
            async for _ in looks:
                changed.set()

    screen = Screen(view, sight, changed)
    with screen:
        reading = asyncio.ensure_future(look())
        reading.add_done_callback(lambda _: changed.set())
        with signals(screen.quit):
            while not screen.has_quit and not reading.done():
                screen.draw()
                changed.clear()
                with contextlib.suppress(TimeoutError):
                    # At least once a second: the age of old figures is on the screen too.
                    await asyncio.wait_for(changed.wait(), 1.0)
        reading.cancel()
        await asyncio.wait({reading})
    if not reading.cancelled():
        reading.result()


class Screen:
    """The terminal while it is ours: another page, no echo, keys read one by one."""

    def __init__(self, view: View, sight: Sight, changed: asyncio.Event) -> None:
        self.has_quit = False
        self._view, self._sight, self._changed = view, sight, changed
        self._console = render.console()
        self._input = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._modes: list[Any] = []
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Screen:
        self._take()
        self._loop.add_signal_handler(signal.SIGWINCH, self._changed.set)
        self._loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGWINCH, signal.SIGTSTP):
            self._loop.remove_signal_handler(number)
        self._give_back()

    def quit(self) -> None:
        """End soon."""
        self.has_quit = True
        self._changed.set()

    def draw(self) -> None:
        """Draw what is known in the terminal's size of this moment."""
        width, height = self._console.size
        lines = list(self._view.lines(self._sight, width, height))[:height]
        self._live.update(Group(*lines), refresh=True)

    def _take(self) -> None:
        self._live = Live(
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        if self._input is not None:
            self._modes = termios.tcgetattr(self._input)
            tty.setcbreak(self._input)
            self._loop.add_reader(self._input, self._read_keys)

    def _give_back(self) -> None:
        if self._input is not None:
            self._loop.remove_reader(self._input)
            termios.tcsetattr(self._input, termios.TCSADRAIN, self._modes)
        self._live.stop()

    def _suspend(self) -> None:
        """Be stopped by Ctrl-Z with the terminal in order, and go on from there."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
        self._changed.set()

    def _read_keys(self) -> None:
        assert self._input is not None
        try:
            keys = os.read(self._input, 1024).decode(errors="replace")
        except OSError:
            keys = ""
        # An arrow is an escape with more behind it; nothing at all is a terminal that is gone.
        if not keys or keys in QUIT_KEYS:
            self.quit()
            return
        if not keys.startswith("\x1b"):
            for key in keys:
                if key in QUIT_KEYS:
                    self.quit()
                self._view.press(key)
        self._changed.set()
