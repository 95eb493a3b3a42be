import os
import subprocess
import sys

import click
import pytest

from enrichd.ctl.main import COMMANDS, cli


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_calls_enrichctl(offline, shell):
    ended = offline("completion", shell)

    assert ended.exit_code == 0
    assert f"_ENRICHCTL_COMPLETE={shell}_complete" in ended.stdout


def test_another_shell_is_a_usage_error(offline):
    assert offline("completion", "tcsh").exit_code == 2


@pytest.mark.parametrize(
    ("words", "last", "found"),
    [
        (["enrichctl"], "comp", {"completion"}),
        (["enrichctl", "list", "--status"], "dead", {"dead_letter"}),
        (["enrichctl", "list", "--status"], "failed,c", {"failed,completed", "failed,cancelled"}),
        (["enrichctl", "prune", "--status"], "p", set()),
        (["enrichctl", "enqueue"], "em", {"email_validation"}),
        (["enrichctl", "list", "--type"], "co", {"company_data_update"}),
        (["enrichctl", "completion"], "z", {"zsh"}),
    ],
)
def test_words_complete(words, last, found):
    env = os.environ | {
        "_ENRICHCTL_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join([*words, last]),
        "COMP_CWORD": str(len(words)),
    }
    done = subprocess.run(
        [sys.executable, "-c", "from enrichd.ctl.main import main; main()"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {line.partition(",")[2] for line in done.stdout.splitlines() if line} == found


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_a_sentence_and_an_example(name):
    command = cli.get_command(click.Context(cli), name)

    assert command is not None
    assert command.get_short_help_str(100).endswith(".")
    assert not command.get_short_help_str(100).endswith("...")
    assert "Example" in (command.epilog or "")


def test_global_options_stand_before_or_after_the_command(offline):
    for words in (["--json", "config"], ["config", "--json"]):
        assert "settings" in offline(*words).document
