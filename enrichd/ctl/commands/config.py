"""`enrichctl config`: the settings in force and where each came from."""

from __future__ import annotations

from enrichd.ctl import render
from enrichd.ctl.invocation import Invocation, command


@command(name="config", epilog="Example: enrichctl config --json")
def config_command(invocation: Invocation) -> None:
    """Show the settings in force and where each was set.

    What was changed stands first; secrets are masked. No database is needed.
    docs/configuration.md says what each setting means.
    """
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
