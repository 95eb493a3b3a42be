import asyncio
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from uuid_utils.compat import uuid7

from enrichd.ctl import database_checks, host_checks, queue_checks
from enrichd.ctl.checks import Status
from enrichd.settings import Settings
from enrichd.store.doctor import Clock, Horizon, Server, Table
from enrichd.store.stuck import HeldLane, Queue
from enrichd.store.workers import Worker
from tests.support.dns_server import DnsServer

NOW = datetime(2030, 1, 31, 8, tzinfo=UTC)
SERVER = Server(
    version=160004,
    is_standby=False,
    is_read_only=False,
    settings={
        "autovacuum": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "max_connections": "100",
        "shared_buffers": str(128 << 20),
        "superuser_reserved_connections": "3",
        "synchronous_commit": "on",
    },
    connections=5,
    backend_pid=7,
    client_pid=7,
    xid_age=1000,
)
HORIZON = Horizon(True, None, None, None, None, 0, 0, None, 0, None, None)
QUEUE = Queue(0, None, 0, 0, 0, 0, 0)
WORKER = Worker(uuid7(), "host-1", 7, "0.1.0", "running", 10, 3, 0, 0, NOW, NOW, 1.0)


@pytest.fixture
def resolver(monkeypatch):
    """Give a nameserver that knows the internet, set as the one to ask."""
    with DnsServer({"a.root-servers.net": {"A": ["198.41.0.4"]}}) as server:
        monkeypatch.setenv("DNS_SERVERS", server.address)
        yield server


def settings(tmp_path, **variables):
    return Settings.load(variables, directory=tmp_path)


def found(ended):
    return {check["name"]: check for check in ended.document["checks"]}


def bad(checks):
    return [(check.name, str(check.status)) for check in checks if check.status is not Status.OK]


# The command


def test_a_healthy_queue_passes(enrichctl, resolver, db):
    db.execute(
        "insert into enrichment_workers (id, host, pid, version, concurrency)"
        " values (%s, 'host-1', 77, '0.1.0', 10)",
        [uuid7()],
    )

    ended = enrichctl("doctor", "--json")

    assert ended.exit_code == 0
    assert ended.document["isHealthy"]
    # The tests' own server is fast and not durable.
    assert {n for n, c in found(ended).items() if c["status"] == "warn"} <= {
        "durability",
        "connections",
    }
    assert {"database", "listen", "migrations", "indexes", "clock_skew", "workers", "dns"} <= {
        name for name, check in found(ended).items() if check["status"] == "ok"
    }


def test_what_is_stuck_fails_with_what_to_do(enrichctl, resolver, a_job):
    a_job("processing")
    a_job("scheduled", scheduled_at="2020-01-01T00:00:00Z")

    ended = enrichctl("doctor")

    assert ended.exit_code == 1
    assert "1 jobs are processing without a live worker" in ended.stdout
    assert "1 scheduled jobs are due for over 60 s" in ended.stdout
    assert "→ A running enrichd does that" in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("2 failed, ")


def test_a_database_without_tables_is_said_once(enrichctl, resolver, db):
    db.execute("drop table enrichment_migrations")

    ended = enrichctl("doctor", "--json")

    assert found(ended)["migrations"]["hint"] == "Run: enrichctl db migrate"
    assert found(ended)["queue"]["status"] == "skip"
    assert ended.document["counts"]["fail"] == 1


def test_without_a_database_the_host_is_still_looked_at(offline, resolver):
    ended = offline("doctor", "--json")

    assert ended.exit_code == 1
    assert found(ended)["database"]["status"] == "fail"
    assert "Is PostgreSQL running" in found(ended)["database"]["hint"]
    assert found(ended)["dns"]["status"] == "ok"


