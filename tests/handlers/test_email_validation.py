"""`email_validation`."""

from __future__ import annotations

import time
from typing import Any

from enrichd.domain.email_verdicts import EmailVerification, MailHosts, Verdict
from enrichd.domain.emails import Address
from enrichd.domain.payloads import EmailValidation
from enrichd.handlers.email_validation import validate_emails
from enrichd.providers.base import Found, Operation
from tests.support.contexts import MemoryContext, ScriptedProvider, providers_of
from tests.support.dns_server import DnsServer


async def validate(*emails: str, provider: str = "builtin", **network: Any) -> dict[str, Any]:
    adapters = network.pop("adapters", ())
    async with providers_of(*adapters, **network) as providers:
        payload = EmailValidation(emails=emails, provider_id=provider)
        return await validate_emails(payload, MemoryContext(providers))


async def test_each_address_has_its_verdict_in_the_order_given():
    zones = {"acme.com": {"MX": ["10 mx.acme.com."]}, "gone.com": {"MX": ["0 ."]}}
    with DnsServer(zones) as dns:
        answer = await validate(
            "info@acme.com",
            "ada@acme.com",
            "ada@gone.com",
            "nobody",
            "",
            "ada@acme.com",
            nameservers=[dns.address],
        )

        assert dns.asked("acme.com", "MX") == 1
    verdicts = [(one["email"], one["verdict"], one["reasons"][0]) for one in answer["results"]]
    assert verdicts == [
        ("info@acme.com", "risky", "role_address"),
        ("ada@acme.com", "unknown", "mx_ok"),
        ("ada@gone.com", "invalid", "null_mx"),
        ("nobody", "invalid", "missing_at"),
        ("", "invalid", "empty"),
        ("ada@acme.com", "unknown", "mx_ok"),
    ]
    assert answer["summary"] == {"valid": 0, "invalid": 3, "risky": 1, "unknown": 2}
    assert (answer["total"], answer["costCredits"]) == (6, 0)


async def test_a_provider_is_asked_where_dns_does_not_suffice():
    sure = EmailVerification(
        text="ada@acme.com",
        address=Address("ada", "acme.com", "acme.com"),
        verdict=Verdict.VALID,
        reasons=("provider_says_so",),
        checked_at="2026-11-01T00:00:00Z",
        expires_at="2026-11-08T00:00:00Z",
        mx=MailHosts(found=True),
        checked_by=("acme",),
    )
    verifier = ScriptedProvider("acme", {Operation.VERIFY_EMAIL: Found(verification=sure)})

    answer = await validate("ada@acme.com", "nobody", provider="acme", adapters=[verifier])

    assert [one["verdict"] for one in answer["results"]] == ["valid", "invalid"]
    assert len(verifier.asked) == 1


async def test_ten_thousand_malformed_rows_take_well_under_five_seconds():
    rows = tuple(f"row {number} has no address" for number in range(10_000))
    started = time.process_time()

    answer = await validate(*rows)

    assert answer["summary"]["invalid"] == 10_000
    assert time.process_time() - started < 5
