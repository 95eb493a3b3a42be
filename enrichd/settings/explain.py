"""How settings are shown to the person who wrote them: rows of what is in force, and what is wrong.

A secret appears in none of it, whichever way it was wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from enrichd.errors import FieldProblem, InvalidSetting
from enrichd.settings import values
from enrichd.settings.sources import Raw, is_secret

MASK = "********"


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One variable as it is in force, fit to be shown: secrets are masked."""

    name: str
    value: str
    """In the variable's own unit; empty if it is not set."""
    is_default: bool
    source: str
    """`default`, `command line`, `environment`, `.env line 3`, `enrichd.toml`.

    With `, file` behind it if a `…_FILE` variable named the file that holds the value.
    """


def shown_value(name: str, text: str, secrets: Collection[str]) -> str:
    """Show an accepted value; of a database address, all but the password."""
    if name in ("DATABASE_URL", "DATABASE_DIRECT_URL"):
        return values.shown(values.shown_database_url(text))
    return MASK if is_secret(name, secrets) else values.shown(text)


def wrong_value(
    name: str, raw: Raw | None, default: str | None, allowed: str, secrets: Collection[str]
) -> FieldProblem:
    """Say which value of a variable is wrong, where it stands and what it must be."""
    if raw is None:
        return FieldProblem(name, f"{default} (default) is not allowed; it must be {allowed}")
    value = MASK if is_secret(name, secrets) else f'"{values.shown(raw.text)}"'
    return FieldProblem(
        raw.written, f"{value} (from {raw.source}) is not allowed; it must be {allowed}"
    )


def invalid(problems: Sequence[FieldProblem]) -> InvalidSetting:
    """Put all problems of one start into one error, one on a line."""
    if len(problems) == 1:
        message = str(problems[0])
    else:
        message = "\n  ".join([f"{len(problems)} settings are wrong:", *map(str, problems)])
    return InvalidSetting(
        message, fields=problems, hint="docs/configuration.md lists every setting."
    )
