"""`/metrics`: the queue as it stands, and files of every kind of brokenness."""

from __future__ import annotations

import struct
from pathlib import Path

import psycopg
import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.parser import text_string_to_metric_families

from enrichd import metrics
from enrichd.gateway.metrics_page import KeptCollector
from enrichd.metrics import labels
from enrichd.metrics.files import is_readable
from enrichd.store import health
from tests.gateway.conftest import a_gateway, samples, value
from tests.support.factories import a_job, a_worker, pending_jobs


@pytest.fixture
def known_providers(monkeypatch):
    """Let hunter stand on the page, in this test alone."""
    monkeypatch.setitem(labels._learnt, "provider", {"-": None, "hunter": None})


async def test_the_queue_by_lane_and_status(gateway, conn, known_providers):
    worker = await a_worker(conn)
    await pending_jobs(conn, 7, provider_id="hunter")
    await pending_jobs(conn, 3, provider_id="hunter", priority=1)
    await a_job(conn, status="scheduled", provider_id="hunter", scheduled_in_s=-30)
    await a_job(conn, status="waiting")
    await a_job(conn, status="processing", worker_id=worker.id)
    for status in ("completed", "failed", "cancelled", "dead_letter"):
        await a_job(conn, status=status)
    await pending_jobs(conn, 2, provider_id="jane.doe@example.com")
    await conn.execute("update enrichment_jobs set updated_at = now() - interval '90 seconds'")
    await conn.execute(
        "insert into enrichment_provider_state (provider_id, breaker) values ('hunter', 'open')"
    )

    page = (await gateway.get("/metrics")).text

    depths = {
        (dict(found)["lane"], dict(found)["status"]): number
        for (name, found), number in samples(page).items()
        if name == "enrichd_queue_depth"
    }
    assert depths == {
        ("hunter", "pending"): 10,
        ("hunter", "scheduled"): 1,
        ("-", "pending"): 0,
        ("-", "waiting"): 1,
        ("-", "processing"): 1,
        ("other", "pending"): 2,
    }
    age_s = value(page, "enrichd_oldest_ready_age_seconds", lane="hunter")
    assert age_s is not None
    assert 90 <= age_s < 100
    due_s = value(page, "enrichd_oldest_due_age_seconds")
    assert due_s is not None
    assert 30 <= due_s < 40
    assert value(page, "enrichd_lane_blocked", lane="hunter") == 1
    assert value(page, "enrichd_provider_breaker", provider="hunter") == 2
    assert value(page, "enrichd_lane_blocked", lane="-") == 0
    assert value(page, "enrichd_workers", state="running") == 1
    assert "example.com" not in page


async def test_silent_workers_have_no_slots(gateway, conn):
    await a_worker(conn)
    silent = await a_worker(conn)
    await conn.execute(
        "update enrichment_workers set heartbeat_at = now() - interval '1 minute' where id = %s",
        [silent.id],
    )

    page = (await gateway.get("/metrics")).text

    assert value(page, "enrichd_workers", state="silent") == 1
    assert value(page, "enrichd_worker_slots") == 10


async def test_the_page_is_there_without_the_database(unused_tcp_port):
    async with a_gateway(f"postgresql://127.0.0.1:{unused_tcp_port}/none") as gateway:
        answer = await gateway.get("/metrics")

    assert answer.status_code == 200
    assert value(answer.text, "enrichd_scrape_error", source="database") == 1
    assert value(answer.text, "enrichd_queue_depth", lane="-", status="pending") is None


async def test_finished_jobs_cost_the_page_nothing(gateway, conn):
    await pending_jobs(conn, 50)
    await conn.execute(
        """
        insert into enrichment_jobs (id, workspace_id, type, status, provider_id, payload,
                                     completed_at)
        select enrichment_uuid7(), 'ws', 'nap', 'completed', '-', '{}', now()
          from generate_series(1, 200000)
        """
    )
    # No `analyze`: the plans must be right while the planner's figures are old, too.
    values = {"pending_max": 100_000, "heads": 100, "others_max": 10_000}
    for name in ("READY", "OTHERS", "OLDEST_DUE"):
        cursor = await conn.execute(
            "explain (analyze, buffers, format json) " + getattr(health, name), values
        )
        row = await cursor.fetchone()
        plan = row[0][0]["Plan"]
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 200, (name, plan)

    page = (await gateway.get("/metrics")).text

    assert value(page, "enrichd_queue_depth", lane="-", status="pending") == 50


async def test_a_count_stops_at_its_limit(conn):
    await pending_jobs(conn, 300)
    cursor = await conn.execute(health.READY, {"pending_max": 100, "heads": 10})

    assert [(lane, jobs) for lane, jobs, _ in await cursor.fetchall()] == [("-", 100)]


# Files


