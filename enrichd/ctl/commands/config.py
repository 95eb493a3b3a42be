"""`enrichctl config [check]`: the settings in force, where each came from, whether they will do."""

from __future__ import annotations

import asyncio

import click

from enrichd.ctl import host_checks, render
from enrichd.ctl.checks import Status
from enrichd.ctl.invocation import Invocation, command
from enrichd.errors import InvalidSetting, Unavailable
from enrichd.settings import Settings

PLUGIN_WAIT_S = 60.0
NOT_CHECKED = (
    "whether PostgreSQL, the name servers and the providers can be reached (enrichctl doctor)",
    "whether keys and passwords are right",
    "whether HEALTH_CHECK_PORT is free",
)


@command(name="config", epilog="Example: enrichctl config check")
@click.argument("action", type=click.Choice(["check"]), required=False)
def config_command(invocation: Invocation, action: str | None) -> None:
    """Show the settings in force and where each was set.

    What was changed stands first; secrets are masked. No database is needed. `config check` says
    instead whether enrichd would start with them, and exits with 2 if not.
    docs/configuration.md says what each setting means.
    """
    if action is None:
        show(invocation)
    else:
        check(invocation)


def check(invocation: Invocation) -> None:
    """Say whether the daemon would start. Raises InvalidSetting that names all that is wrong."""
    settings = invocation.settings
    plugins = asyncio.run(host_checks.plugins(settings.plugins, wait_s=PLUGIN_WAIT_S))
    if plugins.status is Status.FAIL:
        raise InvalidSetting(plugins.message, hint=plugins.hint)
    server = embedded_version(settings)
    warnings = [*settings.warnings]
    if plugins.status is Status.WARN:
        warnings.append(plugins.message)
        click.echo(f"warning: {plugins.message}", err=True)
    if invocation.is_json:
        render.json_document(
            {
                "isValid": True,
                "warnings": warnings,
                "plugins": list(settings.plugins),
                "embeddedServer": server,
                "notChecked": list(NOT_CHECKED),
            }
        )
        return
    changed = sum(not row.is_default for row in settings.in_force())
    render.line(f"ok: {changed} settings changed, none wrong")
    render.line(f"plug-ins: {plugins.message}")
    if server is not None:
        render.line(f"database: the embedded server, PostgreSQL {server}, in {settings.data_dir}")
    render.line("")
    render.line("Not checked:")
    render.fields([("-", text) for text in NOT_CHECKED])


def embedded_version(settings: Settings) -> int | None:
    """Return the major version the embedded server would have, None if it is not used.

    Raises InvalidSetting if it is not installed, or not of the version its data needs.
    """
    if settings.database_url is not None:
        return None
    from enrichd.store.server_binaries import find_binaries

    try:
        return find_binaries(settings.data_dir / "postgresql").major
    except Unavailable as error:
        raise InvalidSetting(error.message, hint=error.hint) from error


def show(invocation: Invocation) -> None:
    """Print every setting."""
    settings = invocation.settings
    rows = sorted(settings.in_force(), key=lambda row: row.is_default)
    if invocation.is_json:
        render.json_document(
            {
                "settings": [
                    {
                        "name": row.name,
                        "value": row.value or None,
                        "source": row.source,
                        "isDefault": row.is_default,
                    }
                    for row in rows
                ],
                "warnings": list(settings.warnings),
            }
        )
        return
    changed = [row for row in rows if not row.is_default]
    shown = [[row.name, row.value or "(not set)", row.source] for row in rows]
    if changed:
        render.line("Changed")
        render.table(["Name", "Value", "From"], shown[: len(changed)], whole=[0, 2], wrap=[1])
        render.line("")
    render.line("As they come")
    render.table(["Name", "Value"], [row[:2] for row in shown[len(changed) :]], wrap=[1])
