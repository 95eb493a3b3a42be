"""The documents say what there is, all of it, and nothing else."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import click
import pytest

from enrichd.ctl.invocation import GLOBAL_OPTIONS
from enrichd.ctl.main import COMMANDS, cli
from enrichd.settings import providers
from enrichd.settings.model import VARIABLES

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND_LINE = ROOT / "docs" / "command-line.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"

# Words that look like our variables in a document and are none: the tests', a shown mistake.
OTHERS_VARIABLES = {
    "ENRICHD_BENCH_DATABASE_URL",
    "ENRICHD_FAULT",
    "ENRICHD_TEST_DATABASE_URL",
    "WORKER_COUTN",
}
VARIABLE = re.compile(
    r"\b(?:[A-Z]+_)*(?:ENRICHD|DATABASE|WORKER|RETRY|RATE_LIMIT|WEBHOOK|SMTP_PROBE|HEALTH_CHECK"
    r"|HEARTBEAT|SUPABASE|LOG|DNS)_[A-Z_]+\b"
)
TABLE = re.compile(r"\benrichment_[a-z_]+\b")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
CODE_BLOCK = re.compile(r"```.*?```", re.DOTALL)
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
CALL = re.compile(r"enrichctl +(?:--?[\w-]+ +)*([a-z]\w*)([^\n`|]*)")


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def commands_by_path() -> dict[str, click.Command]:
    """Return every command by its words: `enrich`, `db migrate`."""
    found: dict[str, click.Command] = {}
    with click.Context(cli) as ctx:
        for name in COMMANDS:
            command = cli.get_command(ctx, name)
            assert command is not None
            found[name] = command
            if isinstance(command, click.Group):
                found |= {f"{name} {inner}": sub for inner, sub in command.commands.items()}
    return found


def options_of(command: click.Command) -> set[str]:
    """Return a command's own long options."""
    given = [p for p in command.params if isinstance(p, click.Option) and p not in GLOBAL_OPTIONS]
    return {name for option in given for name in option.opts if name.startswith("--")} - {"--help"}


def section(name: str) -> str:
    """Return a command's part of docs/command-line.md."""
    parts = re.split(r"^## ", text_of(COMMAND_LINE), flags=re.MULTILINE)
    for part in parts:
        if name in re.split(r", | and ", part.partition("\n")[0].replace("`", "")):
            return part
    pytest.fail(f"docs/command-line.md has no section on {name}")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_and_option_is_described(name):
    part = section(name)

    for path, command in commands_by_path().items():
        if path.split()[0] == name:
            assert f"enrichctl {path}" in part or f"`{path}`" in part
            assert not {option for option in options_of(command) if option not in part}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_option_that_is_named_exists(document):
    commands = commands_by_path()
    common = {name for option in GLOBAL_OPTIONS for name in option.opts} | {"--help", "--version"}
    calls = CALL.findall("\n".join(CODE.findall(text_of(document))))
    for word, rest in calls:
        assert word in COMMANDS, f"enrichctl {word}"
        options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", rest.partition(" && ")[0]))
        of_name = [c for path, c in commands.items() if path.split()[0] == word]
        assert options <= common.union(*map(options_of, of_name)), f"enrichctl {word}{rest}"


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_is_described(name):
    assert f"| `{name}` |" in text_of(CONFIGURATION)


@pytest.mark.parametrize("suffix", providers.SUFFIXES)
def test_every_variable_of_a_provider_is_described(suffix):
    assert f"| `<PROVIDER>_{suffix}` |" in text_of(CONFIGURATION)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_variable_that_is_named_exists(document):
    for word in set(VARIABLE.findall(text_of(document))) - OTHERS_VARIABLES:
        name = word.removesuffix("_FILE")
        assert name in VARIABLES or is_of_provider(name), word


def is_of_provider(name: str) -> bool:
    return any(name.endswith("_" + suffix) or name == suffix for suffix in providers.SUFFIXES)


def test_every_table_is_described_and_every_named_one_exists():
    migrations = "".join(
        path.read_text() for path in sorted((ROOT / "enrichd/store/migrations").glob("*.sql"))
    )
    made = set(
        re.findall(r"create (?:unlogged )?(?:table|view) (?:if not exists )?(\w+)", migrations)
    )
    functions = set(re.findall(r"create (?:or replace )?function (\w+)", migrations))
    # Made by migrate.py, before the first migration; and a topic of Supabase Realtime.
    keeper = {"enrichment_migrations", "enrichment_updates"}

    named = {word for path in DOCUMENTS for word in TABLE.findall(text_of(path))}

    assert made - named == set()
    assert named - made - functions - keeper == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for link in LINK.findall(CODE_BLOCK.sub("", text_of(document))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in {slug(heading) for heading in HEADING.findall(text_of(target))}, link


def slug(heading: str) -> str:
    """Return a heading's anchor as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_readme_has_two_commands_and_the_gate_runs_the_second():
    blocks = re.findall(r"```sh\n(.*?)```", text_of(ROOT / "README.md"), re.DOTALL)
    first, second = (block.strip() for block in blocks)

    assert first.endswith("enrichctl enrich docs/leads.csv --out enriched.csv")
    assert "\n" not in first + second
    gate = text_of(ROOT / ".ci/run")
    assert "readme_tests=$(grep -F '.venv/bin/pytest' README.md)" in gate
    assert [
        line for line in text_of(ROOT / "README.md").splitlines() if ".venv/bin/pytest" in line
    ] == [second]


def test_no_file_names_a_place_on_somebodys_machine():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    place = re.compile(r"(?<![\w.])/(?:work|home/\w+|Users/\w+|root)/")
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.suffix in {".md", ".toml", ".py", ".sql", ".sh", ".service", ""} and path.is_file():
            found = place.search(path.read_text(errors="replace"))
            assert found is None or path == Path(__file__), f"{name}: {found and found.group()}"
