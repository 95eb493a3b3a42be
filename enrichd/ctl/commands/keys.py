"""`enrichctl keys`: the keys that a workspace calls the API with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar

import click

from enrichd.ctl import render
from enrichd.ctl.durations import DURATION
from enrichd.ctl.invocation import Invocation, Session, command
from enrichd.ctl.job_text import second
from enrichd.ctl.terminal import safe
from enrichd.domain.api_keys import SCOPES, hash_of, id_of, shown_id
from enrichd.errors import Invalid
from enrichd.store import api_keys
from enrichd.store.api_keys import ApiKey
from enrichd.store.database import Connection

NAME_CHARS_MAX = 100
EXPIRY_S_MIN = 60.0

Answer = TypeVar("Answer")


@click.group(name="keys", epilog="Example: enrichctl keys create --scope write --name crm -w acme")
def keys_command() -> None:
    """Make, list, revoke and rotate the API keys of a workspace.

    A key is shown when it is made and never again: only its hash is kept.
    """


@command(name="create", epilog="Example: enrichctl keys create --scope write --expires 90d")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(SCOPES),
    default=["write"],
    show_default=True,
    help="What it may do: write may read too, admin may do everything.",
)
@click.option("--name", default="", metavar="TEXT", help="What it is for.")
@click.option("--expires", "keep_s", type=DURATION, metavar="TIME", help="Good for this long only.")
def create_command(
    invocation: Invocation, scopes: tuple[str, ...], name: str, keep_s: float | None
) -> None:
    """Make a key and print it, this once."""
    if len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise Invalid(f"--name may have {NAME_CHARS_MAX} printable characters")
    if keep_s is not None and keep_s < EXPIRY_S_MIN:
        raise Invalid(f"--expires must be at least {EXPIRY_S_MIN:g}s")
    key = api_keys.new_key()

    async def work(conn: Connection, workspace_id: str) -> ApiKey:
        return await api_keys.insert(
            conn,
            key_id=id_in(key),
            workspace_id=workspace_id,
            name=name,
            key_hash=hash_of(key),
            scopes=sorted(set(scopes), key=SCOPES.index),
            keep_s=keep_s,
        )

    show_new(invocation, on_connection(invocation, work), key)


@command(name="list", epilog="Example: enrichctl keys list --json")
def list_command(invocation: Invocation) -> None:
    """List the workspace's keys, newest first. With --json each is a line."""

    async def work(conn: Connection, workspace_id: str) -> list[ApiKey]:
        return await api_keys.list_all(conn, workspace_id=workspace_id)

    found = on_connection(invocation, work)
    if invocation.is_json:
        for one in found:
            render.json_line(shape_of(one))
    elif found:
        render.table(
            ["Id", "State", "Scopes", "Name", "Last used", "Expires"],
            [
                [
                    one.id,
                    one.state,
                    ", ".join(one.scopes),
                    safe(one.name),
                    moment(one.last_used_at, "never"),
                    moment(one.expires_at, "never"),
                ]
                for one in found
            ],
            whole=[0, 1, 2],
        )
    else:
        render.line("There are no keys. Make one: enrichctl keys create")


@command(name="revoke", epilog="Example: enrichctl keys revoke h7Xc21Qa")
@click.argument("key")
def revoke_command(invocation: Invocation, key: str) -> None:
    """Let a key be good no more, within five seconds on every gateway."""

    async def work(conn: Connection, workspace_id: str) -> ApiKey:
        return await api_keys.revoke(conn, workspace_id=workspace_id, key_id=shown_id(key))

    revoked = on_connection(invocation, work)
    if invocation.is_json:
        render.json_document(shape_of(revoked))
    else:
        render.line(f"revoked {revoked.id}")


@command(name="rotate", epilog="Example: enrichctl keys rotate h7Xc21Qa --overlap 7d")
@click.argument("key")
@click.option(
    "--overlap",
    "overlap_s",
    type=DURATION,
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the old key is good beside the new one; 0 ends it now.",
)
def rotate_command(invocation: Invocation, key: str, overlap_s: float) -> None:
    """Make a key that takes over from another, and print it, this once."""
    new = api_keys.new_key()

    async def work(conn: Connection, workspace_id: str) -> ApiKey:
        return await api_keys.rotate(
            conn,
            workspace_id=workspace_id,
            key_id=shown_id(key),
            new_id=id_in(new),
            key_hash=hash_of(new),
            overlap_s=overlap_s,
        )

    show_new(invocation, on_connection(invocation, work), new)


for _one in (create_command, list_command, revoke_command, rotate_command):
    keys_command.add_command(_one)


def on_connection(
    invocation: Invocation, work: Callable[[Connection, str], Awaitable[Answer]]
) -> Answer:
    """Run a command's work on a connection, for the workspace the call is about."""

    async def whole() -> Answer:
        async with invocation.session() as session:
            return await with_connection(session)

    async def with_connection(session: Session) -> Answer:
        async with session.database.connection() as conn:
            return await work(conn, session.workspace)

    return invocation.run(whole)


def show_new(invocation: Invocation, made: ApiKey, key: str) -> None:
    """Print a key, alone on standard output, so that a script can take it from there."""
    if invocation.is_json:
        render.json_document({**shape_of(made), "key": key})
        return
    render.line(key)
    until = f" until {moment(made.expires_at, '')}" if made.expires_at else ""
    click.echo(
        f"This key of workspace {safe(made.workspace_id)} may {made.scopes[-1]}{until}."
        " It is not shown again.",
        err=True,
    )


def id_in(key: str) -> str:
    """Return the public part of a key made here."""
    key_id = id_of(key)
    assert key_id is not None
    return key_id


def moment(at: datetime | None, otherwise: str) -> str:
    """Return a time as tables show it."""
    return otherwise if at is None else second(at)


def shape_of(key: ApiKey) -> dict[str, Any]:
    """Return a key as JSON, without the key."""

    def time_of(at: datetime | None) -> str | None:
        return None if at is None else at.isoformat()

    return {
        "id": key.id,
        "workspaceId": key.workspace_id,
        "name": key.name,
        "scopes": key.scopes,
        "state": key.state,
        "createdAt": time_of(key.created_at),
        "expiresAt": time_of(key.expires_at),
        "revokedAt": time_of(key.revoked_at),
        "lastUsedAt": time_of(key.last_used_at),
        "rotatedFrom": key.rotated_from,
    }
