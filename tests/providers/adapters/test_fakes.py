"""The fake providers count, limit, bill and misbehave as the tests that rely on them believe."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.support.providers import faults, world
from tests.support.providers.clearbit import FakeClearbit, fake_clearbit
from tests.support.providers.hunter import FakeHunter, fake_hunter
from tests.support.providers.server import CallbackStyle, in_thread
from tests.support.providers.windows import Arrival, Arrivals, Kind, Limit, Meter

ROOT = Path(__file__).parents[3]
PERSON = "/people/find?email=ada.quill@northwind.example"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=5) as made:
        yield made


async def get(client: httpx.AsyncClient, hunter: FakeHunter, path: str = PERSON) -> httpx.Response:
    return await client.get(hunter.url + path, headers={"X-API-KEY": hunter.key})


def arrivals_at(*moments: float) -> Arrivals:
    return Arrivals(Arrival(at, "/x", "key", "ada") for at in moments)


@pytest.mark.parametrize(
    ("moments", "slack", "most"),
    [
        ((), 0, 0),
        ((1.0, 1.5, 2.0), 0, 2),  # a call just one window later is not in it
        ((1.0, 1.5, 1.999), 0, 3),
        ((1.0, 1.5, 1.999), 0.05, 2),
        ((0.9, 0.9, 1.1, 1.1), 0, 4),  # across a clock's second, where a fixed window sees two
        ((1.0, 9.0, 9.1, 9.2), 0, 3),
    ],
)
def test_the_most_calls_are_counted_in_any_window(moments, slack, most):
    assert arrivals_at(*moments).max_in_window(1.0, slack) == most


def test_arrivals_are_counted_by_path_and_key():
    arrivals = arrivals_at(1.0, 1.1)
    arrivals.append(Arrival(1.2, "/y", "other", "ada"))

    assert arrivals.max_in_window(1, path="/x") == 2
    assert arrivals.max_in_window(1, key="other") == 1


@pytest.mark.parametrize(
    ("kind", "moments", "refused"),
    [
        (Kind.FIXED, [0.8, 0.9, 0.95, 1.0, 1.1], [0.95]),
        (Kind.FIRST_REQUEST, [0.8, 0.9, 0.95, 1.0, 1.8], [0.95, 1.0]),
        (Kind.SLIDING, [0.8, 0.9, 1.85, 1.88, 2.95], [1.88]),
    ],
)
def test_a_window_begins_where_its_kind_says(kind, moments, refused):
    now = [0.0]
    meter = Meter({"/x": [Limit(2, 1.0, kind)]}, clock=lambda: now[0])
    over = []
    for now[0] in moments:
        if meter.count("key", "/x"):
            over.append(now[0])

    assert over == refused


def test_every_key_has_windows_of_its_own_and_paths_may_share_one():
    meter = Meter({"*": [Limit(1, 60)]}, clock=lambda: 30.0)

    assert meter.count("one", "/x") is None
    assert meter.count("two", "/x") is None
    over = meter.count("one", "/y")
    assert over is not None
    assert (over.used, over.left, over.reset_after_s) == (2, 0, 30.0)


async def test_calls_and_credits_are_counted_by_path_and_subject(client):
    async with fake_hunter() as hunter:
        await get(client, hunter)
        await get(client, hunter)
        await get(client, hunter, "/companies/find?domain=acme.example")

        assert hunter.calls == {"/people/find": 2, "/companies/find": 1}
        assert hunter.calls_by_subject["ada.quill@northwind.example"] == 2
        assert hunter.credits_by_subject["acme.example"] == 1
        assert hunter.credits_spent == 3


async def test_at_once_no_more_is_sold_than_was_paid_for(client):
    async with fake_hunter(balance=5, limits={}) as hunter:
        answers = await asyncio.gather(*(get(client, hunter) for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 15
    assert hunter.credits_spent == 5


async def test_the_same_question_has_the_same_answer_everywhere(client):
    async with fake_hunter() as one, fake_hunter() as other:
        assert (await get(client, one)).json() == (await get(client, other)).json()
    assert world.person_at("unknown.lee@acme.example") is None
    assert world.company_at("acme.com") is None


async def test_latency_is_waited_for(client):
    async with fake_hunter(latency_s=0.05) as hunter:
        begun = time.monotonic()
        await get(client, hunter)

    assert time.monotonic() - begun >= 0.05


async def test_scripted_faults_come_in_order_and_lasting_ones_until_they_are_lifted(client):
    async with fake_hunter() as hunter:
        hunter.script("/people/find", faults.status(503), faults.status(500))
        hunter.script("*", faults.status(418))
        hunter.always("/companies/find", faults.status(502))
        people = [(await get(client, hunter)).status_code for _ in range(4)]
        company = "/companies/find?domain=acme.example"
        companies = [(await get(client, hunter, company)).status_code for _ in range(2)]
        hunter.always("/companies/find", None)
        companies.append((await get(client, hunter, company)).status_code)

    assert people == [503, 500, 418, 200]
    assert companies == [502, 502, 200]


async def test_an_answer_is_held_until_a_test_lets_it_go(client):
    let_go = asyncio.Event()
    async with fake_hunter() as hunter, asyncio.TaskGroup() as group:
        hunter.script("/people/find", faults.held(let_go))
        waiting = group.create_task(get(client, hunter))
        assert (await get(client, hunter, "/account")).status_code == 200
        assert not waiting.done()
        let_go.set()
        assert (await waiting).status_code == 200


@pytest.mark.parametrize(
    ("style", "posts_before", "posts_after"),
    [
        (CallbackStyle.EARLY, 1, 1),
        (CallbackStyle.PROMPT, None, 1),
        (CallbackStyle.DUPLICATE, None, 2),
        (CallbackStyle.LATE, 0, 0),
        (CallbackStyle.NEVER, 0, 0),
    ],
)
async def test_a_callback_comes_when_its_style_says(client, style, posts_before, posts_after):
    async def take(request: web.Request) -> web.Response:
        posts.append(await request.read())
        return web.Response()

    posts: list[bytes] = []
    app = web.Application()
    app.router.add_post("/", take)
    async with TestServer(app) as receiver, fake_clearbit(callback_style=style) as clearbit:
        await client.get(
            clearbit.url + "/v2/people/find",
            params={"email": "later.lee@acme.example", "webhook_url": str(receiver.make_url("/"))},
            headers={"Authorization": f"Bearer {clearbit.key}"},
        )
        # Where it is posted right after the answer, it may be there already or not.
        assert posts_before in (None, len(posts))
        await clearbit.settle_callbacks()
        assert len(posts) == posts_after
        assert len(set(posts)) <= 1


async def test_a_callback_that_nobody_takes_is_noted(client):
    async with fake_clearbit() as clearbit:
        await client.get(
            clearbit.url + "/v2/people/find",
            params={"email": "later.lee@acme.example", "webhook_url": "http://127.0.0.1:9/"},
            headers={"Authorization": f"Bearer {clearbit.key}"},
        )
        await clearbit.settle_callbacks()

        assert clearbit.callbacks_sent == [("http://127.0.0.1:9/", "ClientConnectorError")]


def test_a_fake_runs_in_a_thread_for_those_without_a_loop():
    with in_thread(FakeClearbit) as clearbit:
        answer = httpx.get(clearbit.url + "/v2/companies/find?domain=acme.example")

    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "auth_required"
    assert answer.headers["x-ratelimit-limit"] == "600"


def test_all_of_them_run_from_the_command_line():
    command = [sys.executable, "-m", "tests.support.providers", "--limit-per-second", "1"]
    with subprocess.Popen(
        [*command, "hunter", "clearbit"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline().strip() for _ in range(4)]
            variables = dict(line.removeprefix("export ").split("=", 1) for line in lines)
            answer = httpx.get(
                variables["HUNTER_BASE_URL"] + PERSON,
                headers={"X-API-KEY": variables["HUNTER_API_KEY"]},
            )
            stats = httpx.get(variables["CLEARBIT_BASE_URL"] + "/_fake").json()
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=10)

    assert answer.status_code == 200
    assert stats["provider"] == "clearbit"
    assert '"/people/find": 1' in errors
