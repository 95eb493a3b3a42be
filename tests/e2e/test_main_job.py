"""The main job from the outside: `enrichctl enrich` as a process, interrupted, killed, crowded."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

import psycopg
import pytest

from enrichd.store import server_process
from tests.support import postgres
from tests.support.dns_server import DnsServer
from tests.support.processes import (
    NO_NETWORK,
    Running,
    peak_memory,
    plain_environment,
    until,
)
from tests.support.sites import PAGES, Sites

GO_ON = "Run the same command again to go on: what is finished is not done twice."
BROTWERK = """<!doctype html><html lang="de"><head><title>Brotwerk – Bäckerei in Köln</title>
<meta property="og:site_name" content="Brotwerk"><meta name="description" content="Brot seit 1990.">
</head><body><h1>Brot</h1><footer>
<a href="https://www.instagram.com/brotwerk">Instagram</a>
<a href="https://www.linkedin.com/company/brotwerk/">LinkedIn</a>
<a href="tel:+4930901820">030 901820</a></footer></body></html>"""


@pytest.fixture
def env(tmp_path, database_url):
    """Give the environment of somebody with a database, and no way to the internet."""
    return plain_environment(tmp_path, DATABASE_URL=database_url, **NO_NETWORK)


@pytest.fixture
def start(tmp_path, env):
    """Give `start(*words)`: `enrichctl` as a process in the test's folder, ended with the test."""
    started = []

    def run(*words, **options):
        running = Running(words, options.pop("env", env), tmp_path, cwd=tmp_path, **options)
        started.append(running.process)
        return running

    yield run
    for process in started:
        if process.returncode is None:
            process.kill()
            process.wait()


@pytest.fixture
def db(database_url):
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield conn


@pytest.fixture(scope="module")
def home():
    """Give the home of somebody who has nothing: the embedded server's data will be in it."""
    # Not under pytest's own folders, which only root may enter, as the server does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="enrichd-home-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def a_list(path: Path, rows: int, first: int = 0) -> Path:
    """Write a list whose addresses are all broken, so that it needs no network."""
    lines = (f"Person {n},p{n}@@x" for n in range(first, first + rows))
    path.write_text("\n".join(["name,email", *lines, ""]))
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def ended_jobs(db: psycopg.Connection, status: str = "completed") -> int:
    row = db.execute("select count(*) from enrichment_jobs where status = %s", (status,)).fetchone()
    assert row is not None
    return int(row[0])


# A machine with no database and no keys.


def test_with_nothing_set_up_a_list_is_enriched_and_its_jobs_stay(home, start, tmp_path):
    nothing_set = plain_environment(home, **NO_NETWORK)
    a_list(tmp_path / "leads.csv", 20)

    ended = start("enrich", "leads.csv", "--out", "enriched.csv", env=nothing_set).end()

    assert ended.exit_code == 0, ended.stderr
    assert "Wrote 20 rows to enriched.csv" in ended.stderr
    assert [row["email"] for row in table(tmp_path / "enriched.csv")] == [
        f"p{number}@@x" for number in range(20)
    ]
    listed = start("list", "--json", "--limit", "100", env=nothing_set).end()
    assert [json.loads(line)["status"] for line in listed.stdout.splitlines()] == ["completed"] * 20
    assert not list(home.rglob("postmaster.pid")), "the server ends with its last user"


def test_two_at_once_share_the_embedded_server(home, start, tmp_path):
    nothing_set = plain_environment(home, **NO_NETWORK)
    a_list(tmp_path / "a.csv", 1_000, first=1_000)
    a_list(tmp_path / "b.csv", 1_000, first=5_000)

    runs = [
        start("enrich", "a.csv", "--out", "a1.csv", env=nothing_set),
        start("enrich", "a.csv", "--out", "a2.csv", env=nothing_set),
        start("enrich", "b.csv", "--out", "b1.csv", env=nothing_set),
    ]
    assert [run.end().exit_code for run in runs] == [0, 0, 0]

    assert (tmp_path / "a1.csv").read_bytes() == (tmp_path / "a2.csv").read_bytes()
    assert len(table(tmp_path / "b1.csv")) == 1_000
    lines = start("list", "--json", "--limit", "9000", env=nothing_set).end().stdout.splitlines()
    assert len(lines) >= 2_000
    assert {json.loads(line)["attempts"] for line in lines} == {1}, "each lead once"


