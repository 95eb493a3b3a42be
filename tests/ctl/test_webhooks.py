"""`enrichctl webhooks`: endpoints, their secrets, their deliveries."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from standardwebhooks import Webhook as Verifier

from enrichd.webhooks.signing import key_of
from tests.e2e.linked import LinkedChild

URL = "https://93.184.216.34/hook"


@pytest.fixture
def an_endpoint(enrichctl):
    """Give `an_endpoint(…words)`: a new endpoint's document."""
    return lambda *words: enrichctl("webhooks", "add", URL, *words, "--json").document


@pytest.fixture
def a_delivery(db):
    """Give `a_delivery(endpoint, status)`: its id."""

    def make(endpoint, status="failed", data='{"a": 1}', age="0"):
        return str(
            db.execute(
                "insert into enrichment_webhook_deliveries"
                " (workspace_id, webhook_id, target, event, data, status, attempts, error,"
                "  created_at, finished_at)"
                " values ('default', %s, %s, 'job.completed', %s, %s, 10, 'timeout',"
                "         now() - %s::interval, now()) returning id",
                [endpoint["id"], endpoint["id"], data, status, age],
            ).fetchone()[0]
        )

    return make


def test_an_endpoint_is_added_and_its_secret_shown_once(enrichctl, db):
    shown = enrichctl("webhooks", "add", URL, "--event", "job.completed", "--description", "CRM")
    [listed] = enrichctl("webhooks", "list", "--json").lines

    assert shown.exit_code == 0
    secret = next(word for word in shown.stdout.split() if word.startswith("whsec_"))
    assert len(key_of(secret)) == 32
    assert (listed["url"], listed["events"]) == (URL, ["job.completed"])
    assert (listed["description"], listed["enabled"], listed["secrets"]) == ("CRM", True, 1)
    assert "secret" not in listed
    [(row,)] = db.execute("select row_to_json(hook)::text from enrichment_webhooks hook").fetchall()
    assert secret not in row
    assert secret.removeprefix("whsec_") not in row


@pytest.mark.parametrize(
    "url",
    [
        "http://93.184.216.34/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest",
        "https://localhost/",
        "https://93.184.216.34:22/",
        "https://me:pass@93.184.216.34/",
        "ftp://93.184.216.34/",
        "hook",
    ],
)
def test_what_webhooks_may_not_go_to_is_refused_when_it_is_given(enrichctl, url):
    ended = enrichctl("webhooks", "add", url, "--json")

    assert ended.exit_code == 2
    assert ended.error["code"] == "invalid"
    assert enrichctl("webhooks", "list", "--json").lines == []


def test_an_allowed_network_may_be_given(enrichctl, monkeypatch):
    monkeypatch.setenv("WEBHOOK_ALLOWED_NETWORKS", "127.0.0.0/8")

    assert enrichctl("webhooks", "add", "http://127.0.0.1:9999/hook").exit_code == 0


def test_a_secret_is_changed_with_an_overlap(enrichctl, an_endpoint):
    old = an_endpoint()
    new = enrichctl("webhooks", "rotate", old["id"], "--json").document
    now = enrichctl("webhooks", "rotate", old["id"], "--overlap", "0", "--json").document

    assert len({old["secret"], new["secret"], now["secret"]}) == 3
    assert (new["secrets"], now["secrets"]) == (2, 1)


def test_the_secret_of_jobs_urls_is_one_for_each_workspace(enrichctl):
    mine = enrichctl("webhooks", "secret").stdout.strip()

    assert len(key_of(mine)) == 32
    assert enrichctl("webhooks", "secret").stdout.strip() == mine
    assert enrichctl("webhooks", "secret", "-w", "other").stdout.strip() != mine


def test_an_endpoint_is_removed_with_its_log(enrichctl, an_endpoint, a_delivery, db):
    endpoint = an_endpoint()
    a_delivery(endpoint)

    assert enrichctl("webhooks", "remove", endpoint["id"]).exit_code == 2
    assert enrichctl("webhooks", "remove", endpoint["id"][:23], "--yes").exit_code == 0
    assert enrichctl("webhooks", "list", "--json").lines == []
    assert db.execute("select count(*) from enrichment_webhook_deliveries").fetchone() == (0,)


def test_another_workspaces_endpoint_is_not_there(enrichctl, an_endpoint):
    endpoint = an_endpoint()

    for words in (["remove", endpoint["id"], "--yes"], ["rotate", endpoint["id"]]):
        assert enrichctl("webhooks", *words, "-w", "other").exit_code == 3
    assert len(enrichctl("webhooks", "list", "--json").lines) == 1


def test_deliveries_are_listed_newest_first_and_filtered(enrichctl, an_endpoint, a_delivery):
    one, other = an_endpoint(), an_endpoint()
    first, second = a_delivery(one), a_delivery(one, "delivered")
    a_delivery(other)

    def ids(*words):
        lines = enrichctl("webhooks", "deliveries", *words, "--json").lines
        return [line["id"] for line in lines]

    assert ids("--webhook", one["id"]) == [second, first]
    assert ids("--webhook", one["id"], "--status", "failed") == [first]
    assert len(ids("--event", "job.completed")) == 3
    assert ids("--event", "job.failed") == []
    assert "timeout" in enrichctl("webhooks", "deliveries").stdout


