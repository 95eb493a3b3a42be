import json
import uuid

import pytest

from enrichd.domain import payloads
from tests.ctl.conftest import EMAILS

JOB = {"type": "email_validation", "payload": {"emails": ["a@b.co"]}}


def lines_of(*jobs):
    return "".join(json.dumps(job) + "\n" for job in jobs).encode()


def test_a_job_is_enqueued_and_its_id_is_all_that_is_printed(enrichctl, states):
    ended = enrichctl("enqueue", "email_validation", "--payload", EMAILS)

    assert ended.exit_code == 0
    assert states() == {uuid.UUID(ended.stdout.strip()): "pending"}


def test_every_option_arrives(enrichctl, db):
    job_id = str(uuid.uuid4())

    ended = enrichctl(
        *["enqueue", "email_validation", "--payload", EMAILS, "--priority", "1"],
        *["--max-retries", "7", "--delay", "1h", "--tag", "a", "--tag", "b", "--id", job_id],
        *["--webhook-url", "https://example.com/hook", "--idempotency-key", "k"],
        *["--provider", "hunter", "-w", "ours", "--json"],
    )

    job = ended.document
    wanted = {
        "id": job_id,
        "isNew": True,
        "workspaceId": "ours",
        "status": "scheduled",
        "priority": 1,
        "maxRetries": 7,
        "tags": ["a", "b"],
        "webhookUrl": "https://example.com/hook",
        "idempotencyKey": "k",
        "providerId": "hunter",
    }
    assert {key: job[key] for key in wanted} == wanted
    (due,) = db.execute("select scheduled_at - created_at from enrichment_jobs").fetchone()
    assert due.total_seconds() == pytest.approx(3600, abs=1)


def test_an_idempotency_key_enqueues_once(enrichctl, states):
    words = ["enqueue", "email_validation", "--payload", EMAILS, "--idempotency-key", "k"]
    first = enrichctl(*words)

    second, third = enrichctl(*words), enrichctl(*words, "--json")

    assert second.exit_code == 0
    assert second.stdout == first.stdout
    assert "already there" in second.stderr
    assert third.document["isNew"] is False
    assert len(states()) == 1