def test_killed_it_goes_on_from_there(home, start, tmp_path):
    nothing_set = plain_environment(
        home, HEARTBEAT_INTERVAL="300", WORKER_TIMEOUT="1000", **NO_NETWORK
    )
    a_list(tmp_path / "leads.csv", 400, first=10_000)
    words = ("enrich", "leads.csv", "--out", "enriched.csv")
    running = start(*words, env=nothing_set)
    partial = tmp_path / "enriched.csv.partial"
    until(lambda: partial.exists() and partial.stat().st_size > 0)

    running.signal(signal.SIGKILL)
    assert running.end().exit_code == -signal.SIGKILL
    assert not (tmp_path / "enriched.csv").exists()

    ended = start(*words, "--json", env=nothing_set).end()
    assert ended.exit_code == 0, ended.stderr
    assert ended.document["rows"] == len(table(tmp_path / "enriched.csv")) == 400
    assert ended.document["knownJobs"] > 50, "what was finished is not done twice"
    assert not partial.exists()


# Interrupted.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_how_to_go_on_and_goes_on(start, tmp_path, db, number):
    a_list(tmp_path / "leads.csv", 5_000)
    (tmp_path / "out.csv").write_text("precious")
    words = ("enrich", "leads.csv", "--out", "out.csv")
    running = start(*words)
    until(lambda: ended_jobs(db) > 500)

    running.signal(number)
    ended = running.end(within_s=15)

    assert ended.exit_code == 130
    assert GO_ON in ended.stderr
    assert (tmp_path / "out.csv").read_text() == "precious"
    assert not (tmp_path / "out.csv.partial").exists()
    assert ended_jobs(db, "processing") == 0, "what ran is given back"

    ended = start(*words).end()
    assert ended.exit_code == 0
    assert len(table(tmp_path / "out.csv")) == 5_000
    attempts = db.execute("select distinct attempts from enrichment_jobs").fetchall()
    assert attempts == [(1,)], "nothing was done twice, and the interruption cost nothing"


def test_interrupted_with_fresh_it_does_not_promise_to_go_on(start, tmp_path, db):
    a_list(tmp_path / "leads.csv", 5_000)
    running = start("enrich", "leads.csv", "--out", "out.csv", "--fresh")
    until(lambda: ended_jobs(db) > 100)

    running.signal(signal.SIGINT)

    assert "to begin anew, as --fresh says" in running.end(within_s=15).stderr


def test_interrupted_twice_it_ends_at_once(start, tmp_path, db):
    a_list(tmp_path / "leads.csv", 5_000)
    running = start("enrich", "leads.csv", "--out", "out.csv")
    until(lambda: ended_jobs(db) > 100)

    running.signal(signal.SIGINT)
    until(lambda: "stopping" in running.stderr or running.process.poll() is not None)
    running.signal(signal.SIGINT)
    ended = running.end(within_s=10)

    assert ended.exit_code in (130, -signal.SIGINT)
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out.csv").exists()


def test_a_silent_pipe_holds_up_neither_the_rows_before_nor_ctrl_c(start, tmp_path, db):
    # More than the first block, which is waited for to find out how the list is written.
    rows = a_list(tmp_path / "leads.csv", 5_000).read_bytes()
    running = start("enrich", "-", "--out", "-", stdin=subprocess.PIPE)
    assert running.process.stdin is not None
    with running.process.stdin as pipe:
        pipe.write(rows)
        pipe.flush()
        until(lambda: ended_jobs(db) > 4_900)

        running.signal(signal.SIGINT)
        ended = running.end(within_s=15)

    assert ended.exit_code == 130
    assert ended.stdout.count("\n") > 4_000
    assert GO_ON in ended.stderr


def test_a_reader_that_has_seen_enough_is_no_error(start, tmp_path):
    a_list(tmp_path / "leads.csv", 5_000)
    running = start("enrich", "leads.csv", "--out", "-", stdout=subprocess.PIPE)
    assert running.process.stdout is not None
    with running.process.stdout as pipe:
        assert pipe.readline().startswith(b"name,email,enriched_outcome")

    ended = running.end(within_s=15)
    assert (ended.exit_code, ended.stderr) == (0, "")