def test_attempts_are_shown_one_by_one_with_what_was_answered(
    enrichctl, an_endpoint, a_delivery, db
):
    delivery_id = a_delivery(an_endpoint())
    db.execute(
        """
        update enrichment_webhook_deliveries
           set history = '[{"attempt": 1, "at": "2026-11-24T03:00:00+00:00", "answerStatus": 500,
                            "answer": "no\\nroom", "latencyMs": 12, "error": "http_500"},
                           {"attempt": 2, "at": "2026-11-24T03:00:06+00:00", "answerStatus": null,
                            "answer": null, "latencyMs": 1000, "error": "timeout"}]'
        """
    )

    shown = enrichctl("webhooks", "deliveries", "--attempts").stdout
    [listed] = enrichctl("webhooks", "deliveries", "--json").lines

    assert shown.splitlines()[0] == f"{delivery_id}  job.completed  failed  {URL}"
    assert [line.split() for line in shown.splitlines()[2:]] == [
        ["1", "2026-11-24", "03:00:00Z", "12", "ms", "http_500", "no", "room"],
        ["2", "2026-11-24", "03:00:06Z", "1000", "ms", "timeout"],
    ]
    assert [one["answer"] for one in listed["history"]] == ["no\nroom", None]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--failed"], 2),
        (["--failed", "--since", "1d"], 1),
        (["--since", "1d"], 2),
        (["--since", "3d", "--until", "1d"], 1),
    ],
)
def test_what_failed_or_a_range_is_sent_again(
    enrichctl, an_endpoint, a_delivery, db, words, expected
):
    endpoint = an_endpoint()
    a_delivery(endpoint)
    a_delivery(endpoint, age="2 days")
    a_delivery(endpoint, "delivered")

    assert enrichctl("webhooks", "replay", *words, "--json").document == {"replayed": expected}
    assert db.execute(
        "select count(*) from enrichment_webhook_deliveries"
        " where status = 'pending' and attempts = 0 and finished_at is null"
    ).fetchone() == (expected,)


def test_one_is_sent_again_by_its_id(enrichctl, an_endpoint, a_delivery):
    endpoint = an_endpoint()
    wanted = a_delivery(endpoint)
    a_delivery(endpoint)

    assert enrichctl("webhooks", "replay", wanted, "--json").document == {"replayed": 1}
    assert enrichctl("webhooks", "replay", "00000000", "--json").exit_code == 3
    assert enrichctl("webhooks", "replay").exit_code == 2


def test_what_was_pruned_or_has_no_receiver_is_not_sent_again(
    enrichctl, an_endpoint, a_delivery, db
):
    endpoint = an_endpoint()
    a_delivery(endpoint, data=None)
    assert enrichctl("webhooks", "replay", "--failed", "--json").document == {"replayed": 0}
    a_delivery(endpoint)
    db.execute(
        "update enrichment_webhooks set enabled = false, disabled_reason = 'manual',"
        " disabled_at = now()"
    )
    assert enrichctl("webhooks", "replay", "--failed", "--json").document == {"replayed": 0}


def test_a_test_that_nobody_sends_says_so(enrichctl, an_endpoint):
    ended = enrichctl("webhooks", "test", an_endpoint()["id"], "--timeout", "200ms")

    assert ended.exit_code == 1
    assert "is enrichd running?" in ended.stdout


@pytest.mark.parametrize(
    ("status", "exit_code", "words"), [(204, 0, "taken with 204"), (500, 1, "not taken: http_500")]
)
def test_a_test_event_goes_out_and_its_answer_is_told(
    enrichctl, database_url, monkeypatch, tmp_path, status, exit_code, words
):
    monkeypatch.setenv("WEBHOOK_ALLOWED_NETWORKS", "127.0.0.0/8")
    with a_receiver(status) as (port, got):
        url = f"http://127.0.0.1:{port}/hook"
        endpoint = enrichctl("webhooks", "add", url, "--json").document
        allowed = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8", "HEALTH_CHECK_PORT": "1"}
        with LinkedChild("housekeeper", database_url, tmp_path, **allowed):
            ended = enrichctl("webhooks", "test", endpoint["id"])

    assert (ended.exit_code, words in ended.stdout) == (exit_code, True), ended.stdout
    assert len(got) == 1
    assert Verifier(endpoint["secret"]).verify(*got[0])["type"] == "endpoint.test"


@contextlib.contextmanager
def a_receiver(status):
    """Give the port of a receiver that answers with a status, and what it got."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            got.append((body, {name.lower(): value for name, value in self.headers.items()}))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, got
        finally:
            server.shutdown()
            thread.join()