def test_a_server_that_says_nothing_does_not_hold_it_up(offline, resolver, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("DATABASE_URL", f"postgresql://nobody@127.0.0.1:{port}/x")
        began = time.monotonic()
        ended = offline("doctor", "--json")

    assert time.monotonic() - began < 8
    assert "no answer within 3 s" in found(ended)["database"]["message"]


def test_no_password_and_no_key_is_printed(offline, resolver, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:canary-1@127.0.0.1:1/x")
    monkeypatch.setenv("HUNTER_API_KEY", "canary-2")

    ended = offline("doctor")

    assert "hunter; none for apollo" in ended.stdout
    assert "canary" not in ended.stdout + ended.stderr


def test_a_pooler_without_a_direct_address_is_told(tmp_path):
    url = "postgresql://me@127.0.0.1:6543/x"
    alone = settings(tmp_path, DATABASE_URL=url)
    both = settings(tmp_path, DATABASE_URL=url, DATABASE_DIRECT_URL=url.replace("6543", "5432"))

    assert database_checks.pooler(SERVER, alone).status is Status.WARN
    assert database_checks.pooler(SERVER, both).status is Status.OK


# PostgreSQL


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"version": 130011}, [("server_version", "fail")]),
        ({"is_standby": True}, [("primary", "fail")]),
        ({"is_read_only": True}, [("primary", "fail")]),
        ({"fsync": "off"}, [("durability", "warn")]),
        ({"synchronous_commit": "off"}, [("durability", "warn")]),
        ({"synchronous_commit": "local"}, []),
        ({"statement_timeout": "1000"}, [("timeouts", "warn")]),
        ({"statement_timeout": "60000"}, []),
        ({"idle_in_transaction_session_timeout": "100"}, [("timeouts", "warn")]),
        ({"autovacuum": "off"}, [("autovacuum", "warn")]),
        ({"shared_buffers": str(1 << 20)}, [("memory", "warn")]),
        ({"connections": 90}, [("connections", "warn")]),
        ({"connections": 97}, [("connections", "fail")]),
        ({"xid_age": 1_200_000_000}, [("wraparound", "warn")]),
        ({"xid_age": 1_900_000_000}, [("wraparound", "fail")]),
        ({"client_pid": 8}, [("pooler", "warn")]),
    ],
)
def test_a_setting_that_hurts_is_named(tmp_path, change, expected):
    fields = {name: value for name, value in change.items() if hasattr(SERVER, name)}
    values = {name: value for name, value in change.items() if name not in fields}
    server = replace(SERVER, settings={**SERVER.settings, **values}, **fields)

    assert bad(database_checks.server_checks(server, settings(tmp_path))) == expected


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        (Clock(0.4, 0.001), "ok"),
        (Clock(3.0, 2.5), "ok"),
        (Clock(-5.0, 0.001), "warn"),
        (Clock(400.0, 0.001), "fail"),
    ],
)
def test_a_skew_counts_only_beyond_what_the_network_blurs(clock, expected):
    assert database_checks.skew(clock).status == expected


def test_a_clock_that_is_behind_is_said_to_be():
    assert "this host is 5.0s behind" in database_checks.skew(Clock(5.0, 0.001)).message


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"transaction_s": 900.0, "transaction_pid": 7}, "transactions"),
        ({"snapshot_age": 5_000_000}, "transactions"),
        ({"slot": "replica", "slot_age": 5_000_000}, "replication_slots"),
        ({"prepared": "x", "prepared_s": 900.0}, "prepared_transactions"),
    ],
)
def test_what_holds_dead_rows_back_is_named(change, name):
    assert bad(database_checks.horizon_checks(HORIZON)) == []
    assert bad(database_checks.horizon_checks(replace(HORIZON, **change))) == [(name, "warn")]


def test_dead_rows_are_a_matter_of_number_and_share():
    few = Table("enrichment_jobs", 100, 5000, 1, 10.0, True)
    light = Table("enrichment_jobs", 1_000_000, 50_000, 1, 10.0, True)
    heavy = Table("enrichment_jobs", 100_000, 50_000, 1, None, False)

    assert bad(database_checks.table_checks([few, light])) == []
    assert bad(database_checks.table_checks([heavy])) == [
        ("dead_rows", "warn"),
        ("table_autovacuum", "warn"),
    ]


def test_an_index_that_is_missing_fails():
    check = database_checks.indexes({"a_due": False, "a_ready": True})

    assert check.status is Status.FAIL
    assert check.message.startswith("a_due is missing, a_ready is not valid")


# The queue


def test_ready_jobs_without_a_worker_fail_once_they_wait():
    def living(queue):
        return queue_checks.living([], queue).status

    assert living(QUEUE) == "warn"
    assert living(replace(QUEUE, ready=3, oldest_ready_s=1.0)) == "warn"
    assert living(replace(QUEUE, ready=3, oldest_ready_s=100.0)) == "fail"


def test_silent_workers_and_mixed_versions_are_told():
    workers = [WORKER, replace(WORKER, version="0.2.0"), replace(WORKER, silent_s=60.0)]

    assert bad(queue_checks.worker_checks(workers, QUEUE, 20.0)) == [
        ("stale_workers", "warn"),
        ("worker_versions", "warn"),
    ]


