"""`enrichctl providers`: how they stand; keys that nobody reads along, breakers, budgets."""

from __future__ import annotations

import base64
import os
import pty
import re
import subprocess
from decimal import Decimal

import pytest

from tests.ctl.conftest import ESCAPES

SECRET = f"k1:{base64.b64encode(b'1' * 32).decode()}"
NEWER = f"k2:{base64.b64encode(b'2' * 32).decode()}"
KEY = "hk_live_0123456789abcdef"


@pytest.fixture
def secrets(monkeypatch):
    """Give `secrets(text)`: set ENRICHD_SECRET_KEYS."""
    for name in ("HUNTER_API_KEY", "APOLLO_API_KEY", "PDL_API_KEY", "CLEARBIT_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    return lambda text: monkeypatch.setenv("ENRICHD_SECRET_KEYS", text)


def standing(enrichctl, *words):
    return {line["providerId"]: line for line in enrichctl("providers", "--json", *words).lines}


@pytest.fixture
def used(db):
    """Give `used(provider, …)`: what was asked of it today."""

    def make(provider="hunter", workspace="default", **numbers):
        columns = {"calls": 0, "answered": 0, "cache_hits": 0, "credits": 0} | numbers
        db.execute(
            "insert into enrichment_provider_use"
            " (day, workspace_id, provider_id, operation, calls, answered, cache_hits, credits)"
            " values ((now() at time zone 'utc')::date, %s, %s, 'findEmail', %s, %s, %s, %s)",
            [workspace, provider, *columns.values()],
        )

    return make


def test_every_provider_is_shown_with_its_key_limits_use_and_credits(
    enrichctl, secrets, used, db, monkeypatch
):
    monkeypatch.setenv("HUNTER_API_KEY", "common-key")
    monkeypatch.setenv("HUNTER_RATE_LIMIT_PER_DAY", "5000")
    used(calls=8, answered=4, cache_hits=2, credits=Decimal("6.5"))
    used(workspace="theirs", calls=100)
    db.execute(
        "insert into enrichment_provider_state (provider_id, credits_left) values ('hunter', 487)"
    )

    found = standing(enrichctl)

    assert {"hunter", "apollo", "pdl", "clearbit"} <= found.keys()
    assert "builtin" not in found
    hunter = found["hunter"]
    assert (hunter["credential"], hunter["key"], found["pdl"]["key"]) == (
        "hunter",
        "set",
        "missing",
    )
    assert hunter["today"]["calls"] == 8
    assert (hunter["cacheHitRate"], hunter["costPerResult"]) == (0.2, 1.625)
    assert (hunter["creditsLeft"], hunter["breaker"]) == (487, "closed")
    assert {"seconds": 86400, "calls": 5000} in hunter["limits"]["*"]
    assert "common-key" not in str(found)


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_fits_the_terminal(enrichctl, secrets, used, db, monkeypatch, width, process):
    used(calls=123_456, answered=98_765, cache_hits=1_000_000, credits=Decimal("1234567.5"))
    db.execute(
        "insert into enrichment_provider_state"
        " (provider_id, breaker, opened_at, opened_for, trouble, reason, credits_left)"
        " values ('hunter', 'open', now(), '1 hour', 'denied', 'hunter answered 401: no', 4870000)"
    )
    ours, theirs = pty.openpty()
    subprocess.run(["stty", "cols", str(width), "rows", "40"], stdin=theirs, check=True)
    running = process("providers", stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
    assert (running.communicate(timeout=30)[1], running.returncode) == (b"", 0)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:
        pass  # Linux says so when the other end is closed.
    os.close(ours)

    text = shown.decode()
    lines = [line for line in text.replace("\r", "").split("\n") if line.strip()]
    plain = [strip(line) for line in lines]
    assert all(len(line) <= width for line in plain)
    row = next(line for line in plain if line.startswith("hunter"))
    assert "123k" in row
    assert ("10/s" in row) == (width == 140)
    assert any("10/s" in line for line in plain), "the limits are there in any width"
    assert "hunter: the key is refused, tried again in 60m: hunter answered 401: no" in plain


def strip(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)


def test_a_key_goes_in_by_standard_input_and_never_comes_out(enrichctl, secrets, db):
    secrets(SECRET)

    kept = enrichctl("providers", "set-key", "hunter", "-w", "acme", stdin=f"{KEY}\n".encode())
    again = enrichctl("providers", "set-key", "hunter", "-w", "acme", stdin=KEY.encode())

    assert (kept.exit_code, again.exit_code) == (0, 0)
    assert "kept the key of workspace acme for hunter" in kept.stdout
    assert "replaced the key" in again.stdout
    hunter = standing(enrichctl, "-w", "acme")["hunter"]
    assert (hunter["key"], hunter["keyHint"]) == ("own", "cdef")
    assert hunter["credential"] == "hunter#acme"
    assert standing(enrichctl)["hunter"]["key"] == "missing"
    (row,) = db.execute("select k::text from enrichment_provider_keys k").fetchone()
    assert KEY not in f"{kept} {again} {row}"
    assert KEY.encode().hex() not in row


def test_a_key_cannot_be_given_as_a_word(offline, secrets):
    ended = offline("providers", "set-key", "hunter", KEY)

    assert ended.exit_code == 2
    assert KEY not in ended.stdout


@pytest.mark.parametrize(
    ("stdin", "code", "told"),
    [(b"", 2, "no key was given"), (b"two words", 2, "no spaces"), (b"x" * 2000, 2, "1 to 1024")],
)
def test_what_is_no_key_is_refused(enrichctl, secrets, stdin, code, told):
    secrets(SECRET)

    ended = enrichctl("providers", "set-key", "hunter", stdin=stdin)

    assert ended.exit_code == code
    assert told in ended.stderr


def test_without_secret_keys_the_variable_is_named(enrichctl, secrets):
    for words in (["set-key", "hunter"], ["rotate-keys"]):
        ended = enrichctl("providers", *words, stdin=KEY.encode())
        assert ended.exit_code == 2
        assert "ENRICHD_SECRET_KEYS is not set" in ended.stderr


def test_a_key_that_the_secret_does_not_open_is_shown_as_unreadable(enrichctl, secrets):
    secrets(SECRET)
    enrichctl("providers", "set-key", "hunter", stdin=KEY.encode())

    secrets(NEWER)

    assert standing(enrichctl)["hunter"]["key"] == "unreadable"
    ended = enrichctl("providers", "rotate-keys", "--json")
    assert (ended.exit_code, ended.document) == (1, {"resealed": 0, "unreadable": 1})


def test_secrets_are_rotated(enrichctl, secrets):
    secrets(SECRET)
    enrichctl("providers", "set-key", "hunter", stdin=KEY.encode())
    secrets(f"{NEWER},{SECRET}")

    assert enrichctl("providers", "rotate-keys").stdout == "sealed 1 anew\n"

    secrets(NEWER)
    assert standing(enrichctl)["hunter"]["key"] == "own"


def test_a_key_is_removed_once(enrichctl, secrets):
    secrets(SECRET)
    enrichctl("providers", "set-key", "hunter", "-w", "acme", stdin=KEY.encode())

    assert enrichctl("providers", "remove-key", "hunter", "-w", "other").exit_code == 3
    assert enrichctl("providers", "remove-key", "hunter", "-w", "acme").exit_code == 0
    assert enrichctl("providers", "remove-key", "hunter", "-w", "acme").exit_code == 3


@pytest.mark.parametrize("words", [["open", "huntr"], ["close", "x#acme"], ["set-key", "huntr"]])
def test_a_provider_that_nobody_brings_is_not_found(offline, secrets, words):
    ended = offline("providers", *words, stdin=KEY.encode())

    assert ended.exit_code == 3
    assert "hunter" in ended.stderr


def test_a_breaker_is_opened_and_closed_by_hand(enrichctl, secrets):
    enrichctl("providers", "open", "hunter")
    enrichctl("providers", "open", "pdl", "--for", "1h")

    found = standing(enrichctl)
    assert (found["hunter"]["breaker"], found["hunter"]["breakerUntil"]) == ("open", None)
    assert found["pdl"]["breakerUntil"] is not None
    assert found["hunter"]["isSetByHand"]
    assert found["hunter"]["breakerReason"] == "opened by hand"
    shown = enrichctl("providers").stdout
    assert "hunter: opened by hand, until `enrichctl providers close hunter`" in shown
    assert "pdl: opened by hand, tried again in 60m" in shown

    ended = enrichctl("providers", "close", "hunter")
    assert ended.stdout == "the breaker of hunter is closed\n"
    assert standing(enrichctl)["hunter"]["breaker"] == "closed"


def test_a_key_that_the_provider_did_not_take_is_shown_as_refused(
    enrichctl, secrets, db, monkeypatch
):
    monkeypatch.setenv("HUNTER_API_KEY", "wrong")
    db.execute(
        "insert into enrichment_provider_state"
        " (provider_id, breaker, opened_at, opened_for, trouble, reason)"
        " values ('hunter', 'open', now(), '1 h', 'denied', %s),"
        "        ('pdl', 'open', now(), '1 h', 'failing', 'pdl answered 401 times with 503')",
        [f"hunter says no: '{ESCAPES}'"],
    )
    monkeypatch.setenv("PDL_API_KEY", "right")

    assert standing(enrichctl)["pdl"]["key"] == "set"
    assert standing(enrichctl)["hunter"]["key"] == "refused"
    shown = enrichctl("providers").stdout
    assert "refused" in shown
    assert shown.replace("\n", "").isprintable()


def test_what_everybody_has_spent_stands_beside_its_cap(enrichctl, secrets, db, monkeypatch):
    monkeypatch.setenv("CREDITS_PER_DAY_MAX", "100")
    db.execute(
        "insert into enrichment_credit_counters (counter, spent)"
        " values ('day:' || to_char(now() at time zone 'utc', 'YYYY-MM-DD'), 42)"
    )

    assert "all workspaces: 42 credits today (cap 100)" in enrichctl("providers").stdout


def test_how_old_the_credits_are_is_shown_where_there_is_room(enrichctl, secrets, db, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    db.execute(
        "insert into enrichment_provider_state (provider_id, credits_left, credits_seen_at)"
        " values ('hunter', 487, now() - interval '3 minutes')"
    )

    row = next(one for one in enrichctl("providers").stdout.splitlines() if "hunter" in one)

    assert "487  3m ago" in row


def test_a_provider_that_says_its_credits_are_gone_has_none_left(enrichctl, secrets, db):
    db.execute(
        "insert into enrichment_provider_state"
        " (provider_id, breaker, opened_at, opened_for, trouble, reason, credits_left)"
        " values ('pdl', 'open', now(), '2 days', 'exhausted', 'pdl answered 402', 12)"
    )

    assert standing(enrichctl)["pdl"]["creditsLeft"] == 0
    assert "pdl: no credits are left, tried again in 2d: pdl answered 402" in (
        enrichctl("providers").stdout
    )


def test_a_budget_is_set_in_part_shown_and_taken_back(enrichctl, monkeypatch, secrets):
    monkeypatch.setenv("WORKSPACE_CREDITS_PER_DAY_MAX", "100")
    budget = ["providers", "budget", "-w", "acme"]
    assert "0 credits today (cap 100), 0 this month (no cap)" in enrichctl(*budget).stdout

    enrichctl(*budget, "--per-day", "500")
    enrichctl(*budget, "--per-month", "1000.5")
    assert (
        "0 credits today (cap 500), 0 this month (cap 1,000.5)"
        in enrichctl("providers", "-w", "acme").stdout
    )
    enrichctl(*budget, "--per-day", "default")

    assert enrichctl(*budget, "--json").document == {
        "workspaceId": "acme",
        "creditsPerDayMax": None,
        "creditsPerMonthMax": 1000.5,
        "spentToday": 0,
        "spentThisMonth": 0,
    }


@pytest.mark.parametrize("amount", ["-1", "a lot", "1e9", "NaN", "1" * 10])
def test_what_is_no_amount_is_a_usage_error(offline, secrets, amount):
    assert offline("providers", "budget", "--per-day", amount).exit_code == 2