def a_counter_file(folder: Path, slot: str = "0", count: float = 5.0) -> Path:
    """Write a counter file as a process does."""
    file = folder / f"counter_{slot}.db"
    book = MmapedDict(str(file))
    name = "enrichd_jobs_claimed_total"
    key = mmap_key("enrichd_jobs_claimed", name, ["type"], ["nap"], "Jobs taken by workers.")
    book.write_value(key, count, 0.0)
    book.close()
    return file


def read(folder: Path) -> tuple[float, int]:
    """Return the sum of the files, and how many of them cannot be read."""
    kept = KeptCollector(folder)
    total = sum(sample.value for family in kept.collect() for sample in family.samples)
    return total, kept.unreadable


def test_files_of_all_slots_are_added_up(tmp_path):
    a_counter_file(tmp_path, "0", 5.0)
    a_counter_file(tmp_path, "supervisor", 2.0)

    assert read(tmp_path) == (7.0, 0)


BROKEN = {
    "empty": b"",
    "one byte": b"\x01",
    "no numbers": struct.pack("ii", 64, 0),
    "used beyond the end": struct.pack("ii", 1 << 30, 0) + bytes(100),
    "negative use": struct.pack("ii", -5, 0) + bytes(100),
    "an entry that leads back": struct.pack("iii", 100, 0, -100) + bytes(100),
    "an entry of no length": struct.pack("iii", 100, 0, 0) + bytes(100),
    "an entry beyond the end": struct.pack("iii", 40, 0, 1000) + bytes(28),
    "a key that is no text": struct.pack("iii", 40, 0, 12) + b"\xff" * 12 + bytes(16),
    "a key that is no list": struct.pack("iii", 40, 0, 12) + b'"abcdefghij"' + bytes(16),
    "a key of numbers": struct.pack("iii", 40, 0, 12) + b"[1,2,{},444]" + bytes(16),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_left_out_and_counted(tmp_path, broken):
    a_counter_file(tmp_path, "0")
    (tmp_path / "counter_1.db").write_bytes(broken)

    assert read(tmp_path) == (5.0, 1)


def test_a_file_cut_off_at_any_byte_is_left_out(tmp_path):
    whole = a_counter_file(tmp_path).read_bytes()
    (used,) = struct.unpack_from("i", whole)
    part = tmp_path / "counter_1.db"

    for length in range(used):
        part.write_bytes(whole[:length])
        assert not is_readable(part), length
    part.write_bytes(whole[:used])
    assert is_readable(part)


def test_a_reserved_file_is_no_error(tmp_path):
    a_counter_file(tmp_path)
    (tmp_path / "histogram_0.db").write_bytes(bytes(4096))

    assert read(tmp_path) == (5.0, 0)


@pytest.mark.parametrize("name", ["stray.db", "gauge_0.db", "gauge_odd_0.db", "a_b_c_d.db"])
def test_a_stray_file_is_left_out(tmp_path, name):
    a_counter_file(tmp_path).rename(tmp_path / name)

    assert read(tmp_path) == (0.0, 1)


# A gateway in a process of its own


def test_the_page_of_a_real_daemon(start_gateway, database_url, tmp_path):
    gateway = start_gateway(database_url, folder=tmp_path / "metrics")
    gateway.get("/livez")
    (tmp_path / "metrics" / "counter_9.db").write_bytes(b"broken")

    page = gateway.get("/metrics").text

    assert value(page, "enrichd_http_requests_total", route="/livez", status="2xx") == 1
    assert value(page, "enrichd_scrape_error", source="files") == 1
    assert value(page, "enrichd_scrape_error", source="metrics") == 0
    # What has not happened yet is there, at zero, so that its first time is seen as an increase.
    assert value(page, "enrichd_jobs_completed_total", type="nap") == 0
    assert value(page, "enrichd_job_run_seconds_count", type="nap") == 0
    assert value(page, "enrichd_metrics_folder_free_bytes") or 0 > 0


def test_the_page_shows_declared_metrics_only_and_every_one_that_is_kept(
    start_gateway, database_url, tmp_path
):
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("insert into enrichment_lanes (provider_id, priority) values ('-', 3)")
        conn.execute(
            "insert into enrichment_jobs (workspace_id, id, type, payload)"
            " values ('acme', enrichment_uuid7(), 'nap', '{}')"
        )
        conn.execute(
            "insert into enrichment_workers (id, host, pid, version, concurrency)"
            " values (enrichment_uuid7(), 'private-host', 1, '0', 10)"
        )
    page = start_gateway(database_url, folder=tmp_path / "metrics").get("/metrics").text

    families = list(text_string_to_metric_families(page))
    declared = {metric.family: metric for metric in metrics.METRICS}
    assert {family.name for family in families} == set(declared)
    for family in families:
        assert (family.type, family.documentation) == (
            declared[family.name].kind,
            declared[family.name].help,
        )
    assert "private-host" not in page
    assert "acme" not in page
