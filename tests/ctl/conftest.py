"""Running `enrichctl` in this process or as one of its own, on a fresh database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql
from psycopg.types.json import Jsonb
from uuid_utils.compat import uuid7

from enrichd.ctl.main import main

EMAILS = '{"emails": ["ada@example.com"]}'

# What a hostile provider may say: clipboard, screen, title, link, C1, bidi, zero width.
ESCAPES = (
    "\x1b]52;c;ZXZpbA==\x07\x1b[2J\x1b]0;t\x07\x1b]8;;http://e\x1b\\\x9b2J\u202egpj\u2066\u200b\r"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call of `enrichctl` ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The one JSON document on standard output."""
        return orjson.loads(self.stdout)

    @property
    def lines(self) -> list[Any]:
        """The JSON lines on standard output."""
        return [orjson.loads(line) for line in self.stdout.splitlines()]

    @property
    def error(self) -> Any:
        """The JSON error on standard error."""
        return orjson.loads(self.stderr)["error"]


Enrichctl = Callable[..., Ended]


@pytest.fixture
def clean_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Leave the settings of whoever runs the tests out of them."""
    for name in list(os.environ):
        if name.startswith(("ENRICHD_", "DATABASE_")) and name != "ENRICHD_TEST_DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, clean_settings: Path) -> Enrichctl:
    """Give `enrichctl(*words, stdin=…)` with the address of a database that is not there."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    return lambda *words, stdin=b"": call(monkeypatch, words, stdin)


@pytest.fixture
def enrichctl(
    monkeypatch: pytest.MonkeyPatch, clean_settings: Path, database_url: str
) -> Enrichctl:
    """Give `enrichctl(*words, stdin=…)`, run in this process on the test's database."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    return lambda *words, stdin=b"": call(monkeypatch, words, stdin)


def call(monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], stdin: bytes) -> Ended:
    with CliRunner().isolation(input=stdin) as (stdout, stderr, _):
        monkeypatch.setattr(sys, "argv", ["enrichctl", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        assert isinstance(code, int)
        return Ended(code, stdout.getvalue().decode(), stderr.getvalue().decode())


@pytest.fixture
def process(clean_settings: Path, database_url: str) -> Callable[..., subprocess.Popen[bytes]]:
    """Give `process(*words)`: the same as a process of its own, all its ends piped."""
    env = {**os.environ, "DATABASE_URL": database_url, "PYTHONWARNINGS": "error"}
    # The tests' runner fixes a size in its workers, which would hide a terminal's own.
    for name in ("COLUMNS", "LINES"):
        env.pop(name, None)

    def start(*words: str, **options: Any) -> subprocess.Popen[bytes]:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        command = [sys.executable, "-c", "from enrichd.ctl.main import main; main()", *words]
        return subprocess.Popen(command, env=env, **{**pipes, **options})

    return start


@pytest.fixture
def db(database_url: str) -> Iterator[psycopg.Connection]:
    """Give a plain connection to arrange and look at rows."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def a_job(db: psycopg.Connection) -> Callable[..., UUID]:
    """Give `a_job(status, …columns)`: a job in any state, by its id; a timedelta is so long ago."""

    def make(status: str = "pending", **columns: Any) -> UUID:
        row: dict[str, Any] = {
            "id": uuid7(),
            "type": "email_validation",
            "status": status,
            "payload": {"emails": ["ada@example.com"]},
        }
        if status in ("scheduled", "waiting"):
            row["scheduled_at"] = "2100-01-01T00:00:00Z"
        if status == "processing":
            row["worker_id"] = uuid7()
        if status in ("completed", "failed", "cancelled", "dead_letter"):
            row["completed_at"] = "now"
        row |= columns
        values = [Jsonb(v) if isinstance(v, dict) else v for v in row.values()]
        places = [sql.SQL("now() - %s" if isinstance(v, timedelta) else "%s") for v in values]
        db.execute(
            sql.SQL("insert into enrichment_jobs ({}) values ({})").format(
                sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(places)
            ),
            values,
        )
        return UUID(str(row["id"]))

    return make


@pytest.fixture
def states(db: psycopg.Connection) -> Callable[[], dict[UUID, str]]:
    """Give `states()`: every job's state by id."""
    return lambda: dict(db.execute("select id, status from enrichment_jobs").fetchall())
