"""Leads: the caller's data made regular."""

from __future__ import annotations

import pytest

from enrichd.domain.facts import Fact
from enrichd.domain.leads import canonical_key, given_facts, lead_from, normal_domain
from enrichd.domain.payloads import LeadInput


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("Acme.COM", "acme.com"),
        ("https://www.acme.com/about?x=1", "acme.com"),
        ("www.acme.com.", "acme.com"),
        ("shop.acme.co.uk:8080", "shop.acme.co.uk"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("acme", None),
        ("10.0.0.1", None),
        ("not a domain.com", None),
        ("a" * 300 + ".com", None),
    ],
)
def test_a_domain_is_read_from_what_people_write(text, domain):
    assert normal_domain(text) == domain


def test_the_company_is_looked_up_where_the_email_is():
    lead = lead_from(LeadInput(email=" Ada@mail.acme.co.uk "))

    assert (lead.domain, lead.is_domain_given, lead.domain_problem) == ("acme.co.uk", False, None)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (LeadInput(email="ada@gmail.com"), "free_mail_domain"),
        (LeadInput(domain="gmail.com"), "free_mail_domain"),
        (LeadInput(domain="not a domain"), "domain_invalid"),
        (LeadInput(full_name="Ada Quill"), "no_domain"),
        (LeadInput(email="ada(at)acme.com"), "no_domain"),
    ],
)
def test_what_is_no_companys_domain_is_not_looked_up(data, problem):
    lead = lead_from(data)

    assert (lead.domain, lead.domain_problem) == (None, problem)


def test_a_given_domain_goes_before_the_emails():
    lead = lead_from(LeadInput(email="ada@gmail.com", domain="acme.com"))

    assert (lead.domain, lead.is_domain_given) == ("acme.com", True)


def test_a_full_name_gives_the_parts_that_are_missing_and_the_reverse():
    assert lead_from(LeadInput(full_name="Ada Quill")).last_name == "Quill"
    assert lead_from(LeadInput(first_name="Ada", last_name="Quill")).full_name == "Ada Quill"
    assert lead_from(LeadInput(full_name="A. Quill", first_name="Ada")).first_name == "Ada"


def test_a_malformed_email_is_kept_with_its_reason_and_is_no_fact():
    lead = lead_from(LeadInput(email="ada(at)acme.com", title="  "), "7")

    assert (lead.email, lead.address, lead.email_problem) == ("ada(at)acme.com", None, "missing_at")
    assert given_facts(lead) == []


def test_what_the_caller_knows_becomes_facts():
    facts = given_facts(
        lead_from(LeadInput(email="ada@acme.com", linkedin_url="linkedin.com/in/AdaQ/"))
    )

    assert Fact("person", "email", "ada@acme.com", 1.0, "input") in facts
    assert Fact("company", "domain", "acme.com", 0.9, "email-domain") in facts
    assert [fact.value for fact in facts if fact.field == "socialProfiles"] == [
        "https://www.linkedin.com/in/adaq"
    ]


def test_only_rows_that_know_the_same_share_an_answer():
    one = lead_from(LeadInput(email="ada@acme.com", title="CTO"), "1")

    assert canonical_key(one) == canonical_key(
        lead_from(LeadInput(email="ada@ACME.com", title="cto"), "2")
    )
    assert canonical_key(one) != canonical_key(lead_from(LeadInput(email="ada@acme.com"), "3"))