def test_a_full_disk_is_told_in_a_sentence_and_leaves_the_old_file(start, tmp_path):
    a_list(tmp_path / "leads.csv", 2_000)
    (tmp_path / "out.csv").write_text("precious")

    ended = start(
        "enrich",
        "leads.csv",
        "--out",
        "out.csv",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    ).end()

    assert ended.exit_code == 2
    assert ended.stderr.startswith("error: There is no room left to write out.csv")
    assert (tmp_path / "out.csv").read_text() == "precious"
    assert not (tmp_path / "out.csv.partial").exists()


class HeldBack(DnsServer):
    """Answers nobody until the gate is open."""

    gate = threading.Event()

    def respond(self, wire, transport):
        self.gate.wait(30)
        return super().respond(wire, transport)


def test_jobs_that_somebody_prunes_meanwhile_are_done_again(start, tmp_path, env, db):
    broken = "".join(f"p{number}@@x\n" for number in range(20))
    (tmp_path / "leads.csv").write_text(f"email\nslow@acme.example\n{broken}")
    with HeldBack({}) as dns:
        running = start(
            "enrich", "leads.csv", "--out", "out.csv", env={**env, "DNS_SERVERS": dns.address}
        )
        until(lambda: ended_jobs(db) == 20)
        db.execute("delete from enrichment_jobs where status = 'completed'")
        until(lambda: ended_jobs(db) == 20)
        dns.gate.set()
        ended = running.end()

    assert ended.exit_code == 0, ended.stderr
    assert len(table(tmp_path / "out.csv")) == 21


# PostgreSQL goes away.


@pytest.fixture(scope="module")
def own_server():
    """Give a PostgreSQL that a test may stop and start."""
    folder = Path(tempfile.mkdtemp(prefix="enrichd-tests-own-"))
    folder.chmod(0o755)
    with postgres.throw_away_server(folder / "server") as server:
        yield server
    shutil.rmtree(folder, ignore_errors=True)


def test_it_outlasts_a_stop_of_postgresql(own_server, start, tmp_path):
    env = plain_environment(tmp_path, DATABASE_URL=own_server.dsn, **NO_NETWORK)
    a_list(tmp_path / "leads.csv", 5_000)
    running = start("enrich", "leads.csv", "--out", "out.csv", "--json", env=env)
    partial = tmp_path / "out.csv.partial"
    until(lambda: partial.exists() and partial.stat().st_size > 100_000)

    pid_file = own_server.data_dir / "postmaster.pid"
    os.kill(int(pid_file.read_text().split()[0]), signal.SIGINT)
    until(lambda: not pid_file.exists())
    until(lambda: "database_away" in running.stderr)
    assert running.process.poll() is None
    server_process.ensure_running(own_server._cluster, postgres.THROW_AWAY)

    ended = running.end()
    assert ended.exit_code == 0, ended.stderr
    assert ended.document["outcomes"] == {"notFound": 5_000}
    assert len(table(tmp_path / "out.csv")) == 5_000


# What it needs, and what it shows.


def test_its_memory_is_measured_without_that_of_whoever_started_it(start):
    held = b"x" * 300_000_000
    assert 0 < start("--help").end().peak_bytes < len(held)


def test_rows_of_a_megabyte_do_not_fill_the_memory(start, tmp_path):
    with (tmp_path / "leads.csv").open("w") as file:
        file.write("email," + ",".join(f"note{n}" for n in range(9)) + "\n")
        for number in range(150):
            file.write(f"p{number}@@x" + (",x" + "y" * 100_000) * 9 + "\n")

    ended = start("enrich", "leads.csv", "--out", "out.csv", "--fields", "outcome").end()

    assert ended.exit_code == 0, ended.stderr
    assert (tmp_path / "out.csv").stat().st_size > 130_000_000
    assert 0 < ended.peak_bytes < 180_000_000


