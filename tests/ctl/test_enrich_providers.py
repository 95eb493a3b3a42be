"""`enrichctl enrich` with paid providers: what is enough, what it costs, who was left out."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from enrichd.ctl import enrich_report, enriching
from tests.support.providers.hunter import FakeHunter
from tests.support.providers.pdl import FakePdl
from tests.support.providers.server import in_thread
from tests.support.whole_path import environment

LEADS = "email\nada.quill@northwind.example\nbela.okafor@northwind.example\n"
PERSON = ("--types", "person", "--provider", "hunter")


@pytest.fixture(autouse=True)
def fakes(monkeypatch, clean_settings) -> Iterator[tuple[FakeHunter, FakePdl]]:
    """Give Hunter and People Data Labs, with their keys in the environment."""
    with ExitStack() as stack:
        hunter = stack.enter_context(in_thread(lambda: FakeHunter(limits={})))
        pdl = stack.enter_context(in_thread(lambda: FakePdl(limits={})))
        for name, value in environment(hunter, pdl).items():
            monkeypatch.setenv(name, value)
        yield hunter, pdl


@pytest.fixture
def hunter(fakes) -> FakeHunter:
    return fakes[0]


@pytest.fixture
def pdl(fakes) -> FakePdl:
    return fakes[1]


@pytest.fixture
def enrich(enrichctl, tmp_path):
    """Give `enrich(*words, text=…)`: its end, and the rows it wrote if it did."""

    def run(*words, text=LEADS):
        (tmp_path / "in.csv").write_text(text)
        ended = enrichctl("enrich", "in.csv", "--out", "out.csv", *words)
        out = tmp_path / "out.csv"
        text = out.read_text() if out.exists() else ""
        return ended, list(csv.DictReader(io.StringIO(text, newline="")))

    return run


def test_what_was_spent_is_said_and_a_second_run_spends_nothing(enrich, hunter):
    ended, rows = enrich(*PERSON, "--json")
    again, _ = enrich(*PERSON)

    assert ended.document["costCredits"] == hunter.credits_spent == 2
    assert [bool(row["enriched_title"]) for row in rows] == [True, True]
    assert "Spent" not in again.stderr


def test_an_asked_row_and_its_price_are_singular(enrich):
    ended, _ = enrich(*PERSON, text="email\nada.quill@northwind.example\n")

    assert ended.stderr.splitlines()[1:] == ["Outcomes: 1 complete.", "Spent 1 credit."]


# What is enough.


def test_require_goes_on_to_the_next_until_the_fields_are_there(enrich, hunter, pdl):
    enrich(*PERSON, "--fallback", "pdl", "--require", "person.title, email")
    assert pdl.calls.total() == 0

    enrich(*PERSON, "--fallback", "pdl", "--require", "title,person.employmentHistory", "--fresh")
    assert pdl.calls.total() == 2
    assert hunter.calls.total() == 2, "what it said is known"


def test_min_confidence_goes_on_while_nobody_is_that_sure(enrich, pdl):
    enrich(*PERSON, "--fallback", "pdl", "--min-confidence", "0.5")
    assert pdl.calls.total() == 0

    enrich(*PERSON, "--fallback", "pdl", "--min-confidence", "0.99", "--fresh")
    assert pdl.calls.total() == 2


@pytest.mark.parametrize(
    ("words", "is_enough"),
    [
        ((), True),
        (("--no-catch-all",), False),
        (("--verdict", "valid"), False),
        (("--verdict", "valid", "--verdict", "risky"), True),
    ],
)
def test_an_email_that_takes_everything_is_enough_or_not(enrich, pdl, words, is_enough):
    lead = "first_name,last_name,domain\nCatchall,Lee,northwind.example\n"
    email = ("--types", "email", "--provider", "hunter", "--fallback", "pdl")

    _, rows = enrich(*email, "--require", "email", *words, text=lead)

    assert rows[0]["enriched_email"] == "catchall.lee@northwind.example"
    assert (pdl.calls.total() == 0) == is_enough


def test_infer_email_has_a_guess_checked_in_place_of_a_search(enrich, hunter):
    lead = "first_name,last_name,domain\nCora,Lee,northwind.example\n"
    email = ("--types", "email", "--provider", "hunter")

    _, rows = enrich(*email, "--infer-email", text=lead)

    assert rows[0]["enriched_email"] == "cora.lee@northwind.example"
    assert rows[0]["enriched_email_verdict"] == "valid"
    assert hunter.calls == {"/email-verifier": 1}


@pytest.mark.parametrize(
    ("words", "title"), [((), "Boss"), (("--fill", "overwrite"), "Software Engineer")]
)
def test_fill_says_whose_value_stands(enrich, words, title):
    _, rows = enrich(*PERSON, *words, text="email,title\nd.e@northwind.example,Boss\n")

    assert (rows[0]["title"], rows[0]["enriched_title"]) == ("Boss", title)


def test_skip_existing_asks_nobody_for_what_is_there(enrich, hunter):
    text = "email,title,name\nd.e@northwind.example,Boss,Dee Eee\n"

    enrich(*PERSON, "--fill", "skipExisting", text=text)

    assert hunter.calls.total() == 0


def test_no_row_costs_more_than_it_may(enrich, hunter, pdl):
    words = (*PERSON, "--fallback", "pdl", "--require", "employmentHistory")

    ended, _ = enrich(*words, "--max-credits", "1")

    assert (hunter.credits_spent, pdl.credits_spent) == (2, 0)
    assert "pdl would have cost more than the row may: 2 rows." in ended.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--require", "person.titel"], "did you mean person.title?"),
        (["--require", "company.nme"], "did you mean company.name?"),
        (["--require", "employeeCount"], "did you mean company.employeeCount?"),
        (["--require", "qqqqq"], "give some of person.avatarUrl, person.bio"),
        (["--verdict", "fine"], "'fine' is not one of"),
        (["--fill", "always"], "'always' is not one of"),
        (["--min-confidence", "2"], "0<=x<=1"),
        (["--max-credits", "-1"], "0<=x"),
    ],
)
def test_a_wrong_choice_is_2_and_asks_nobody(enrich, hunter, words, said):
    ended, rows = enrich(*PERSON, *words)

    assert (ended.exit_code, rows) == (2, [])
    assert said in ended.stderr.replace("\n", " ")
    assert hunter.calls.total() == 0


def test_a_field_of_a_plug_in_s_own_may_be_required(enrich, monkeypatch, pdl):
    monkeypatch.setenv("ENRICHD_PLUGINS", "tests.support.job_types")

    ended, _ = enrich(*PERSON, "--fallback", "pdl", "--require", "person.shoeSize")

    assert ended.exit_code == 0
    assert pdl.calls.total() == 2


# Who was left out.


def left_out(ended):
    return {
        (one["provider"], one["reason"]): one["rows"] for one in ended.document["providersLeftOut"]
    }


def test_a_provider_without_a_key_is_named_with_its_variable(enrich, hunter, pdl, monkeypatch):
    monkeypatch.setenv("HUNTER_API_KEY", "")

    ended, rows = enrich(*PERSON, "--fallback", "pdl")

    assert "hunter has no API key (HUNTER_API_KEY): 2 rows." in ended.stderr
    assert ended.exit_code == 0
    assert all(row["enriched_title"] for row in rows)
    assert hunter.calls.total() == 0


def test_a_refused_key_is_named_and_the_next_provider_answers(enrich, hunter, monkeypatch):
    monkeypatch.setenv("HUNTER_API_KEY", "wrong")

    ended, rows = enrich(*PERSON, "--fallback", "pdl", "--concurrency", "1", "--json")

    assert left_out(ended) == {("hunter", "denied"): 1, ("hunter", "breaker_open"): 1}
    assert all(row["enriched_title"] for row in rows)
    assert hunter.calls.total() == 1


def test_credits_that_run_out_are_named(enrich, hunter):
    for account in hunter.accounts.values():
        account.balance = 1

    ended, rows = enrich(*PERSON, "--fallback", "pdl", "--concurrency", "1")

    assert "hunter has no credits left: 1 row." in ended.stderr
    assert "Spent 2 credits." in ended.stderr
    assert all(row["enriched_title"] for row in rows)


def test_a_workspace_that_may_spend_no_more_is_told_so(enrich, monkeypatch):
    monkeypatch.setenv("WORKSPACE_CREDITS_PER_DAY_MAX", "1")

    ended, _ = enrich(*PERSON)

    assert "hunter would have cost more than the workspace may spend: 1 row." in ended.stderr


# Whom it waits for.


@pytest.fixture
def soon(monkeypatch):
    """Look for trouble after a moment."""
    monkeypatch.setattr(enriching, "STUCK_LOOK_S", 0.2)
    monkeypatch.setattr(enrich_report, "PLAIN_PROGRESS_S", 0.0)


def test_when_nobody_is_to_be_asked_for_long_it_ends_with_4_and_the_way_out(
    enrich, enrichctl, hunter, soon
):
    enrichctl("providers", "open", "hunter")

    ended, rows = enrich(*PERSON)

    assert (ended.exit_code, rows) == (4, [])
    assert "error: hunter is not asked for now: opened by hand" in ended.stderr
    assert "`enrichctl providers close hunter`" in ended.stderr
    assert hunter.calls.total() == 0

    enrichctl("providers", "close", "hunter")
    ended, rows = enrich(*PERSON)
    assert (ended.exit_code, len(rows)) == (0, 2)


def test_a_key_that_the_only_provider_refuses_ends_it_with_4(enrich, soon, monkeypatch):
    monkeypatch.setenv("HUNTER_API_KEY", "wrong")
    many = LEADS + "".join(f"a{n}.b@northwind.example\n" for n in range(60))

    ended, rows = enrich(*PERSON, "--concurrency", "1", text=many)

    assert (ended.exit_code, rows) == (4, [])
    assert "error: hunter is not asked for now: hunter answered 401" in ended.stderr


def test_a_provider_that_is_soon_asked_again_is_waited_for_by_name(enrich, enrichctl, hunter, soon):
    enrichctl("providers", "open", "hunter", "--for", "2s")

    ended, rows = enrich(*PERSON)

    assert (ended.exit_code, len(rows)) == (0, 2)
    assert "rows, 0/s, waiting for hunter\n" in ended.stderr
    assert hunter.calls.total() == 2


def test_with_another_provider_there_is_nothing_to_wait_for(enrich, enrichctl, pdl, soon):
    enrichctl("providers", "open", "hunter")

    ended, _ = enrich(*PERSON, "--fallback", "pdl", "--json")

    assert left_out(ended) == {("hunter", "paused"): 2}
    assert pdl.calls.total() == 2