def test_the_payload_comes_from_a_file_or_standard_input(enrichctl, states, tmp_path):
    path = tmp_path / "payload.json"
    path.write_bytes(b"\xef\xbb\xbf" + EMAILS.encode())

    ended = enrichctl("enqueue", "email_validation", "--payload", f"@{path}")
    again = enrichctl("enqueue", "email_validation", "--payload", "-", stdin=EMAILS.encode())

    assert (ended.exit_code, again.exit_code) == (0, 0)
    assert len(states()) == 2


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        ("", "is empty"),
        ('{"emails": ["a@b.co"}', "at line 1 column 21, near"),
        ("[1]", "must be a JSON object, not an array"),
        ("null", "must be a JSON object, not null"),
        ('"x"', "must be a JSON object, not text"),
        ('{"a": 1, "a": 2}', "has the key 'a' twice"),
        ('{"a": NaN}', "holds NaN"),
        ('{"a": 1e999}', "which is too large"),
        ('{"a": 12345678901234567890}', "does not fit 64 bits"),
        ('{"a": ' + "9" * 5000 + "}", "5,000 characters"),
        ("[" * 10_000, "nested too deep"),
        (r'{"emails": ["\u0000"]}', "NUL"),
        (r'{"emails": ["\ud800"]}', "surrogates"),
        ('{"emails": ["' + "a" * 1_100_000 + '"]}', "1,048,576 is the limit"),
        ('{"emails": [1], "mails": []}', "emails.0: "),
        ('{"emails": ["a@b.co"], "stopRule": {"minConfidence": 2}}', "stopRule.minConfidence: "),
        ("{}", "emails: Field required"),
        ("@/no/such/file", "cannot read /no/such/file: No such file"),
        ("@/dev/zero", "more than 8,388,608 bytes"),
    ],
)
def test_a_wrong_payload_is_refused_with_its_place(offline, payload, told):
    # No database is asked: what is wrong is wrong without one.
    ended = offline("enqueue", "email_validation", "--payload", "-", stdin=payload.encode())
    if payload.startswith("@"):
        ended = offline("enqueue", "email_validation", "--payload", payload)

    assert ended.exit_code == 2
    assert told in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--priority", "9"], "it must be 1 (highest) to 5 (lowest)"),
        (["--priority", "x"], "not a valid integer"),
        (["--max-retries", "101"], "it must be 0 to 100"),
        (["--delay", "5"], "write 5s, 5m, 5h or 5d"),
        (["--delay", "400d"], "366 days"),
        (["--at", "tomorrow"], "is not a time such as"),
        (["--at", "2030-01-01T00:00:00"], "it needs a time zone"),
        (["--at", "1999-01-01T00:00:00Z"], "between 2000 and 9999"),
        (["--at", "2030-01-01T00:00:00Z", "--delay", "1s"], "not both"),
        (["--tag", ""], "must have 1 to 100"),
        (["--webhook-url", "ftp://x"], "must be an http(s) URL"),
        (["--idempotency-key", "k" * 256], "1 to 255"),
        (["--id", "77"], "is not a UUID"),
        (["--priorty", "1"], "--priority"),
    ],
)
def test_a_wrong_option_is_refused(offline, words, told):
    ended = offline("enqueue", "email_validation", "--payload", EMAILS, *words)

    assert ended.exit_code == 2
    assert told in ended.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give a TYPE (single_lead_enrichment, "),
        (["email_validation"], "give --payload"),
        (["email_validaton", "--payload", "{}"], "Did you mean email_validation?"),
        (["email_validation", "--from", "x"], "--from takes no TYPE"),
        (["--from", "x", "--priority", "1"], "--from takes no TYPE and no job options"),
        (["--from", "/no/such"], "cannot read /no/such"),
    ],
)
def test_half_a_command_says_what_is_missing(offline, words, told):
    ended = offline("enqueue", *words)

    assert ended.exit_code == 2
    assert told in ended.stderr


def test_an_error_as_json_names_the_fields(offline):
    ended = offline("enqueue", "email_validation", "--payload", '{"mail": 1}', "--json")

    assert ended.error["code"] == "invalid_payload"
    assert {part["path"] for part in ended.error["fields"]} == {"emails", "mail"}


def test_an_id_that_another_workspace_has_is_refused(enrichctl, a_job):
    job_id = str(a_job(workspace_id="theirs"))

    ended = enrichctl("enqueue", "email_validation", "--payload", EMAILS, "--id", job_id)

    assert ended.exit_code == 2
    assert "is taken" in ended.stderr


def test_plug_ins_bring_job_types(enrichctl, clean_settings, monkeypatch):
    module = f"a_plugin_{uuid.uuid4().hex}"
    (clean_settings / f"{module}.py").write_text(
        "from pydantic import BaseModel\n"
        "from enrichd.plugin import job_type\n"
        "class Nap(BaseModel):\n    seconds: float\n"
        f"@job_type('{module}', Nap)\nasync def nap(payload, context):\n    return {{}}\n"
    )
    monkeypatch.syspath_prepend(str(clean_settings))
    monkeypatch.setenv("ENRICHD_PLUGINS", module)
    try:
        assert enrichctl("enqueue", module, "--payload", '{"seconds": 1}').exit_code == 0
        assert "seconds" in enrichctl("enqueue", module, "--payload", "{}").stderr
    finally:
        payloads.MODELS.pop(module, None)


