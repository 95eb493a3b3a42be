"""`enrichctl providers`: how they stand, and their keys, breakers and budgets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, Literal

import click

from enrichd.ctl import render
from enrichd.ctl.durations import DURATION
from enrichd.ctl.invocation import GLOBAL_OPTIONS, Invocation, command
from enrichd.ctl.terminal import safe
from enrichd.domain.merging import amount
from enrichd.errors import NotFound
from enrichd.handlers.registry import load_plugins
from enrichd.providers import roster as _roster  # noqa: F401 - its adapters register themselves
from enrichd.providers.base import REGISTERED
from enrichd.providers.keyring import KEY_LENGTH_MAX, rotate, set_key
from enrichd.providers.rows import ProviderRow, limits_text, rows_of
from enrichd.store import credits, provider_keys, provider_state
from enrichd.store.credits import Budget, Spending
from enrichd.store.installation import Installation

WIDE: Final = 120
"""From this width on the limits have room beside the rest."""
TROUBLES: Final = {
    "denied": "the key is refused",
    "exhausted": "no credits are left",
    "failing": "its calls fail",
}


@click.group(
    name="providers",
    invoke_without_command=True,
    epilog="Example: enrichctl providers -w acme",
)
@click.pass_context
def providers_command(ctx: click.Context, /, **given: Any) -> None:
    """Show providers: keys, limits, use, credits, breakers.

    What is shown is what the workspace meets: its own key where it has brought one, and what it
    asked and spent today (UTC). With --json each provider is a line.
    """
    invocation = ctx.ensure_object(Invocation)
    invocation.take(given)
    if ctx.invoked_subcommand is None:
        show(invocation)


providers_command.params.extend(GLOBAL_OPTIONS)


def show(invocation: Invocation) -> None:
    """Print how every provider stands."""
    load_plugins(invocation.settings.plugins)

    async def work() -> tuple[list[ProviderRow], Budget, Spending, Decimal]:
        async with invocation.session() as session:
            sealer = await Installation(session.database, session.settings).sealer()
            async with session.database.connection() as conn:
                rows = await rows_of(conn, session.settings, sealer, session.workspace)
                budget = await credits.budget_of(conn, workspace_id=session.workspace)
                spent = await credits.spending(conn, workspace_id=session.workspace)
                everybodys = await credits.spent_today(conn)
        return rows, budget, spent, everybodys

    rows, budget, spent, everybodys = invocation.run(work)
    if invocation.is_json:
        for row in rows:
            render.json_line(row.to_json())
        return
    render_rows(rows)
    render.line("")
    for row in rows:
        if row.is_troubled:
            render.line(trouble_line(row))
    render.line(budget_line(invocation, budget, spent))
    cap_of_all = invocation.settings.credits_per_day_max
    render.line(f"all workspaces: {number(everybodys)} credits today ({cap(cap_of_all)})")


def render_rows(rows: Sequence[ProviderRow]) -> None:
    """Print the providers as a table that fits the terminal; limits below where it is narrow."""
    is_wide = render.console().width >= WIDE
    headings = ["Provider", "Key", "Calls", "Found", "Failed", "Cached", "Spent", "Each", "Left"]
    headings += ["As of", "Breaker", "Limits"] if is_wide else ["Breaker"]
    cells = []
    for row in rows:
        key = f"{row.key} …{row.hint}" if row.hint and is_wide else row.key
        left, each = row.credits_left, row.cost_per_result
        shown = [
            row.provider_id,
            key,
            short(row.calls),
            short(row.answered),
            short(row.errors),
            "-" if row.hit_rate is None else f"{row.hit_rate:.0%}",
            short(row.credits_today),
            "-" if each is None else short(round(each, 2)),
            "-" if left is None else short(left),
        ]
        if is_wide:
            age_s = row.standing.credits_age_s if row.standing else None
            as_of = "-" if age_s is None else f"{render.duration(age_s)} ago"
            cells.append([*shown, as_of, row.breaker, limits_text(row.limits)])
        else:
            cells.append([*shown, row.breaker])
    render.table(headings, cells, right=range(2, 9), whole=range(1, 9))
    if not is_wide:
        names_by_limits: dict[str, list[str]] = {}
        for row in rows:
            names_by_limits.setdefault(limits_text(row.limits), []).append(row.provider_id)
        render.line("")
        render.fields([(text, ", ".join(names)) for text, names in names_by_limits.items()])


def trouble_line(row: ProviderRow) -> str:
    """Return in a line why a provider is not simply asked, and until when."""
    state = row.standing
    assert state is not None
    why = "opened by hand" if state.is_set_by_hand else TROUBLES.get(state.trouble or "")
    if state.breaker == "half_open":
        until = "the next call decides"
    elif state.open_left_s is None:
        until = f"until `enrichctl providers close {row.credential}`"
    else:
        until = f"tried again in {render.duration(state.open_left_s)}"
    said = None if state.is_set_by_hand else state.reason
    parts = [", ".join(part for part in (why, until) if part), said]
    return f"{row.credential}: {': '.join(part for part in parts if part)}"


def budget_line(invocation: Invocation, budget: Budget, spent: Spending) -> str:
    """Return what the workspace has spent, and of how much."""
    settings = invocation.settings
    per_day = budget.per_day_max
    if per_day is None:
        per_day = settings.workspace_credits_per_day_max
    per_month = budget.per_month_max
    if per_month is None:
        per_month = settings.workspace_credits_per_month_max
    return (
        f"workspace {invocation.workspace}: {number(spent.today)} credits today ({cap(per_day)}),"
        f" {number(spent.this_month)} this month ({cap(per_month)})"
    )


def number(value: Decimal) -> str:
    """Return an amount of credits with no more decimals than it has."""
    return f"{amount(value):,}"


def short(value: Decimal | int) -> str:
    """Return a number in a few characters: `99,999`, `123k`, `1.2M`."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= 100_000 and value >= size:
            part = value / size
            return f"{part:.1f}{unit}" if part < 10 else f"{part:.0f}{unit}"
    return f"{amount(Decimal(value)):,}"


