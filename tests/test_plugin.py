"""Job types of others, loaded as ENRICHD_PLUGINS does it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from pydantic import BaseModel

from enrichd.client import enqueue_job
from enrichd.errors import InvalidPayload, InvalidSetting
from enrichd.handlers.registry import load_plugins
from enrichd.plugin import job_type
from enrichd.processing.processor import JobProcessor, Limits
from enrichd.store.database import Database
from tests.support import job_types

ROOT = Path(__file__).parents[1]

# Exactly the example of the documentation.
EXAMPLE = """
import asyncio
from pydantic import BaseModel
from enrichd.plugin import job_type, Snooze          # also Park, Cancelled, provider, JobContext

class Doze(BaseModel):
    seconds: float = 0.0

@job_type("doze", Doze)
async def doze(payload: Doze, context) -> dict:
    await asyncio.sleep(payload.seconds)
    return {"slept": payload.seconds}
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Give `module(name, source)`: a module that Python can import."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return write


@pytest.mark.queue
async def test_the_documented_example_works(module, database_url, conn):
    load_plugins([module("doze_plugin", EXAMPLE)])
    job_id = await enqueue_job("doze", {"seconds": 0.01}, database_url=database_url)
    hot, control = Database(database_url), Database(database_url)

    await JobProcessor(hot=hot, control=control).run(Limits(is_until_empty=True))

    await hot.close()
    await control.close()
    cursor = await conn.execute("select id, status, result from enrichment_jobs")
    assert await cursor.fetchone() == (job_id, "completed", {"slept": 0.01})


@pytest.mark.queue
def test_the_environment_makes_the_type_known_to_a_client(module, tmp_path, database_url):
    module("sleepers", EXAMPLE)
    subprocess.run(
        [sys.executable, "-c",
         "from enrichd.client import enqueue_job; enqueue_job('doze', {'seconds': 1})"],
        check=True, cwd=tmp_path, timeout=60,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}", "ENRICHD_PLUGINS": "sleepers",
             "DATABASE_URL": database_url, "PATH": "/usr/bin:/bin"},
    )  # fmt: skip

    with psycopg.connect(database_url) as conn:
        assert conn.execute("select type from enrichment_jobs").fetchone() == ("doze",)


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("broken_syntax", "def", "SyntaxError"),
        ("broken_import", "import no_such_module_at_all", "no_such_module_at_all"),
        ("broken_value", "raise RuntimeError('no license')", "no license"),
        (
            "taken_type",
            "from pydantic import BaseModel\nfrom enrichd.plugin import job_type\n"
            "class Mine(BaseModel): pass\n"
            "@job_type('email_validation', Mine)\nasync def mine(payload, context): return {}\n",
            "'email_validation' is registered already",
        ),
    ],
)
def test_a_broken_plug_in_is_named_with_what_is_wrong(module, name, source, said):
    module(name, source)
    with pytest.raises(InvalidSetting, match=f"ENRICHD_PLUGINS: cannot import '{name}'") as broken:
        load_plugins([name])
    assert said in str(broken.value)


def test_a_plug_in_that_does_not_exist_is_named():
    with pytest.raises(InvalidSetting, match="no_such_plug_in"):
        load_plugins(["no_such_plug_in"])


def test_loading_twice_is_no_harm():
    load_plugins(["tests.support.job_types", "tests.support.job_types"])


def test_two_types_may_share_a_model():
    assert job_types.nap is not job_types.blocking  # both take Nap


class Other(BaseModel):
    """A model of this test."""


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="'nap' is registered already"):

        @job_type("nap", Other)
        async def other(payload, context):
            return {}

    with pytest.raises(ValueError, match="'nap' has a handler already"):

        @job_type("nap", job_types.Nap)
        async def nap(payload, context):
            return {}


async def test_unknown_fields_are_the_models_business():
    with pytest.raises(InvalidPayload, match="secconds"):
        await enqueue_job("nap", {"secconds": 1}, database_url="postgresql://127.0.0.1:1/x")
