"""`enrichctl`: the commands, and the one table from errors to exit codes."""

from __future__ import annotations

import asyncio
import difflib
import importlib
import json
import os
import sys
import traceback
from typing import Any, NoReturn

import click

from enrichd import __version__
from enrichd.ctl.invocation import GLOBAL_OPTIONS, Invocation
from enrichd.ctl.terminal import safe
from enrichd.errors import (
    EnrichdError,
    Invalid,
    NotFound,
    Refused,
    Unavailable,
)

EXIT_CODES: tuple[tuple[type[EnrichdError], int], ...] = (
    (Invalid, 2),
    (NotFound, 3),
    (Refused, 4),
    (Unavailable, 5),
    (EnrichdError, 1),
)
INTERRUPTED = 130

COMMANDS: dict[str, tuple[str, str]] = {
    "cancel": ("moves", "Cancel jobs that have not ended."),
    "completion": ("completion", "Print the completion script of a shell."),
    "config": ("config", "Show the settings in force and where each was set."),
    "db": ("db", "Bring the database up to date, or see how far it is."),
    "doctor": ("doctor", "Look for everything that keeps jobs from being run."),
    "enqueue": ("enqueue", "Put a job on the queue, or all jobs of a file."),
    "enrich": (
        "enrich",
        "Enrich a list of leads: CSV or JSON lines in, the same with results out.",
    ),
    "erase": ("erase", "Erase a person: from jobs, leads, kept answers, attempts and callbacks."),
    "keys": ("keys", "Make, list, revoke and rotate the API keys of a workspace."),
    "list": ("list", "List jobs, newest first."),
    "metrics": ("metrics", "Show job counts, the pace of the last hour, the workers."),
    "process": ("process", "Run jobs that are ready, until none is left or a bound is reached."),
    "providers": ("providers", "Show providers: keys, limits, use, credits, breakers."),
    "prune": ("prune", "Delete jobs that ended long ago."),
    "retry": ("moves", "Run failed, dead or cancelled jobs again."),
    "show": ("show", "Show everything about one job."),
    "top": ("top", "Watch what the workers are busy with, by lane and job type."),
    "wait": ("wait", "Wait until jobs have ended."),
    "watch": ("watch", "Watch the queue: states, pace, lanes, workers, recent errors."),
    "webhooks": ("webhooks", "Add webhook endpoints, see what they were sent, send it again."),
    "workers": ("workers", "List the worker processes of all hosts."),
}
"""Each command: its module under `ctl/commands`, imported when it is wanted, and its first line of
help, so that the list of all commands imports none of them (1 s before, 0.3 s now)."""


class Commands(click.Group):
    """The group of all commands; a module is imported when its command is named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every command's name, sorted."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module_name, _ = COMMANDS[cmd_name]
        module = importlib.import_module(f"enrichd.ctl.commands.{module_name}")
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from their first lines."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was probably meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {close[0]}?" if close else " See enrichctl --help."
            raise click.UsageError(f"no command {safe(args[0])!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: enrichctl enrich leads.csv --out enriched.csv",
)
@click.version_option(__version__, prog_name="enrichctl")
@click.pass_context
def cli(ctx: click.Context, /, **given: Any) -> None:
    """Enrich leads, and look after the queue that does it.

    Every command talks straight to PostgreSQL: the one DATABASE_URL names, or one that enrichctl
    brings along and starts by itself.
    """
    ctx.ensure_object(Invocation).take(given)


cli.params.extend(GLOBAL_OPTIONS)


def main() -> NoReturn:
    """Run `enrichctl` and exit: 0 done, 1 failed, 2 usage, 3 not found, 4 refused, 5 no server."""
    invocation = Invocation()
    try:
        code = cli.main(prog_name="enrichctl", standalone_mode=False, obj=invocation)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        code = report_usage(error, invocation)
    except EnrichdError as error:
        code = report(error, invocation)
    except (KeyboardInterrupt, asyncio.CancelledError, click.Abort):
        click.echo("interrupted", err=True)
        code = INTERRUPTED
    except BrokenPipeError:
        code = 0
    except Exception as error:  # noqa: BLE001 - the last stop: a person reads a sentence
        code = report_bug(error, invocation)
    leave(code if isinstance(code, int) else 0)


def leave(code: int) -> NoReturn:
    """Exit; a reader that closed its end of the pipe is not an error worth a traceback."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def report(error: EnrichdError, invocation: Invocation) -> int:
    """Print an error as one sentence and what to do; return its exit code."""
    if invocation.is_debug:
        traceback.print_exc()
    if invocation.is_json:
        click.echo(json.dumps({"error": error_json(error)}), err=True)
    else:
        click.echo(f"error: {safe(error.message, block=True)}", err=True)
        for part in error.fields if isinstance(error, Invalid) else ():
            if str(part) not in error.message and part.problem not in error.message:
                click.echo(f"  {safe(str(part))}", err=True)
        if error.hint:
            click.echo(safe(error.hint, block=True), err=True)
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def error_json(error: EnrichdError) -> dict[str, Any]:
    """Return an error's machine-readable shape."""
    fields = error.fields if isinstance(error, Invalid) else ()
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "fields": [{"path": part.path, "problem": part.problem} for part in fields],
    }


def report_usage(error: click.ClickException, invocation: Invocation) -> int:
    """Print what was wrong with the command's words; return 2."""
    if invocation.is_json:
        shape: dict[str, Any] = {
            "code": "usage",
            "message": error.format_message(),
            "hint": None,
            "fields": [],
        }
        click.echo(json.dumps({"error": shape}), err=True)
    else:
        click.echo(f"error: {safe(error.format_message())}", err=True)
        ctx = getattr(error, "ctx", None)
        if ctx is not None:
            click.echo(f"Try '{ctx.command_path} --help'.", err=True)
    return 2


def report_bug(error: Exception, invocation: Invocation) -> int:
    """Print an error nobody foresaw as one sentence; the traceback only with --debug. Return 1."""
    if invocation.is_debug:
        traceback.print_exc()
    text = f"{type(error).__name__}: {error}".partition("\n")[0]
    click.echo(f"error: {safe(text[:300])}", err=True)
    if not invocation.is_debug:
        click.echo("Run it again with --debug to see where.", err=True)
    return 1
