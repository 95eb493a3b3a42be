"""Asking before many things are changed or deleted."""

from __future__ import annotations

import sys

import click


def confirm(what: str, *, is_sure: bool, count: int, free: int = 0) -> bool:
    """Say whether to go on; `what` is the deed as a sentence: `This deletes 12 jobs.`

    A person at a terminal is asked unless `count` is at most `free`. Raises UsageError, with the
    sentence, where nobody can be asked: a script says --yes.
    """
    if is_sure:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"{what} Nothing was changed: add --yes to do it.")
    if count <= free:
        return True
    click.echo(what, err=True)
    if click.confirm("Go on?", err=True):
        return True
    click.echo("Nothing was changed.", err=True)
    return False