def test_a_file_goes_in_as_a_whole(enrichctl, db, tmp_path):
    full = JOB | {
        "id": str(uuid.uuid4()),
        "workspaceId": "theirs",
        "priority": 2,
        "maxRetries": 0,
        "tags": ["t"],
        "webhookUrl": "https://example.com/",
        "idempotencyKey": "k",
        "delayMs": 60000,
        "providerId": "hunter",
    }
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(lines_of(JOB, full) + b"\n" + lines_of(JOB).rstrip())

    ended = enrichctl("enqueue", "--from", str(path))

    assert (ended.exit_code, ended.stdout) == (0, "enqueued 3 jobs\n")
    rows = db.execute(
        "select workspace_id, status, priority, max_retries, tags, provider_id"
        " from enrichment_jobs where idempotency_key = 'k'"
    ).fetchall()
    assert rows == [("theirs", "scheduled", 2, 0, ["t"], "hunter")]


def test_jobs_that_are_there_are_counted_apart(enrichctl, states):
    jobs = lines_of(JOB | {"idempotencyKey": "a"}, JOB | {"idempotencyKey": "b"})
    enrichctl("enqueue", "--from", "-", stdin=jobs)

    more = jobs + lines_of(JOB | {"idempotencyKey": "c"}, JOB | {"idempotencyKey": "c"})
    ended = enrichctl("enqueue", "--from", "-", "--json", stdin=more)

    assert ended.document == {"lines": 4, "new": 1, "alreadyThere": 3}
    assert len(states()) == 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"{", "is not JSON"),
        (b"7", "must be a JSON object, not a number"),
        (b'{"type": "email_validation"}', "has no payload"),
        (b'{"payload": {}}', "has no type"),
        (lines_of(JOB | {"priorty": 1}), "unknown key 'priorty'; did you mean priority?"),
        (lines_of(JOB | {"priority": "1"}), "priority must be a whole number, not text"),
        (lines_of(JOB | {"priority": True}), "priority must be a whole number, not true or false"),
        (lines_of(JOB | {"priority": 0}), "it must be 1 (highest) to 5 (lowest)"),
        (lines_of(JOB | {"tags": "x"}), "tags must be an array of texts, not text"),
        (lines_of(JOB | {"tags": [1]}), "tags.0: must be text"),
        (lines_of(JOB | {"id": "7"}), "id is '7'; it must be a UUID"),
        (lines_of(JOB | {"scheduledAt": "soon"}), "it must be a time such as"),
        (lines_of(JOB | {"delayMs": -1}), "delay: is -0.001 s"),
        (lines_of(JOB | {"type": "email_validaton"}), "Did you mean email_validation?"),
        (lines_of(JOB | {"payload": {"emails": []}}), "emails: "),
        (lines_of(JOB | {"payload": []}), "payload must be an object, not an array"),
        (b"\xff\n", "is not UTF-8 text (byte 1)"),
        (b'{"a": "' + b"x" * 2_200_000 + b'"}\n', "is longer than 2,097,152 bytes"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_goes_in(enrichctl, states, line, told):
    ended = enrichctl("enqueue", "--from", "-", stdin=lines_of(JOB) + line + b"\n")

    assert ended.exit_code == 2
    assert "line 2: " in ended.stderr
    assert told in ended.stderr
    assert states() == {}


def test_wrong_lines_far_into_a_file_roll_back_what_went_before(enrichctl, states):
    bad = JOB | {"priority": 9}

    ended = enrichctl("enqueue", "--from", "-", stdin=lines_of(*[JOB] * 2500, bad, JOB, bad))

    assert "2 wrong lines; nothing was enqueued" in ended.stderr
    assert "line 2501: " in ended.stderr
    assert "line 2503: " in ended.stderr
    assert states() == {}


def test_no_more_than_twenty_wrong_lines_are_told(offline):
    ended = offline("enqueue", "--from", "-", "--json", stdin=b"{\n" * 30)

    assert ended.exit_code == 2
    assert "more than 20 wrong lines" in ended.error["message"]
    assert len(ended.error["fields"]) == 20
