"""`enrichctl webhooks`: endpoints that are told of jobs, and what became of each event."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import click

from enrichd.ctl import render
from enrichd.ctl.confirming import confirm
from enrichd.ctl.durations import DURATION
from enrichd.ctl.invocation import Invocation, Session, command
from enrichd.ctl.job_ids import resolve
from enrichd.ctl.job_text import second
from enrichd.ctl.terminal import safe
from enrichd.ctl.webhook_ids import delivery_id, webhook_id
from enrichd.domain.webhook_events import EVENTS, EVERY
from enrichd.store import delivery_log, job_views, webhooks
from enrichd.store.database import Connection, Database
from enrichd.store.delivery_log import Delivery
from enrichd.store.installation import Installation
from enrichd.store.webhooks import Webhook
from enrichd.webhooks import endpoints
from enrichd.webhooks.secrets import JobSecrets
from enrichd.webhooks.shapes import delivery_shape, webhook_shape

TEST_LOOK_S = 0.1
DECLINED = 1

Answer = TypeVar("Answer")


@click.group(name="webhooks", epilog="Example: enrichctl webhooks add https://example.com/hook")
def webhooks_command() -> None:
    """Add webhook endpoints, see what they were sent, send it again."""


@command(
    name="add",
    epilog="Example: enrichctl webhooks add https://example.com/hook --event job.completed",
)
@click.argument("url")
@click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice([*EVENTS, EVERY]),
    help="What to be told of; may be given several times. Default: everything.",
)
@click.option("--description", metavar="TEXT", help="What it is for.")
def add_command(
    invocation: Invocation, url: str, events: tuple[str, ...], description: str | None
) -> None:
    """Add an endpoint and print the secret that its events are signed with.

    The secret is shown this once; `rotate` makes another.
    """

    async def work(session: Session, conn: Connection) -> tuple[Webhook, str]:
        async with installation_of(session) as installation:
            return await endpoints.add(
                conn,
                sealer=await installation.sealer(),
                guard=endpoints.guard_of(session.settings),
                workspace_id=session.workspace,
                url=url,
                events=events,
                description=description,
            )

    show_secret(invocation, *on_connection(invocation, work))


@command(name="list", epilog="Example: enrichctl webhooks list --json")
def list_command(invocation: Invocation) -> None:
    """List the endpoints of the workspace. With --json each is a line."""

    async def work(session: Session, conn: Connection) -> list[Webhook]:
        return await webhooks.list_all(conn, workspace_id=session.workspace)

    found = on_connection(invocation, work)
    if invocation.is_json:
        for webhook in found:
            render.json_line(webhook_shape(webhook))
    elif found:
        render.table(
            ["Id", "State", "Events", "URL", "Description"],
            [
                [
                    str(webhook.id),
                    state_of(webhook),
                    ", ".join(webhook.events),
                    webhook.url,
                    webhook.description or "",
                ]
                for webhook in found
            ],
            whole=[0, 1],
        )
    else:
        render.line("There are no endpoints. Add one: enrichctl webhooks add https://…")


@command(name="remove", epilog="Example: enrichctl webhooks remove 019a2f --yes")
@click.argument("webhook")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
def remove_command(invocation: Invocation, webhook: str, is_sure: bool) -> int:
    """Remove an endpoint, its log, and what it was still to be sent."""

    async def work(session: Session, conn: Connection) -> str | None:
        found = await webhook_id(conn, workspace_id=session.workspace, text=webhook)
        endpoint = await webhooks.get(conn, workspace_id=session.workspace, webhook_id=found)
        deed = f"This removes the endpoint {safe(endpoint.url)} and its deliveries for ever."
        if not confirm(deed, is_sure=is_sure, count=1):
            return None
        await webhooks.delete(conn, workspace_id=session.workspace, webhook_id=found)
        return str(found)

    removed = on_connection(invocation, work)
    if invocation.is_json:
        render.json_document({"removed": removed})
    elif removed is not None:
        render.line(f"removed {removed}")
    return 0 if removed is not None else DECLINED


@command(name="rotate", epilog="Example: enrichctl webhooks rotate 019a2f --overlap 7d")
@click.argument("webhook")
@click.option(
    "--overlap",
    "overlap_s",
    type=DURATION,
    default="24h",
    show_default=True,
    metavar="TIME",
    help="How long the secret before signs on; 0 takes it away now.",
)
def rotate_command(invocation: Invocation, webhook: str, overlap_s: float) -> None:
    """Give an endpoint a new secret and print it, this once.

    Until the overlap is over each event carries the signatures of both.
    """

    async def work(session: Session, conn: Connection) -> tuple[Webhook, str]:
        found = await webhook_id(conn, workspace_id=session.workspace, text=webhook)
        async with installation_of(session) as installation:
            return await endpoints.rotate(
                conn,
                sealer=await installation.sealer(),
                workspace_id=session.workspace,
                webhook_id=found,
                overlap_s=overlap_s,
            )

    show_secret(invocation, *on_connection(invocation, work))


@command(name="secret", epilog="Example: enrichctl webhooks secret --workspace acme")
def secret_command(invocation: Invocation) -> None:
    """Print the secret that signs what goes to jobs' own webhook URLs.

    It belongs to the workspace and is made of ENRICHD_SECRET_KEYS; without those, of the database.
    """

    async def work(session: Session, conn: Connection) -> str:
        async with installation_of(session) as installation:
            pepper = await installation.pepper()
        return JobSecrets(session.settings, pepper).secret(session.workspace)

    secret = on_connection(invocation, work)
    if invocation.is_json:
        render.json_document({"workspaceId": invocation.workspace, "secret": secret})
    else:
        render.line(secret)


@command(name="test", epilog="Example: enrichctl webhooks test 019a2f")
@click.argument("webhook")
@click.option(
    "--timeout",
    "timeout_s",
    type=DURATION,
    default="20s",
    show_default=True,
    metavar="TIME",
    help="How long to wait for the daemon to send it.",
)
def test_command(invocation: Invocation, webhook: str, timeout_s: float) -> int:
    """Let the daemon send a test event to an endpoint, and tell how it was taken."""

    async def work(session: Session, conn: Connection) -> Delivery | None:
        found = await webhook_id(conn, workspace_id=session.workspace, text=webhook)
        sent = await delivery_log.test(conn, workspace_id=session.workspace, webhook_id=found)
        if sent is None:
            return None
        clock = asyncio.get_running_loop().time
        until = clock() + timeout_s
        while True:
            seen = await delivery_log.get(conn, workspace_id=session.workspace, delivery_id=sent)
            if seen.status != "pending" or seen.error is not None or clock() >= until:
                return seen
            await asyncio.sleep(TEST_LOOK_S)

    seen = on_connection(invocation, work)
    if invocation.is_json:
        render.json_document(None if seen is None else delivery_shape(seen))
    elif seen is None:
        render.line("the endpoint is disabled")
    elif seen.status == "delivered":
        render.line(f"taken with {seen.answer_status} after {seen.latency_ms} ms")
    elif seen.error is None:
        render.line("not sent yet: is enrichd running?")
    else:
        render.line(f"not taken: {seen.error} {seen.answer or ''}".strip())
    return 0 if seen is not None and seen.status == "delivered" else 1


@command(name="deliveries", epilog="Example: enrichctl webhooks deliveries --status failed")
@click.option("--webhook", metavar="ID", help="Only those of one endpoint.")
@click.option("--job", metavar="ID", help="Only those about one job.")
@click.option("--status", type=click.Choice(["pending", "delivered", "failed"]))
@click.option("--event", type=click.Choice(EVENTS))
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--attempts", is_flag=True, help="Show each attempt and what was answered.")
def deliveries_command(
    invocation: Invocation,
    webhook: str | None,
    job: str | None,
    status: str | None,
    event: str | None,
    limit: int,
    attempts: bool,
) -> None:
    """List what was sent and what is to be, newest first. With --json each is a line."""

    async def work(session: Session, conn: Connection) -> list[Delivery]:
        own = session.workspace
        return await delivery_log.list_page(
            conn,
            workspace_id=own,
            webhook_id=None
            if webhook is None
            else await webhook_id(conn, workspace_id=own, text=webhook),
            job_id=None if job is None else await resolve(conn, workspace_id=own, text=job),
            status=status,
            event=event,
            limit=limit,
        )

    found = on_connection(invocation, work)
    if invocation.is_json:
        for delivery in found:
            render.json_line(delivery_shape(delivery))
    elif found and attempts:
        for place, delivery in enumerate(found):
            if place:
                render.line("")
            show_attempts(delivery)
    elif found:
        render.table(
            ["Id", "Event", "State", "Attempts", "Answer", "Created", "URL"],
            [row_of(delivery) for delivery in found],
            right=[3],
            whole=[0, 1, 2],
        )
    else:
        render.line("no deliveries")


@command(name="replay", epilog="Example: enrichctl webhooks replay --failed --since 2d")
@click.argument("deliveries", nargs=-1)
@click.option("--webhook", metavar="ID", help="Those of one endpoint.")
@click.option("--failed", "only_failed", is_flag=True, help="Those that failed for good.")
@click.option("--since", "since_s", type=DURATION, metavar="TIME", help="Not older than this: 2d.")
@click.option("--until", "until_s", type=DURATION, metavar="TIME", help="Older than this: 1h.")
def replay_command(
    invocation: Invocation,
    deliveries: tuple[str, ...],
    webhook: str | None,
    only_failed: bool,
    since_s: float | None,
    until_s: float | None,
) -> None:
    """Send deliveries again: by id, or an endpoint's, a range of time, all that failed.

    Each goes out with the id it had, so that a receiver which took it the first time can tell. Left
    out are those whose endpoint is disabled and those whose data was pruned or erased.
    """
    if not deliveries and not only_failed and webhook is None and since_s is None:
        raise click.UsageError("name deliveries, or give --failed, --webhook or --since")

    async def work(session: Session, conn: Connection) -> int:
        own = session.workspace
        ids = [await delivery_id(conn, workspace_id=own, text=text) for text in deliveries]
        now = await job_views.now(conn)
        return len(
            await delivery_log.replay(
                conn,
                workspace_id=own,
                ids=ids or None,
                webhook_id=None
                if webhook is None
                else await webhook_id(conn, workspace_id=own, text=webhook),
                since=ago(now, since_s),
                until=ago(now, until_s),
                only_failed=only_failed,
            )
        )

    count = on_connection(invocation, work)
    if invocation.is_json:
        render.json_document({"replayed": count})
    else:
        render.line(f"{count:,} to be sent again")


def on_connection(
    invocation: Invocation, work: Callable[[Session, Connection], Awaitable[Answer]]
) -> Answer:
    """Run work on a connection of a session."""

    async def run() -> Answer:
        async with invocation.session() as session, session.database.connection() as conn:
            return await work(session, conn)

    return invocation.run(run)


class installation_of:
    """The installation's secrets, read on a connection of their own."""

    def __init__(self, session: Session) -> None:
        self._database: Database = session.database.sibling("secrets")
        self._settings = session.settings

    async def __aenter__(self) -> Installation:
        return Installation(self._database, self._settings)

    async def __aexit__(self, *_: object) -> None:
        await self._database.close()


