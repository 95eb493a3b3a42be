"""`enrichctl completion`: the script that makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from enrichd.ctl.invocation import Invocation, command

VARIABLE = "_ENRICHCTL_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@command(
    name="completion",
    epilog="Example: source <(enrichctl completion bash)",
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion_command(invocation: Invocation, shell: str) -> None:
    """Print the completion script of a shell.

    Commands, options, job types and states complete. Load the script at once, or put it where
    your shell looks for it; docs/command-line.md says where.
    """
    made = get_completion_class(shell)
    assert made is not None
    root = click.get_current_context().find_root()
    click.echo(made(root.command, {}, "enrichctl", VARIABLE).source())
