"""The folder for Vercel: found as an application, within the platform's limits, called by its cron.

The rules and limits are those of Vercel's own Python runtime and of its check of `vercel.json`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import re
import time
import tomllib
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import httpx
import jsonschema
import pytest

from enrichd.api.routes import ROUTES
from enrichd.api.routing import Access
from enrichd.settings.model import DEFAULTS
from tests.api.test_asgi import restored_logs
from tests.e2e.daemon import ROOT
from tests.support import job_types
from tests.support.asgi import served_by
from tests.support.factories import a_job

__all__ = ["restored_logs"]

FOLDER = ROOT / "ecosystem/vercel"
SECRET = "a-secret-that-cron-knows"
RESERVE_S = 15
"""What a function keeps for handing back its jobs, below the platform's limit."""

SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["functions", "crons"],
    "not": {"required": ["builds"]},
    "properties": {
        "$schema": {"type": "string"},
        "functions": {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 50,
            "propertyNames": {"minLength": 1, "maxLength": 256},
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    # Plans allow 300 s and 800 s; the check itself lets 1,800 s through.
                    "maxDuration": {"type": "integer", "minimum": 1, "maximum": 300},
                    "memory": {"type": "integer", "minimum": 128, "maximum": 10240},
                    "includeFiles": {"type": "string", "maxLength": 256},
                    "excludeFiles": {"type": "string", "maxLength": 256},
                },
            },
        },
        "rewrites": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["source", "destination"],
                "properties": {"source": {"pattern": "^/"}, "destination": {"pattern": "^/"}},
            },
        },
        "crons": {
            "type": "array",
            "maxItems": 20,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["path", "schedule"],
                "properties": {
                    "path": {"type": "string", "pattern": "^/.*", "maxLength": 512},
                    "schedule": {"type": "string", "minLength": 9, "maxLength": 256},
                },
            },
        },
    },
}


@pytest.fixture(autouse=True)
def fresh_job_types():
    job_types.reset()


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "vercel.json").read_text())
    return found


@pytest.fixture
def entry(monkeypatch, database_url) -> ModuleType:
    """Give the entry point, imported as the platform does, with the project's environment."""
    for name, value in {
        "DATABASE_URL": database_url,
        "CRON_SECRET": SECRET,
        "ENRICHD_PLUGINS": "tests.support.job_types",
        "LOG_LEVEL": "critical",
        "MAX_CONCURRENT_JOBS": "5",
    }.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("vercel_index", FOLDER / "api/index.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_entry_is_taken_for_an_asgi_application(entry):
    """The runtime's rule: no `handler` of the http module, no `.asgi`, three positional ones."""
    parameters = inspect.signature(entry.app).parameters.values()
    positional = [
        one
        for one in parameters
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) and one.default is one.empty
    ]

    assert not hasattr(entry, "handler")
    assert not hasattr(entry.app, "asgi")
    assert inspect.iscoroutinefunction(entry.app)
    assert len(positional) == len(parameters) == 3


def test_the_configuration_is_within_the_limits(config):
    jsonschema.Draft202012Validator(SCHEMA).validate(config)


@pytest.mark.parametrize(
    "broken",
    [
        {"builds": []},
        {"functions": {"api/index.py": {"maxDuration": 301}}},
        {"functions": {"api/index.py": {"maxDuration": "300"}}},
        {"crons": [{"path": "api", "schedule": "*/5 * * * *"}]},
        {"crons": [{"path": "/api", "schedule": "* *"}]},
        {"crons": [{"path": "/api", "schedule": "*/5 * * * *", "method": "POST"}]},
    ],
)
def test_the_limits_are_limits(config, broken):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate({**config, **broken})


def test_every_function_is_a_file_and_every_path_leads_to_it(config):
    (function,) = config["functions"]
    (rewrite,) = config["rewrites"]

    assert (FOLDER / function).is_file()
    assert rewrite["destination"] == "/" + function.removesuffix(".py")
    for path in ("/", "/health", "/api/enrichment/jobs", "/api/enrichment/process"):
        assert re.fullmatch(rewrite["source"], path)


def test_the_cron_gets_a_route_that_wants_its_secret(config):
    (cron,) = config["crons"]

    (route,) = (one for one in ROUTES if one.template == cron["path"] and one.method == "GET")
    assert route.access is Access.CRON
    assert len(cron["schedule"].split()) == 5


def test_a_run_ends_well_before_the_function_is_killed(config):
    (function,) = config["functions"].values()

    run_s = int(DEFAULTS["PROCESS_TIMEOUT_MAX"] or 0) / 1000
    assert run_s + RESERVE_S <= function["maxDuration"]


def test_the_project_wants_enrichd_and_a_python_that_the_platform_has():
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())
    source = project["tool"]["uv"]["sources"]["enrichd"]["path"]

    assert project["project"]["dependencies"] == ["enrichd"]
    assert project["project"]["requires-python"] == ">=3.12"
    assert (FOLDER / source).resolve() == ROOT


# Called as Vercel's cron calls: GET, these headers, no redirect followed, twice or late at times.


@pytest.fixture(params=["uvicorn", "hypercorn"])
async def cron(request, entry, config) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        served_by(request.param, entry.app) as port,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={
                "User-Agent": "vercel-cron/1.0",
                "x-vercel-cron-schedule": config["crons"][0]["schedule"],
                "Authorization": f"Bearer {SECRET}",
            },
            follow_redirects=False,
            timeout=30,
        ) as client,
    ):
        yield client


async def call(cron: httpx.AsyncClient, config: dict[str, Any], **query: str) -> dict[str, int]:
    answer = await cron.get(config["crons"][0]["path"], params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    counts: dict[str, int] = answer.json()
    return counts


async def test_late_double_and_overlapping_calls_run_each_job_once(cron, config, conn):
    for _ in range(60):
        await a_job(conn, type="nap", payload={"seconds": 0.01})

    overlapping = await asyncio.gather(*(call(cron, config) for _ in range(3)))
    late = await call(cron, config)

    assert sum(counts["completed"] for counts in overlapping) == 60
    assert late["claimed"] == 0
    cursor = await conn.execute("select count(*) from enrichment_job_attempts")
    assert await cursor.fetchone() == (60,)


async def test_a_call_is_over_at_its_deadline_and_the_next_goes_on(cron, config, conn):
    await a_job(conn, type="batch", payload={"keys": ["a", "b"], "wait_at": "b"})
    began = time.monotonic()

    cut = await call(cron, config, timeout="1s")
    assert time.monotonic() - began < 6
    await conn.execute("update enrichment_jobs set payload = payload - 'wait_at'")
    whole = await call(cron, config)

    assert (cut["released"], whole["completed"]) == (1, 1)
    cursor = await conn.execute("select attempts, crashes from enrichment_jobs")
    assert await cursor.fetchone() == (1, 0)


async def test_the_user_agent_alone_opens_nothing(cron, config, conn):
    job = await a_job(conn, type="nap", payload={"seconds": 0})
    headers = {"Authorization": "", "User-Agent": "vercel-cron/1.0"}

    answer = await cron.get(config["crons"][0]["path"], headers=headers)

    assert answer.status_code == 401
    cursor = await conn.execute("select status from enrichment_jobs where id = %s", (job.id,))
    assert await cursor.fetchone() == ("pending",)
