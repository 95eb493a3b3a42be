"""A person goes out of a job in any spelling, and nobody else does."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enrichd.domain import payloads
from enrichd.domain.emails import Address, canonical_key, parse_address
from enrichd.domain.erasing import JobParts, lead_keys, left_of, person_of, suppressed_lead
from enrichd.handlers.batch_leads import leads_of


def person(text="ada@acme.com"):
    address = parse_address(text)
    assert isinstance(address, Address)
    return person_of(address)


def job(type, payload, result=None, error=None, **parts):
    names = {"tags": (), "idempotency_key": None, "webhook_url": None, **parts}
    return JobParts(type=type, payload=payload, result=result, error=error, **names)


def left(parts, text="ada@acme.com"):
    return left_of(parts, person(text), spare_key="erased:1")


@pytest.mark.parametrize(
    ("email", "text"),
    [
        ("ada@acme.com", "ada@acme.com"),
        ("ada@acme.com", "ADA@Acme.COM"),
        ("ada@acme.com", "Mail <ada@acme.com>, please."),
        ("ada@acme.com", "'ada@acme.com'"),
        ("ada@acme.com", "mailto:ada%40acme.com?x=1"),
        ("ada@acme.com", "https://h.test/?email=ada%40acme.com&x=1"),
        ("ada@acme.com", '{"email": "ada\\u0040acme.com"}'),
        ("ada@acme.com", "%3Cada@acme.com%3E"),
        ("ada@acme.com", "ａｄａ＠acme.com"),
        ("ada+x@acme.com", "ada%2Bx@acme.com"),
        ("ada@gmail.com", "a.d.a+news@googlemail.com"),
        ("a.da+b@googlemail.com", "ada@gmail.com"),
        ("ada@bücher.de", "ada@xn--bcher-kva.de"),
        ("ada@xn--bcher-kva.de", "ada@bücher.de"),
        ("ädá@acme.com", "ÄDÁ@acme.com"),
        ("o'neil@acme.com", "o'neil@acme.com"),
    ],
)
def test_a_person_is_found_by_any_spelling_and_taken_out(email, text):
    somebody = person(email)

    assert somebody.is_in({"deep": [{text: 1}]})
    assert somebody.is_in(text)
    assert not somebody.is_in(somebody.out_of({"deep": [{text: [text]}], "n": 1}))
    assert re.search(somebody.rough, text, re.IGNORECASE), "PostgreSQL would not have shown it"


@pytest.mark.parametrize(
    ("email", "text"),
    [
        ("ada@acme.com", "xada@acme.com"),
        ("ada@acme.com", "x.ada@acme.com x-ada@acme.com x+ada@acme.com"),
        ("ada@acme.com", "ada+x@acme.com"),
        ("ada@acme.com", "ada@acme.com.au"),
        ("ada@acme.com", "ada@acme.community"),
        ("ada@acme.com", "ada@acmexcom"),
        ("ada@acme.com", "ada@mail.acme.com"),
        ("a.da@acme.com", "ada@acme.com"),
        ("ada@gmail.com", "adam@gmail.com"),
        ("ada@gmail.com", "ada@gmail.co"),
    ],
)
def test_nobody_else_is_taken_for_the_person(email, text):
    assert not person(email).is_in({text: [text]})
    assert person(email).out_of({"a": text}) == {"a": text}


LOCALS = st.text("ab.+-_", min_size=1, max_size=6).filter(
    lambda text: isinstance(parse_address(f"{text}@acme.com"), Address)
)
DOMAINS = st.sampled_from(["acme.com", "gmail.com", "googlemail.com", "acme.com.au"])


@given(LOCALS, DOMAINS, LOCALS, DOMAINS)
@example("+", "gmail.com", "++", "gmail.com")
@example("a.b+x", "gmail.com", "ab", "googlemail.com")
def test_who_is_found_is_who_has_the_same_canonical_key(local, domain, other_local, other_domain):
    one = parse_address(f"{local}@{domain}")
    other = parse_address(f"{other_local}@{other_domain}")
    assert isinstance(one, Address)
    assert isinstance(other, Address)

    found = person_of(one).is_in(str(other))

    assert found == (canonical_key(one) == canonical_key(other))


def test_a_single_lead_keeps_nothing_but_that_it_was():
    done = left(
        job(
            "single_lead_enrichment",
            {"leadId": "7", "inputData": {"firstName": "Ada", "lastName": "Quill"}},
            {"leadId": "7", "person": {"fullName": "Ada Quill", "emails": ["ADA@acme.com"]}},
            {"type": "provider_down", "message": "Ada Quill", "provider": "hunter", "x": "Ada"},
        )
    )

    assert done.is_whole
    assert done.payload == {"erased": True}
    assert done.result == {"outcome": "suppressed", "erased": True}
    assert done.error == {"type": "provider_down", "provider": "hunter", "message": "(erased)"}


def test_of_a_batch_the_lead_goes_whole_and_the_others_stay_as_they_are():
    bob = {"id": "b", "email": "bob@acme.com", "firstName": "Bob"}
    payload = {
        "leads": [
            {"id": "a", "email": "ada@acme.com", "firstName": "Ada"},
            bob,
            {"firstName": "Ada", "email": "ADA@acme.com"},
            {"id": "ada@acme.com", "email": "ada@acme.com"},
        ],
        "maxCredits": 5,
    }

    done = left(job("batch_lead_enrichment", payload, {"total": 4}))

    assert not done.is_whole
    assert done.payload == {"leads": [{"id": "a"}, bob, {}, {"id": "erased-4"}], "maxCredits": 5}
    assert done.leads == {"a": "a", "#3": "#3", "ada@acme.com": "erased-4"}
    assert done.result == {"total": 4}
    assert payloads.parse("batch_lead_enrichment", done.payload)


def test_a_lead_that_was_found_by_its_name_goes_by_the_key_of_its_answer():
    payload = {
        "leadIds": ["1", "2"],
        "inputData": {"1": {"fullName": "Ada Quill"}, "2": {"fullName": "Bob"}},
    }

    done = left(job("batch_lead_enrichment", payload, items=["1"]))

    assert done.payload == {"leadIds": ["1", "2"], "inputData": {"2": {"fullName": "Bob"}}}
    assert done.leads == {"1": "1"}


def test_a_batch_of_one_person_alone_is_about_that_person():
    payload = {"leads": [{"email": "ada@acme.com"}, {"email": "Ada@acme.com"}]}

    assert left(job("batch_lead_enrichment", payload)).is_whole


def test_of_a_validation_the_address_and_its_verdict_go_and_the_order_stays():
    payload = {"emails": ["bob@acme.com", "Ada@acme.com", "eve@acme.com"]}
    verdicts = [{"email": one, "verdict": "valid"} for one in payload["emails"]]

    done = left(job("email_validation", payload, {"results": verdicts, "total": 3}))

    unknown = {"email": None, "verdict": "unknown", "reasons": ["suppressed"]}
    assert done.payload == {"emails": ["bob@acme.com", "(erased)", "eve@acme.com"]}
    assert done.result == {"results": [verdicts[0], unknown, verdicts[2]], "total": 3}
    assert left(job("email_validation", {"emails": ["ada@acme.com"]})).is_whole


def test_a_company_keeps_what_is_the_company_s():
    done = left(
        job(
            "company_data_update",
            {"domain": "acme.com", "inputData": {"email": "ada@acme.com", "firstName": "Ada"}},
            {"company": {"name": "Acme", "emails": ["info@acme.com", "ada@acme.com"]}},
        )
    )

    assert not done.is_whole
    assert done.payload == {"domain": "acme.com", "inputData": {}}
    assert done.result == {"company": {"name": "Acme", "emails": ["info@acme.com", "(erased)"]}}


def test_of_a_type_that_others_brought_list_entries_go_and_else_all_of_it():
    people = [{"mail": "ada@acme.com", "name": "Ada"}, {"mail": "bob@acme.com", "name": "Bob"}]

    listed = left(job("theirs", {"people": people, "x": 1}))
    named = left(job("theirs", {"whom": "ada@acme.com", "people": people}))
    answered = left(
        job("theirs", {"page": "https://acme.com"}, {"found": {"mail": "ada@acme.com"}})
    )

    assert (listed.is_whole, listed.payload) == (
        False,
        {"people": [{"erased": True}, people[1]], "x": 1},
    )
    assert named.is_whole
    assert (answered.is_whole, answered.payload) == (False, {"page": "https://acme.com"})
    assert answered.result == {"erased": True}


def test_tags_keys_and_addresses_of_receivers_are_looked_at_too():
    parts = job(
        "batch_lead_enrichment",
        {"leads": [{"email": "bob@acme.com"}, {"email": "eve@acme.com"}]},
        tags=["import", "for ada@acme.com"],
        idempotency_key="ada@acme.com/1",
        webhook_url="https://h.test/?who=ada%40acme.com",
    )

    done = left(parts)

    assert (done.is_whole, done.payload) == (False, parts.payload)
    assert (done.tags, done.idempotency_key, done.webhook_url) == (["import"], "erased:1", None)


@pytest.mark.parametrize(
    "payload", [None, [], "ada@acme.com", {"leads": "ada@acme.com"}, {"leads": [3, "ada@acme.com"]}]
)
@pytest.mark.parametrize("type", ["batch_lead_enrichment", "email_validation", "x"])
def test_whatever_somebody_enqueued_is_erased_without_a_crash(type, payload):
    done = left(job(type, payload, {"results": "ada@acme.com"}))

    assert done is not None
    assert not person().is_in([done.payload, done.result])


def test_what_is_nested_a_thousand_deep_is_erased_too():
    value: object = "ada@acme.com"
    for _ in range(990):
        value = [value]

    assert not person().is_in(person().out_of({"a": value}))


def test_a_job_without_the_person_is_left_alone():
    assert left(job("single_lead_enrichment", {"inputData": {"email": "bob@acme.com"}})) is None


def test_leads_are_called_as_the_batch_calls_them():
    leads = [{"id": "a"}, {"email": "x@y.co"}, {"id": "a"}, {"id": "a#3"}, {}]
    for payload in ({"leads": leads}, {"leadIds": ["1", "2"]}):
        model = payloads.parse("batch_lead_enrichment", payload)
        assert lead_keys(payload) == [lead.lead_id for lead in leads_of(model)]


def test_an_erased_lead_reads_like_one_that_was_suppressed():
    result = suppressed_lead("a")

    assert (result["leadId"], result["outcome"], result["person"]) == ("a", "suppressed", None)