def test_types_that_no_worker_knows_are_named_with_what_to_do():
    check = queue_checks.type_check({"audit": 1_200, "enrich_led": 1})

    assert check.status is Status.FAIL
    assert "audit (1,200), enrich_led (1)" in check.message
    assert "ENRICHD_PLUGINS" in check.hint
    assert "enrichctl cancel --all --type" in check.hint
    assert queue_checks.type_check({}).status is Status.OK


def test_held_lanes_are_named_with_the_reason():
    check = queue_checks.lane_check([HeldLane("hunter", "open", 90.0, "5 of 5 failed")])

    assert (check.status, check.message) == ("warn", "hunter broken for 2m (5 of 5 failed)")


# The host


async def test_a_nameserver_that_is_not_there_is_told_by_its_reason():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

    check = await host_checks.names([f"127.0.0.1:{port}"])

    assert check.status is Status.WARN
    assert "(dns_connection_refused)" in check.message


async def test_port_25_is_tried_on_our_own_mail_server_only(tmp_path):
    zones = {
        "us.example": {"MX": ["10 mx.us.example."]},
        "mx.us.example": {"A": ["127.0.0.1"]},
    }
    with DnsServer(zones) as dns, socket.create_server(("127.0.0.1", 0)) as server:
        chosen = settings(
            tmp_path,
            SMTP_PROBE="on",
            SMTP_PROBE_FROM="probe@us.example",
            SMTP_PROBE_HELO="us.example",
            DNS_SERVERS=dns.address,
        )
        port = server.getsockname()[1]
        reached = await host_checks.mail_port(chosen, port=port)
        server.close()
        closed = await host_checks.mail_port(chosen, port=port)

    assert (reached.status, closed.status) == ("ok", "warn")
    assert "ConnectionRefusedError" in closed.message
    assert (await host_checks.mail_port(settings(tmp_path))).status is Status.SKIP


async def test_plugins_are_imported_apart(tmp_path, monkeypatch):
    (tmp_path / "fine_plugin.py").write_text("print('noise')")
    (tmp_path / "broken_plugin.py").write_text("1 / 0")
    (tmp_path / "leaving_plugin.py").write_text("import os; os._exit(3)")
    monkeypatch.syspath_prepend(str(tmp_path))

    fine, broken, leaving, missing = await asyncio.gather(
        *(
            host_checks.plugins([name], wait_s=30)
            for name in ("fine_plugin", "broken_plugin", "leaving_plugin", "no_plugin")
        )
    )

    assert fine.status is Status.OK
    assert "cannot import 'broken_plugin': ZeroDivisionError" in broken.message
    assert "ended the process with 3" in leaving.message
    assert "ModuleNotFoundError" in missing.message
    assert {broken.status, leaving.status, missing.status} == {Status.FAIL}


async def test_a_plugin_that_hangs_is_given_up(tmp_path, monkeypatch):
    (tmp_path / "hanging_plugin.py").write_text("import threading; threading.Event().wait()")
    monkeypatch.syspath_prepend(str(tmp_path))

    check = await host_checks.plugins(["hanging_plugin"], wait_s=0.3)

    assert check.status is Status.WARN


async def test_a_full_disk_fails_and_a_folder_to_come_is_judged_by_its_parent(
    tmp_path, monkeypatch
):
    folder = tmp_path / "not" / "there"
    assert (await host_checks.disk("data_disk", folder)).status is Status.OK

    monkeypatch.setattr(host_checks, "DISK_FREE_STOP", 1 << 60)

    assert (await host_checks.disk("data_disk", folder)).status is Status.FAIL


# Before a start


def test_a_good_configuration_is_said_to_be_one(offline):
    ended = offline("config", "check")

    assert ended.exit_code == 0
    assert ended.stdout.startswith("ok: 1 settings changed, none wrong")
    assert "Not checked:" in ended.stdout
    assert offline("config", "check", "--json").document["isValid"]


def test_a_configuration_that_does_not_start_exits_with_2(offline, monkeypatch):
    monkeypatch.setenv("ENRICHD_PLUGINS", "no_such_plugin")
    missing = offline("config", "check")
    monkeypatch.setenv("WORKER_COUNT", "many")
    monkeypatch.setenv("JOB_TIMEOUT", "long")
    wrong = offline("config", "check", "--json")

    assert (missing.exit_code, wrong.exit_code) == (2, 2)
    assert "cannot import 'no_such_plugin'" in missing.stderr
    assert {field["path"] for field in wrong.error["fields"]} == {"WORKER_COUNT", "JOB_TIMEOUT"}
