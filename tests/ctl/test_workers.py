import pytest
from uuid_utils.compat import uuid7

from tests.ctl.conftest import ESCAPES


@pytest.fixture
def a_worker(db):
    """Give `a_worker(host, …)`: a worker whose last heartbeat is `silent_s` old."""

    def make(host="host-1", *, state="running", silent_s=0.0, running=0):
        db.execute(
            "insert into enrichment_workers"
            " (id, host, pid, version, state, concurrency, running, heartbeat_at)"
            " values (%s, %s, 77, '0.1.0', %s, 10, %s, now() - make_interval(secs => %s))",
            [uuid7(), host, state, running, silent_s],
        )

    return make


def test_the_workers_of_all_hosts_are_listed_and_silent_ones_marked(enrichctl, a_worker):
    a_worker("host-1", running=3)
    a_worker("host-2", silent_s=60)
    a_worker("host-3", state="dead", silent_s=600)

    shown = enrichctl("workers")
    lines = enrichctl("workers", "--json").lines

    states = [line.split()[2] for line in shown.stdout.splitlines()[1:4]]
    assert states == ["running", "stale", "dead"]
    assert "1 alive, 3 of 10 places taken" in shown.stdout
    assert [(line["host"], line["isAlive"]) for line in lines] == [
        ("host-1", True),
        ("host-2", False),
        ("host-3", False),
    ]
    assert lines[0]["silentSeconds"] < 20 < lines[1]["silentSeconds"]
    assert shown.exit_code == 0


def test_no_workers_is_an_answer_and_not_a_failure(enrichctl):
    shown = enrichctl("workers")

    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.startswith("There are no workers.")
    assert enrichctl("workers", "--json").stdout == ""


def test_too_few_alive_is_a_failure_if_a_number_was_given(enrichctl, a_worker):
    a_worker()
    a_worker("host-2", silent_s=60)

    few = enrichctl("workers", "--min", "2")

    assert (few.exit_code, few.stderr) == (1, "1 of at least 2 workers alive\n")
    assert enrichctl("workers", "--min", "1").exit_code == 0


def test_a_hostile_host_name_is_shown_as_text(enrichctl, a_worker):
    a_worker(ESCAPES)

    shown = enrichctl("workers")

    assert "\\x1b]52" in shown.stdout
    assert shown.stdout.replace("\n", "").isprintable()
