"""`enrichctl doctor`: what is wrong, what that means, what to do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from rich.console import Console
from rich.text import Text

from enrichd.ctl import access_checks, database_checks, host_checks, queue_checks, render
from enrichd.ctl.checks import Check, Status, ok, skip, warn
from enrichd.ctl.deadline import within
from enrichd.ctl.glance import is_alive
from enrichd.ctl.invocation import Invocation, command, database_of
from enrichd.ctl.terminal import safe
from enrichd.errors import EnrichdError, Unavailable
from enrichd.settings import Settings
from enrichd.store import access, doctor, migrate, stuck, workers
from enrichd.store.database import Connection, Database

CHECK_TIMEOUT_S = 3.0
DATABASE_TIMEOUT_S = 8.0
"""For all checks of the database together."""

STYLES = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red", Status.SKIP: "dim"}
MARK_WIDTH = 6

Answer = TypeVar("Answer")
Sections = Mapping[str, Sequence[Check]]


@command(
    name="doctor",
    epilog="Example: enrichctl doctor --json | jq '.checks[] | select(.status == \"fail\")'",
)
def doctor_command(invocation: Invocation) -> int:
    """Look for everything that keeps jobs from being run.

    Each check says what it found and what to do. Exits with 1 if one failed, with 0 otherwise,
    warnings included. It ends within about 10 seconds, whatever hangs, and goes on without the
    database when that cannot be reached.
    """
    settings = invocation.settings
    sections = invocation.run(lambda: examine(settings))
    has_failed = any(check.status is Status.FAIL for part in sections.values() for check in part)
    if invocation.is_json:
        render.json_document(document_of(sections))
    else:
        render_sections(sections)
    return 1 if has_failed else 0


async def examine(settings: Settings) -> Sections:
    """Make all checks: those of this host beside those of the database."""
    with contextlib.ExitStack() as stack:
        try:
            dsn, is_own = stack.enter_context(database_of(settings))
        except EnrichdError as error:
            return {
                "database": [database_checks.unreached(error.message), *no_database()],
                "host": await examine_host(settings),
            }
        host, (database, queue) = await asyncio.gather(
            examine_host(settings), examine_database(settings, dsn, is_own=is_own)
        )
    return {"database": database, "queue": queue, "host": host}


def no_database() -> list[Check]:
    """Return what stands for everything that needs a database."""
    return [skip("database_checks", "the other checks of database and queue need it")]


# The database


async def examine_database(
    settings: Settings, dsn: str, *, is_own: bool
) -> tuple[list[Check], list[Check]]:
    """Check the database, then the queue in it."""
    database = Database(dsn, name="enrichctl doctor", is_pooler=settings.is_pooler)
    examination = Examination(database, settings)
    try:
        try:
            if is_own:
                await within(CHECK_TIMEOUT_S, database, migrate.apply)
            clock = await within(CHECK_TIMEOUT_S, database, doctor.clock)
        except Unavailable as error:
            return [database_checks.unreached(error.message), *no_database()], []
        shown = "the embedded server" if is_own else shown_address(settings)
        await examination.look_at_database(dsn)
        checks = [
            database_checks.reached(shown, clock),
            *examination.checks,
            database_checks.skew(clock),
        ]
        examination.checks = []
        if any(check.name == "migrations" and check.status is Status.FAIL for check in checks):
            return checks, [skip("queue", "its tables are not there yet")]
        await examination.look_at_queue()
        return checks, examination.checks
    finally:
        await database.close()


def shown_address(settings: Settings) -> str:
    """Return DATABASE_URL without its password."""
    return next(row.value for row in settings.in_force() if row.name == "DATABASE_URL")


class Examination:
    """Asks one thing after the other, none for longer than its time, and keeps what came out."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.checks: list[Check] = []
        self._database = database
        self._settings = settings
        self._deadline = time.monotonic() + DATABASE_TIMEOUT_S

    async def look_at_database(self, dsn: str) -> None:
        """Check the server, its settings, the tables."""
        if (server := await self._ask("server", doctor.server)) is not None:
            self.checks += database_checks.server_checks(server, self._settings)
        await self._prepare()
        await self._listen(dsn)
        if (applied := await self._ask("migrations", migrate.applied)) is not None:
            shipped = [migration.version for migration in migrate.migrations()]
            missing = [number for number in shipped if number not in applied]
            unknown = [number for number in applied if number not in shipped]
            self.checks.append(database_checks.migrations(missing, unknown))
            broken = await self._ask(
                "indexes", lambda conn: doctor.broken_indexes(conn, versions=applied)
            )
            if broken is not None:
                self.checks.append(database_checks.indexes(broken))
            if not missing and (held := await self._ask("access", access.read)) is not None:
                self.checks += access_checks.access_checks(held)
        if (tables := await self._ask("dead_rows", doctor.tables)) is not None:
            self.checks += database_checks.table_checks(tables)
        if (horizon := await self._ask("transactions", doctor.horizon)) is not None:
            self.checks += database_checks.horizon_checks(horizon)

    async def look_at_queue(self) -> None:
        """Check workers and jobs."""
        timeout_s = self._settings.worker_timeout_s
        found = await self._ask("workers", workers.list_all)
        queue = await self._ask("queue", lambda conn: stuck.queue(conn, worker_timeout_s=timeout_s))
        if found is not None and queue is not None:
            has_workers = any(is_alive(worker, timeout_s) for worker in found)
            self.checks += queue_checks.worker_checks(found, queue, timeout_s)
            self.checks += queue_checks.queue_checks(queue, has_workers=has_workers)
        unknown = await self._ask(
            "job_types", lambda conn: stuck.unknown_types(conn, worker_timeout_s=timeout_s)
        )
        if unknown is not None:
            self.checks.append(queue_checks.type_check(unknown))
        if (held := await self._ask("lanes", stuck.held_lanes)) is not None:
            self.checks.append(queue_checks.lane_check(held))

    async def _prepare(self) -> None:
        if self._settings.is_pooler:
            self.checks.append(ok("prepared_statements", "not used behind a pooler"))
            return
        before = len(self.checks)
        await self._ask("prepared_statements", doctor.can_prepare)
        if len(self.checks) == before:
            self.checks.append(ok("prepared_statements", "work"))

    async def _listen(self, dsn: str) -> None:
        direct = self._settings.database_direct_url
        if direct is None and self._settings.is_pooler:
            self.checks.append(skip("listen", "there is no direct connection"))
            return
        address = direct.get_secret_value() if direct is not None else dsn
        before = len(self.checks)
        heard_s = await self._ask("listen", lambda conn: doctor.hears_itself(address, conn))
        if len(self.checks) == before:
            self.checks.append(database_checks.listening(heard_s))

    async def _ask(
        self, name: str, read: Callable[[Connection], Awaitable[Answer]]
    ) -> Answer | None:
        """Return what a read gives; None if it gave nothing, which is then a check by that name."""
        left_s = min(CHECK_TIMEOUT_S, self._deadline - time.monotonic())
        if left_s <= 0:
            self.checks.append(skip(name, "no time was left; the database is slow"))
            return None
        try:
            return await within(left_s, self._database, read)
        except EnrichdError as error:
            self.checks.append(warn(name, f"not known: {error.message}", error.hint))
        except Exception as error:  # noqa: BLE001 - what one check trips over, the next may not
            text = str(error).partition("\n")[0]
            self.checks.append(warn(name, f"not known: {type(error).__name__}: {text}"))
        return None


