"""The crontab and the timer that call another server: the line itself, run by a shell."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from enrichd.settings.model import DEFAULTS
from tests.api.conftest import Served, an_api
from tests.e2e.daemon import ROOT
from tests.support.factories import a_job

FOLDER = ROOT / "ecosystem/cron"
CRONTAB = (FOLDER / "crontab-call.example").read_text()
UNIT = (FOLDER / "enrichd-call.service").read_text()
SECRET = "a-secret-that-cron-knows"
SERVER = "https://enrichd.example.com"
SECRET_FILE = "/etc/enrichd/secrets/cron_header"


def line() -> str:
    """Return the command of the crontab's one line."""
    (found,) = re.findall(r"^[*] [*] [*] [*] [*] (.*)$", CRONTAB, re.MULTILINE)
    return str(found)


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[Served]:
    variables = {"CRON_SECRET": SECRET, "ENRICHD_PLUGINS": "tests.support.job_types"}
    async with an_api(database_url, **variables) as found:
        yield found


async def run(served: Served, folder: Path, secret: str) -> tuple[int, str]:
    """Run the line as cron does; return its exit code and what would be mailed."""
    header = folder / "cron_header"
    header.write_text(f"Authorization: Bearer {secret}\n")
    command = line().replace(SERVER, f"http://127.0.0.1:{served.port}")
    process = await asyncio.create_subprocess_shell(
        command.replace(SECRET_FILE, str(header)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
    )
    async with asyncio.timeout(30):
        said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_the_line_runs_the_queue_and_is_not_worth_a_mail(served, conn, tmp_path):
    await a_job(conn, type="nap", payload={"seconds": 0})

    assert await run(served, tmp_path, SECRET) == (0, "")
    cursor = await conn.execute("select status from enrichment_jobs")
    assert await cursor.fetchone() == ("completed",)


async def test_a_wrong_secret_is_worth_a_mail(served, tmp_path):
    code, mail = await run(served, tmp_path, "not-the-secret-of-this")

    assert code == 22
    assert "401" in mail


def test_the_secret_stands_in_a_file_and_never_in_the_command_line():
    assert f"--header @{SECRET_FILE} " in line()
    assert f"LoadCredential=cron_header:{SECRET_FILE}\n" in UNIT
    assert "Bearer" not in CRONTAB + UNIT


def test_the_timer_calls_what_the_crontab_calls():
    command = line().removesuffix(" >/dev/null").replace(SECRET_FILE, "%d/cron_header")

    assert f"ExecStart=/usr/bin/{command}\n" in UNIT


def test_the_caller_waits_for_longer_than_a_run_takes():
    (longest_s,) = re.findall(r"--max-time (\d+)", line())

    assert int(longest_s) >= int(DEFAULTS["PROCESS_TIMEOUT_MAX"] or 0) / 1000 + 15