def cap(value: Decimal | None) -> str:
    """Return a cap in words."""
    return "no cap" if value is None else f"cap {number(value)}"


def known_provider(invocation: Invocation, provider_id: str) -> str:
    """Return a provider's id; raise NotFound for one that nobody brings."""
    load_plugins(invocation.settings.plugins)
    if provider_id not in REGISTERED:
        known = ", ".join(sorted(REGISTERED))
        raise NotFound(f"there is no provider {provider_id[:100]!r}", hint=f"There are: {known}.")
    return provider_id


# Keys.


@command(name="set-key", epilog="Example: enrichctl providers set-key hunter -w acme < key.txt")
@click.argument("provider_id", metavar="PROVIDER")
def set_key_command(invocation: Invocation, provider_id: str) -> None:
    """Keep a workspace's own key for a provider, sealed.

    The key is read from standard input, or asked for without being shown. Running workers use it
    within half a minute.
    """
    known_provider(invocation, provider_id)
    key = read_key(provider_id)

    async def work() -> bool:
        async with invocation.session() as session:
            sealer = await Installation(session.database, session.settings).sealer()
            async with session.database.connection() as conn:
                return await set_key(
                    conn,
                    sealer,
                    workspace_id=session.workspace,
                    provider_id=provider_id,
                    key=key,
                )

    is_new = invocation.run(work)
    told(
        invocation,
        {"providerId": provider_id, "workspaceId": invocation.workspace, "isNew": is_new},
        f"{'kept the' if is_new else 'replaced the'} key of workspace {invocation.workspace}"
        f" for {provider_id}",
    )


def read_key(provider_id: str) -> str:
    """Return the key that a person typed or a program wrote; never an argument of the command."""
    if sys.stdin.isatty():
        given = click.prompt(f"Key for {safe(provider_id)}", hide_input=True, err=True)
    else:
        given = sys.stdin.read(KEY_LENGTH_MAX + 10)
    key = str(given).strip()
    if not key:
        raise click.UsageError("no key was given: write it to standard input")
    return key


@command(name="remove-key", epilog="Example: enrichctl providers remove-key hunter -w acme")
@click.argument("provider_id", metavar="PROVIDER")
def remove_key_command(invocation: Invocation, provider_id: str) -> None:
    """Forget a workspace's own key; it asks with the common one then, if there is one."""

    async def work() -> bool:
        async with invocation.session() as session, session.database.connection() as conn:
            return await provider_keys.delete(
                conn, workspace_id=session.workspace, provider_id=provider_id
            )

    if not invocation.run(work):
        raise NotFound(
            f"workspace {invocation.workspace} has no key of its own for {provider_id[:100]!r}"
        )
    told(
        invocation,
        {"providerId": provider_id, "workspaceId": invocation.workspace},
        f"removed the key of workspace {invocation.workspace} for {provider_id}",
    )


@command(name="rotate-keys", epilog="Example: enrichctl providers rotate-keys")
def rotate_keys_command(invocation: Invocation) -> int:
    """Seal the keys of all workspaces anew with the first of ENRICHD_SECRET_KEYS.

    It may be interrupted and run again. Exits with 1 if a key cannot be opened any more.
    """

    async def work() -> Any:
        async with invocation.session() as session:
            sealer = await Installation(session.database, session.settings).sealer()
            return await rotate(session.database, sealer)

    done = invocation.run(work)
    told(
        invocation,
        {"resealed": done.resealed, "unreadable": done.unreadable},
        f"sealed {done.resealed:,} anew",
    )
    if done.unreadable:
        click.echo(
            f"{done.unreadable:,} cannot be opened with ENRICHD_SECRET_KEYS and were left: add the"
            " key that sealed them, or set them again",
            err=True,
        )
        return 1
    return 0


