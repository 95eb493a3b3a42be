"""The group of all commands."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from enrichd.ctl.main import COMMANDS, cli


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_list_of_commands_says_what_each_one_says_of_itself(name):
    command = cli.get_command(click.Context(cli), name)

    assert command is not None
    assert (command.help or "").partition("\n\n")[0].replace("\n", " ") == COMMANDS[name][1]


def test_the_list_of_commands_imports_none_of_them():
    code = (
        "import sys; from click.testing import CliRunner; from enrichd.ctl.main import cli;"
        "answer = CliRunner().invoke(cli, ['--help']);"
        "assert 'enrich' in answer.output, answer.output;"
        "print([name for name in sys.modules if name.startswith('enrichd.ctl.commands.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