# The host


async def examine_host(settings: Settings) -> list[Check]:
    """Check this host, everything at once."""
    nameservers = host_checks.nameservers_of(settings)
    slow = await asyncio.gather(
        in_time("plugins", host_checks.plugins(settings.plugins)),
        in_time("dns", host_checks.names(nameservers)),
        in_time("smtp_port", host_checks.mail_port(settings)),
        in_time("realtime", host_checks.realtime(settings)),
        *(
            in_time(name, host_checks.disk(name, place))
            for name, place in host_checks.disks(settings)
        ),
    )
    return [
        *(warn("settings", text) for text in settings.warnings),
        host_checks.keys(settings),
        *slow,
        host_checks.descriptors(settings),
    ]


async def in_time(name: str, check: Awaitable[Check]) -> Check:
    """Return a check's outcome, or that it took too long."""
    try:
        return await asyncio.wait_for(check, CHECK_TIMEOUT_S + 0.2)
    except TimeoutError:
        return warn(name, f"not known: it took longer than {CHECK_TIMEOUT_S:g} s")


# What is printed


def document_of(sections: Sections) -> dict[str, Any]:
    """Return all checks in camelCase, with how many came out how."""
    counts = Counter(check.status for part in sections.values() for check in part)
    return {
        "isHealthy": counts[Status.FAIL] == 0,
        "counts": {str(status): counts[status] for status in Status},
        "checks": [
            {
                "section": section,
                "name": check.name,
                "status": check.status,
                "message": check.message,
                "hint": check.hint,
            }
            for section, part in sections.items()
            for check in part
        ],
    }


def render_sections(sections: Sections) -> None:
    """Print a line a check, what to do below it, and a summary."""
    out = render.console()
    name_width = max(len(check.name) for part in sections.values() for check in part) + 2
    for section, part in sections.items():
        if not part:
            continue
        out.print(Text(section.capitalize(), style="bold"))
        for check in part:
            mark = Text(f"{check.status:<{MARK_WIDTH}}", style=STYLES[check.status])
            label = mark + Text(f"{check.name.replace('_', ' '):<{name_width}}")
            indent = MARK_WIDTH + name_width
            print_folded(out, label, check.message, indent)
            if check.hint is not None:
                print_folded(out, Text(" " * indent), f"→ {check.hint}", indent)
        out.print()
    counts = Counter(check.status for part in sections.values() for check in part)
    words = {
        Status.FAIL: "failed",
        Status.WARN: "to look at",
        Status.OK: "ok",
        Status.SKIP: "skipped",
    }
    out.print(
        Text(", ").join(
            Text(f"{counts[status]} {word}", style=STYLES[status])
            for status, word in words.items()
            if counts[status]
        )
    )


def print_folded(out: Console, label: Text, text: str, indent: int) -> None:
    """Print a text behind its label, and what does not fit under its own beginning."""
    for part in Text(safe(text)).wrap(out, max(out.width - indent, 20)):
        out.print(label + part, soft_wrap=True)
        label = Text(" " * indent)
