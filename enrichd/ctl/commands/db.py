"""`enrichctl db migrate|status`."""

from __future__ import annotations

import click

from enrichd.ctl import render
from enrichd.ctl.invocation import Invocation, command
from enrichd.store import migrate


@click.group(name="db", epilog="Example: enrichctl db migrate")
def db_command() -> None:
    """Bring the database up to date, or see how far it is."""


@command(name="migrate", epilog="Example: enrichctl db migrate --database-url postgresql:///leads")
def migrate_command(invocation: Invocation) -> None:
    """Create or update enrichd's tables. Safe to run again, and from many places at once."""

    async def work() -> list[migrate.Migration]:
        async with invocation.session() as session, session.database.connection() as conn:
            return await migrate.apply(conn)

    ran = invocation.run(work)
    if invocation.is_json:
        render.json_document({"applied": [migration.version for migration in ran]})
    elif ran:
        for migration in ran:
            render.line(f"applied {migration.version:04d} {migration.name}")
    else:
        render.line("nothing to do: the database is up to date")


@command(name="status", epilog="Example: enrichctl db status --json")
def status_command(invocation: Invocation) -> int:
    """Show which migrations stand in the database. Exits with 1 if some are missing."""

    async def work() -> list[int]:
        async with invocation.session() as session, session.database.connection() as conn:
            return await migrate.applied(conn)

    applied = set(invocation.run(work))
    rows = [
        {"version": m.version, "name": m.name, "applied": m.version in applied}
        for m in migrate.migrations()
    ]
    is_current = all(row["applied"] for row in rows)
    if invocation.is_json:
        render.json_document({"isCurrent": is_current, "migrations": rows})
    else:
        render.table(
            ["Version", "Name", "State"],
            [
                [
                    f"{row['version']:04d}",
                    str(row["name"]),
                    "applied" if row["applied"] else "missing",
                ]
                for row in rows
            ],
        )
        if not is_current:
            render.line("Run: enrichctl db migrate")
    return 0 if is_current else 1


db_command.add_command(migrate_command)
db_command.add_command(status_command)