def show_secret(invocation: Invocation, webhook: Webhook, secret: str) -> None:
    """Print an endpoint with its new secret."""
    if invocation.is_json:
        render.json_document(webhook_shape(webhook, secret=secret))
        return
    render.fields(
        [
            ("id", str(webhook.id)),
            ("url", webhook.url),
            ("events", ", ".join(webhook.events)),
            ("secret", secret),
        ]
    )
    render.line("The secret is not shown again.")


def state_of(webhook: Webhook) -> str:
    """Return an endpoint's state in a word or two."""
    if not webhook.enabled:
        return f"disabled ({webhook.disabled_reason})"
    return f"failing ({webhook.failure_streak})" if webhook.failing_since else "enabled"


def row_of(delivery: Delivery) -> Sequence[str]:
    """Return a delivery as a row of the table."""
    answer = str(delivery.answer_status or "")
    if delivery.error is not None:
        answer = delivery.error
    return [
        str(delivery.id),
        delivery.event,
        delivery.status,
        str(delivery.attempts),
        answer,
        second(delivery.created_at),
        delivery.url or "",
    ]


def show_attempts(delivery: Delivery) -> None:
    """Print a delivery, and below it a row for each attempt, oldest first."""
    parts = (str(delivery.id), delivery.event, delivery.status, delivery.url or "")
    render.line("  ".join(parts))
    if not delivery.history:
        render.line("no attempt has ended")
        return
    rows = [
        [
            str(one.attempt),
            second(one.at),
            "" if one.latency_ms is None else f"{one.latency_ms} ms",
            one.error or str(one.answer_status or ""),
            " ".join((one.answer or "").split()),
        ]
        for one in delivery.history
    ]
    headings = ["#", "At", "Took", "Result", "Answer"]
    render.table(headings, rows, right=[0, 2], whole=[0, 1, 2, 3])


def ago(now: datetime, seconds: float | None) -> datetime | None:
    """Return the moment so many seconds before now."""
    return None if seconds is None else now - timedelta(seconds=seconds)


for one in (
    add_command,
    list_command,
    remove_command,
    rotate_command,
    secret_command,
    test_command,
    deliveries_command,
    replay_command,
):
    webhooks_command.add_command(one)