@pytest.mark.slow
def test_the_memory_does_not_grow_with_the_list(start, tmp_path):
    a_list(tmp_path / "leads.csv", 100_000)
    partial = tmp_path / "out.csv.partial"
    running = start("enrich", "leads.csv", "--out", "out.csv")
    until(lambda: partial.exists() and partial.read_bytes().count(b"\n") > 20_000, within_s=120)
    peak_of_20_000 = peak_memory(running.process.pid)

    ended = running.end(within_s=300)
    assert ended.exit_code == 0, ended.stderr
    assert len(table(tmp_path / "out.csv")) == 100_000
    assert 0 < ended.peak_bytes < 160_000_000
    assert ended.peak_bytes < peak_of_20_000 * 1.25


def test_a_terminal_gets_a_bar_with_rate_and_time_left(start, tmp_path, env):
    a_list(tmp_path / "leads.csv", 3_000)
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    shown = b""
    running = start(
        "enrich", "leads.csv", "--out", "out.csv", stderr=theirs, env={**env, "TERM": "xterm"}
    )
    os.close(theirs)

    def is_over():
        nonlocal shown
        try:
            shown += os.read(ours, 65_536)
        except BlockingIOError:
            return False
        except OSError:  # the other side was closed
            return True
        return False

    try:
        until(is_over)
    finally:
        os.close(ours)
    assert running.end().exit_code == 0
    assert re.search(rb"enriching .*\d/3,000 +[\d,]+/s .*\d\d:\d\d", shown)
    assert b"Wrote 3,000 rows" in shown


# Real names, real websites.


def can_listen_on_80() -> bool:
    try:
        socket.create_server(("127.0.0.80", 80)).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not can_listen_on_80(), reason="needs to listen on 127.0.0.80:80")
async def test_company_facts_and_social_profiles_come_from_the_companies_own_websites(
    start, tmp_path, env, eventually
):
    site = {"A": ["127.0.0.80"], "MX": ["10 mail.brotwerk.example."]}
    zones = {
        "brotwerk.example": site,
        "www.brotwerk.example": site,
        "northwind.example": {"A": ["127.0.0.80"]},
        "mail.brotwerk.example": {"A": ["192.0.2.25"]},
    }
    (tmp_path / "leads.csv").write_text(
        "Vorname,E-Mail,Webseite\nAnna,anna@brotwerk.example,\n,,https://northwind.example/shop\n"
    )
    with DnsServer(zones) as dns:
        env |= {"DNS_SERVERS": dns.address, "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}
        async with Sites(host="127.0.0.80", port=80) as sites:
            northwind = (
                (PAGES / "graph.html").read_text().replace("graph.test", "northwind.example")
            )
            sites.add("northwind.example/", northwind)
            sites.add("brotwerk.example/", BROTWERK)
            running = start("enrich", "leads.csv", "--out", "out.csv", "--fields", "all", env=env)

            async def has_ended():
                return running.process.poll() is not None

            await eventually(has_ended, 30)
    assert running.process.returncode == 0, running.stderr
    anna, shop = (results_of(row) for row in table(tmp_path / "out.csv"))
    assert {name: anna.get(name) for name in ANNA} == ANNA
    assert {name: shop.get(name) for name in NORTHWIND} == NORTHWIND
    assert anna["email_verdict"] != "invalid"


ANNA = {
    "email": "anna@brotwerk.example",
    "email_reasons": "mx_ok",
    "company_name": "Brotwerk",
    "company_domain": "brotwerk.example",
    "company_description": "Brot seit 1990.",
    "company_phone": "+4930901820",
    "company_linkedin_url": "https://www.linkedin.com/company/brotwerk",
    "company_instagram_url": "https://www.instagram.com/brotwerk",
}
NORTHWIND = {
    "company_name": "Northwind Traders",
    "company_legal_name": "Northwind Traders Ltd",
    "company_description": "Fine goods & spices.",
    "company_employees": "160",
    "company_founded_year": "1996",
    "company_street": "1 Quay Street",
    "company_city": "London",
    "company_country": "GB",
    "company_email": "hello@northwind.example",
    "company_linkedin_url": "https://www.linkedin.com/company/northwind",
    "company_x_url": "https://x.com/northwind",
    "company_github_url": "https://github.com/northwind",
}


def results_of(row: dict[str, str]) -> dict[str, str]:
    """Return the added columns that hold something, but for what is missing."""
    return {
        name.removeprefix("enriched_"): value
        for name, value in row.items()
        if name.startswith("enriched_") and value and name != "enriched_missing"
    }
