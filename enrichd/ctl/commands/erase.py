"""`enrichctl erase`: take a person out of everything that is kept, for good."""

from __future__ import annotations

import click

from enrichd.ctl import render
from enrichd.ctl.confirming import confirm
from enrichd.ctl.durations import DURATION
from enrichd.ctl.invocation import Invocation, Session, command
from enrichd.ctl.terminal import safe
from enrichd.domain.emails import Address, InvalidAddress, parse_address
from enrichd.errors import FieldProblem, Invalid
from enrichd.processing.erasure import SETTLE_S, Erased, Erasure
from enrichd.store.installation import Installation

DECLINED = 1


@command(name="erase", epilog="Example: enrichctl erase --email ada@example.com --dry-run")
@click.option("--email", metavar="ADDRESS", required=True, help="The person, in any spelling.")
@click.option("--all-workspaces", is_flag=True, help="Everywhere, not only in this workspace.")
@click.option(
    "--wait",
    "settle_s",
    type=DURATION,
    default=None,
    metavar="TIME",
    help=f"How long to wait for runs that had begun before. Default: {SETTLE_S:.0f}s.",
)
@click.option("--dry-run", is_flag=True, help="Count only; erase nothing.")
@click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
def erase_command(
    invocation: Invocation,
    email: str,
    all_workspaces: bool,
    settle_s: float | None,
    dry_run: bool,
    is_sure: bool,
) -> int:
    """Erase a person: from jobs, leads, kept answers, attempts and callbacks.

    What runs about that person alone is cancelled; a batch goes on without. A keyed hash of the
    address stays behind, so that whoever imports the person again gets the outcome suppressed.
    """
    address = parsed(email)
    if all_workspaces and invocation.workspace_given:
        raise click.UsageError("give --workspace or --all-workspaces, not both")
    return invocation.run(
        lambda: work(
            invocation,
            address,
            is_everywhere=all_workspaces,
            settle_s=SETTLE_S if settle_s is None else settle_s,
            is_dry=dry_run,
            is_sure=is_sure,
        )
    )


def parsed(email: str) -> Address:
    """Return the address, or raise Invalid saying why it is none."""
    address = parse_address(email)
    if isinstance(address, InvalidAddress):
        problem = f"{address.text!r} is no email address ({address.reason})"
        raise Invalid(f"--email: {problem}", fields=[FieldProblem("--email", problem)])
    return address


async def work(
    invocation: Invocation,
    address: Address,
    *,
    is_everywhere: bool,
    settle_s: float,
    is_dry: bool,
    is_sure: bool,
) -> int:
    """Count, ask, erase and tell; return the exit code."""
    async with invocation.session() as session:
        workspace = None if is_everywhere else session.workspace
        found: Erased | None = None
        if is_dry or not is_sure:
            found = await erasure_of(session, address, workspace, is_dry=True).run()
        if found is not None and not is_dry:
            place = "all workspaces" if workspace is None else f"workspace {workspace}"
            deed = f"This erases {address} from {place} for ever: {told(found)}."
            if not confirm(safe(deed), is_sure=is_sure, count=1):
                return DECLINED
        try:
            done = found
            if not is_dry or done is None:
                done = await erasure_of(session, address, workspace).run(settle_s=settle_s)
        finally:
            render.progress("")
    show(invocation, done, is_dry=is_dry)
    return 0


def erasure_of(
    session: Session, address: Address, workspace: str | None, *, is_dry: bool = False
) -> Erasure:
    """Return what does it, and says how far it is."""
    word = "found" if is_dry else "erased"
    return Erasure(
        session.database,
        Installation(session.database, session.settings),
        address,
        workspace_id=workspace,
        is_dry=is_dry,
        on_progress=lambda done: render.progress(f"{word}: {told(done)}"),
    )


def show(invocation: Invocation, done: Erased, *, is_dry: bool) -> None:
    """Print what was found or done."""
    if invocation.is_json:
        render.json_document(
            {
                "jobs": done.jobs,
                "cancelled": done.cancelled,
                "redactedJobs": done.redacted,
                "leads": done.leads,
                "rows": done.rows,
                "cachedAnswers": done.answers,
                "stillRunning": done.still_running,
                "isDryRun": is_dry,
            }
        )
        return
    if is_dry:
        render.line(f"would erase {told(done)}")
        return
    render.line(f"erased {told(done)}; from now on the address is suppressed")
    if done.still_running:
        click.echo(
            f"{counted(done.still_running, 'run')} that had begun before went on: run it again"
            " when they have ended, in case they had found the person already",
            err=True,
        )


def told(done: Erased) -> str:
    """Return the counts as words."""
    parts = [
        (done.jobs, "job", f" ({done.cancelled:,} of them not ended)" if done.cancelled else ""),
        (done.redacted, "job", " in part"),
        (done.leads, "lead", " of batches"),
        (done.rows, "row", " beside them"),
        (done.answers, "kept answer", ""),
    ]
    said = [counted(number, noun) + rest for number, noun, rest in parts if number]
    return ", ".join(said) or "nothing"


def counted(number: int, noun: str) -> str:
    """Return `1 job`, `2,000 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
