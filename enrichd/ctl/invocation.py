"""One call of `enrichctl`: its global options, its settings, its database.

The global options are accepted before or after the command's name, so every command has them too.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import click

from enrichd.logs import configure_logs, register_secret
from enrichd.queue.manager import JobQueueManager
from enrichd.settings import Settings
from enrichd.store import migrate
from enrichd.store.database import Database

if sys.platform == "win32":
    from asyncio import new_event_loop
else:
    from uvloop import new_event_loop

Answer = TypeVar("Answer")

GLOBAL_OPTIONS: list[click.Parameter] = [
    click.Option(
        ["--database-url"],
        metavar="URL",
        help="PostgreSQL to use, in place of DATABASE_URL.",
        expose_value=True,
    ),
    click.Option(["--json"], is_flag=True, help="Print JSON (lines for lists) and nothing else."),
    click.Option(["--workspace", "-w"], metavar="NAME", help="The tenant. Default: default."),
    click.Option(["--debug"], is_flag=True, help="Show debug logs, and tracebacks of errors."),
]
GLOBAL_NAMES = ("database_url", "json", "workspace", "debug")


@dataclass
class Invocation:
    """What one call was told for all commands alike."""

    database_url: str | None = None
    is_json: bool = False
    is_debug: bool = False
    workspace_given: str | None = None
    options: dict[str, str] = field(default_factory=dict)

    def take(self, given: dict[str, Any]) -> None:
        """Take global options out of a command's parameters."""
        self.database_url = given.pop("database_url", None) or self.database_url
        self.workspace_given = given.pop("workspace", None) or self.workspace_given
        self.is_json = given.pop("json", False) or self.is_json
        self.is_debug = given.pop("debug", False) or self.is_debug

    @cached_property
    def settings(self) -> Settings:
        """The settings in force, with this call's options on top; logs are set up with them."""
        overrides = dict(self.options)
        if self.database_url:
            overrides["DATABASE_URL"] = self.database_url
        if self.workspace_given:
            overrides["ENRICHD_WORKSPACE"] = self.workspace_given
        settings = Settings.load(overrides=overrides)
        for secret in settings.secrets():
            register_secret(secret)
        level = "debug" if self.is_debug else quiet(settings)
        configure_logs(level, settings.log_format, settings.debug)
        for warning in settings.warnings:
            click.echo(f"warning: {warning}", err=True)
        return settings

    @property
    def workspace(self) -> str:
        """The workspace this call is about."""
        return self.settings.workspace

    @asynccontextmanager
    async def session(self, *, is_migrating: bool = False) -> AsyncIterator[Session]:
        """Open the database, starting the embedded server when there is no DATABASE_URL.

        The embedded database is brought up to date by itself; somebody's own only with
        `is_migrating`.
        """
        settings = self.settings
        with database_of(settings) as (dsn, is_own):
            database = Database(dsn, name="enrichctl", is_pooler=settings.is_pooler)
            try:
                if is_own or is_migrating:
                    async with database.connection() as conn:
                        await migrate.apply(conn)
                yield Session(settings, database, JobQueueManager(database), settings.workspace)
            finally:
                await database.close()

    def run(self, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
        """Run a command's work in an event loop."""
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(work())


@dataclass(frozen=True, slots=True)
class Session:
    """An open database and what a command needs around it."""

    settings: Settings
    database: Database
    queue: JobQueueManager
    workspace: str


class database_of:
    """The connection string to use, and whether it is the embedded server's (started here)."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: Any = None

    def __enter__(self) -> tuple[str, bool]:
        url = self._settings.database_url
        if url is not None:
            return url.get_secret_value(), False
        from enrichd.store import embedded

        self._server = embedded.start(self._settings.data_dir / "postgresql")
        return self._server.dsn, True

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()


def command(**options: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function an `enrichctl` command: it gets the Invocation and its own parameters."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        def call(**given: Any) -> Any:
            invocation = click.get_current_context().ensure_object(Invocation)
            invocation.take(given)
            try:
                return function(invocation, **given)
            except BrokenPipeError:
                # Before click sees it, which would exit with 1: `enrichctl list | head` went well.
                raise click.exceptions.Exit(0) from None

        call.__doc__ = function.__doc__
        call.__name__ = function.__name__
        call.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        made: click.Command = click.command(**options)(call)
        made.params.extend(GLOBAL_OPTIONS)
        return made

    return decorate


def quiet(settings: Settings) -> str:
    """Return the log level of a command: warnings only, unless somebody chose a level."""
    row = next(row for row in settings.in_force() if row.name == "LOG_LEVEL")
    return "warning" if row.is_default else settings.log_level
