"""What `doctor` says of this host's limits and of Supabase Realtime."""

from __future__ import annotations

import resource
import socket

import pytest

from enrichd.ctl import host_checks
from enrichd.ctl.checks import Status
from enrichd.processing.children import raise_descriptors
from enrichd.settings import Settings
from tests.support.phoenix import phoenix


def settings(tmp_path, **variables):
    return Settings.load(variables, directory=tmp_path)


def test_few_descriptors_are_told(tmp_path, monkeypatch):
    many = settings(tmp_path, MAX_CONCURRENT_JOBS="10000")

    assert host_checks.descriptors(settings(tmp_path)).status is Status.OK
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    assert host_checks.descriptors(settings(tmp_path)).message == "4,096 allowed here"
    assert "MAX_CONCURRENT_JOBS may need 40,128" in host_checks.descriptors(many).message
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert "connections may need 2,176" in host_checks.descriptors(settings(tmp_path)).message


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (202, Status.OK, "takes broadcasts"),
        (422, Status.OK, "takes broadcasts"),
        (401, Status.WARN, "answer 401"),
        (500, Status.WARN, "answer 500"),
    ],
)
async def test_a_key_that_realtime_refuses_is_told(tmp_path, answer, status, words):
    async with phoenix() as server:
        server.answers.append((answer, {}))
        known = settings(
            tmp_path, SUPABASE_URL=server.url, SUPABASE_SERVICE_ROLE_KEY="sb_secret_canary"
        )
        check = await host_checks.realtime(known)

    assert (check.status, check.name) == (status, "realtime")
    assert words in check.message
    assert "canary" not in f"{check.message} {check.hint}"
    assert server.messages == []


async def test_realtime_that_is_away_or_not_wanted_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
    known = {"SUPABASE_URL": url, "SUPABASE_SERVICE_ROLE_KEY": "k"}

    assert (await host_checks.realtime(settings(tmp_path, **known))).status is Status.WARN
    off = settings(tmp_path, **known, SUPABASE_REALTIME="off")
    assert (await host_checks.realtime(off)).status is Status.SKIP
    assert (await host_checks.realtime(settings(tmp_path))).status is Status.SKIP


def test_a_process_of_the_daemon_may_open_what_the_host_lets_it(monkeypatch):
    asked = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))

    raise_descriptors()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    raise_descriptors()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100_000, 100_000))
    raise_descriptors()

    assert asked == [(4096, 4096), (65_536, resource.RLIM_INFINITY)]
