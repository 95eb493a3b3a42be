"""The five payloads as callers write them."""

from __future__ import annotations

import json

import pytest

from enrichd.domain import payloads
from enrichd.errors import InvalidPayload

GOOD = {
    "single_lead_enrichment": {
        "leadId": 7,
        "providerId": "hunter",
        "enrichmentTypes": ["email", "company"],
        "inputData": {"firstName": "Ada", "domain": "northwind.test", "email": ""},
        "fallbackProviders": ["apollo"],
        "stopRule": {"requiredFields": ["email"], "minConfidence": 0.5},
        "maxCredits": 2.5,
    },
    "batch_lead_enrichment": {
        "leadIds": ["1", "2"],
        "inputData": {"1": {"email": "ada@northwind.test"}},
    },
    "email_validation": {"emails": ["ada@northwind.test"]},
    "company_data_update": {"domain": "northwind.test"},
    "social_profile_discovery": {"leadId": "x", "inputData": {"fullName": "Ada Lovelace"}},
}


@pytest.mark.parametrize("job_type", GOOD)
def test_a_good_payload_reads_the_same_as_object_and_as_text(job_type):
    as_object = payloads.parse(job_type, GOOD[job_type])
    as_text = payloads.parse(job_type, json.dumps(GOOD[job_type]))

    assert as_object == as_text


@pytest.mark.parametrize(
    ("job_type", "changes", "said"),
    [
        ("single_lead_enrichment", {"leadId": None}, "leadId"),
        ("single_lead_enrichment", {"leadId": ""}, "leadId"),
        ("single_lead_enrichment", {"leadId": True}, "leadId"),
        ("single_lead_enrichment", {"providerId": "No Such!"}, "providerId"),
        ("single_lead_enrichment", {"enrichmentTypes": []}, "enrichmentTypes"),
        ("single_lead_enrichment", {"enrichmentTypes": ["phone"]}, "enrichmentTypes.0"),
        ("single_lead_enrichment", {"maxCredits": -1}, "maxCredits"),
        ("single_lead_enrichment", {"maxCredits": "NaN"}, "maxCredits"),
        ("single_lead_enrichment", {"fallbackProviders": ["a"] * 21}, "fallbackProviders"),
        ("batch_lead_enrichment", {"leadIds": []}, "at least one lead"),
        ("batch_lead_enrichment", {"leads": [{"id": "1"}]}, "not both"),
        ("batch_lead_enrichment", {"inputData": {"9": {}}}, "'9'"),
        ("email_validation", {"emails": ["a" * 3_000]}, "emails.0"),
        ("company_data_update", {"domain": None}, "companyId or domain"),
        ("company_data_update", {"domain": "  "}, "domain"),
        ("social_profile_discovery", {"inputData": {"twitter": "x"}}, "inputData.twitter"),
    ],
)
def test_a_wrong_part_is_refused_and_named(job_type, changes, said):
    with pytest.raises(InvalidPayload) as refused:
        payloads.parse(job_type, {**GOOD[job_type], **changes})

    assert said in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{", '"text"',
        '{"emails": ' + "[" * 10_000 + "]" * 10_000 + "}",
        '{"emails": ["a@b.test"], "maxCredits": ' + "9" * 5_000 + "}",
        '{"emails": ["a@b.test"], "maxCredits": 1e999999}',
    ],
)  # fmt: skip
def test_text_that_is_no_payload_is_invalid_and_nothing_else(text):
    with pytest.raises(InvalidPayload):
        payloads.parse("email_validation", text)


def test_many_wrong_parts_are_shown_in_a_bounded_message():
    with pytest.raises(InvalidPayload) as refused:
        payloads.parse("email_validation", {"emails": [5] * 5_000})

    assert len(refused.value.fields) <= 20
    assert len(str(refused.value)) < 2_000


def test_a_payload_costs_what_it_stands_for():
    def cost(job_type, payload):
        return payloads.cost_of(payloads.parse(job_type, payload))

    assert cost("batch_lead_enrichment", {"leadIds": [str(n) for n in range(30)]}) == 30
    assert cost("email_validation", {"emails": ["a@b.test"]}) == 1
    assert cost("company_data_update", {"domain": "northwind.test"}) == 1