# Breakers.


@command(name="open", epilog="Example: enrichctl providers open hunter --for 1h")
@click.argument("credential", metavar="PROVIDER")
@click.option("--for", "for_s", type=DURATION, metavar="TIME", help="For so long: 30m, 2h, 1d.")
def open_command(invocation: Invocation, credential: str, for_s: float | None) -> None:
    """Open a breaker by hand: nobody asks the provider until it is closed, or for a time.

    PROVIDER#WORKSPACE is the breaker of a workspace's own key.
    """
    set_breaker(invocation, credential, "open", for_s)


@command(name="close", epilog="Example: enrichctl providers close hunter")
@click.argument("credential", metavar="PROVIDER")
@click.option("--for", "for_s", type=DURATION, metavar="TIME", help="Keep it closed so long.")
def close_command(invocation: Invocation, credential: str, for_s: float | None) -> None:
    """Close a breaker by hand: the provider is asked again.

    PROVIDER#WORKSPACE is the breaker of a workspace's own key.
    """
    set_breaker(invocation, credential, "closed", for_s)


def set_breaker(
    invocation: Invocation, credential: str, breaker: Literal["open", "closed"], for_s: float | None
) -> None:
    """Set a breaker and say so."""
    known_provider(invocation, credential.partition("#")[0])

    async def work() -> None:
        async with invocation.session() as session, session.database.connection() as conn:
            await provider_state.set_by_hand(
                conn, credential=credential, breaker=breaker, for_s=for_s
            )

    invocation.run(work)
    how_long = "" if for_s is None else f" for {render.duration(for_s)}"
    told(
        invocation,
        {"credential": credential, "breaker": breaker, "forSeconds": for_s},
        f"the breaker of {credential} is {breaker}{how_long}",
    )


# Money.


class Credits(click.ParamType[str]):
    """An amount of credits, or `default` for what the settings say."""

    name = "credits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text if it is an amount."""
        text = str(value).strip()
        whole, _, decimals = text.partition(".")
        is_amount = whole.isdecimal() and whole.isascii() and len(whole) <= 9
        if text != "default" and not (is_amount and (not decimals or decimals.isdecimal())):
            self.fail(f"{text[:40]!r} is no amount; write 500, 12.5 or default", param, ctx)
        return text


@command(name="budget", epilog="Example: enrichctl providers budget -w acme --per-day 500")
@click.option("--per-day", type=Credits(), metavar="N", help="Credits a day (UTC), or default.")
@click.option("--per-month", type=Credits(), metavar="N", help="Credits a month, or default.")
def budget_command(invocation: Invocation, per_day: str | None, per_month: str | None) -> None:
    """Show or set what a workspace may spend on providers; it holds from the next call.

    `default` takes a cap back to WORKSPACE_CREDITS_PER_DAY_MAX or _PER_MONTH_MAX.
    """

    async def work() -> tuple[Budget, Spending]:
        async with invocation.session() as session, session.database.transaction() as conn:
            budget = await credits.budget_of(conn, workspace_id=session.workspace)
            if per_day is not None or per_month is not None:
                budget = Budget(
                    changed(budget.per_day_max, per_day), changed(budget.per_month_max, per_month)
                )
                await credits.set_budget(conn, workspace_id=session.workspace, budget=budget)
            return budget, await credits.spending(conn, workspace_id=session.workspace)

    budget, spent = invocation.run(work)
    told(
        invocation,
        {
            "workspaceId": invocation.workspace,
            "creditsPerDayMax": or_none(budget.per_day_max),
            "creditsPerMonthMax": or_none(budget.per_month_max),
            "spentToday": amount(spent.today),
            "spentThisMonth": amount(spent.this_month),
        },
        budget_line(invocation, budget, spent),
    )


def changed(now: Decimal | None, given: str | None) -> Decimal | None:
    """Return a cap after what was given for it."""
    if given is None:
        return now
    return None if given == "default" else Decimal(given)


def or_none(value: Decimal | None) -> Any:
    """Return an amount as JSON has it."""
    return None if value is None else amount(value)


def told(invocation: Invocation, document: dict[str, Any], text: str) -> None:
    """Print what was done."""
    if invocation.is_json:
        render.json_document(document)
    else:
        render.line(text)


for _command in (
    set_key_command,
    remove_key_command,
    rotate_keys_command,
    open_command,
    close_command,
    budget_command,
):
    providers_command.add_command(_command)
