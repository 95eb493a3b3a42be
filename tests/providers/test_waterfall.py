"""The waterfall: who is asked, who is not and why, and when it ends."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from enrichd.domain.email_verdicts import EmailVerification
from enrichd.domain.emails import Address, parse_address
from enrichd.domain.facts import Fact
from enrichd.domain.lead_results import LeadResult
from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import EnrichmentType, FillMode, LeadInput, StopRule, Verdict
from enrichd.errors import (
    PersonSuppressed,
    ProviderDenied,
    ProviderDown,
    ProviderGarbled,
    ProviderRejected,
    ProviderThrottled,
)
from enrichd.providers.base import Found, Operation, Query
from enrichd.providers.calls import Calls
from enrichd.providers.waterfall import Providers, Search, enrich_lead
from tests.support.contexts import ScriptedProvider, found, providers_of
from tests.support.dns_server import DnsServer

EMAIL, PERSON, COMPANY = EnrichmentType.EMAIL, EnrichmentType.PERSON, EnrichmentType.COMPANY
ADA = {"first_name": "Ada", "last_name": "Quill"}


def title(text: str, confidence: float = 0.9) -> Fact:
    return Fact("person", "title", text, confidence, "api")


def email(address: str, confidence: float = 0.9) -> Fact:
    return Fact("person", "email", address, confidence, "api")


async def search(
    *adapters: ScriptedProvider,
    data: dict[str, Any] | None = None,
    types: tuple[EnrichmentType, ...] = (PERSON,),
    order: tuple[str, ...] = (),
    max_credits: Decimal | None = None,
    **options: Any,
) -> LeadResult:
    async with providers_of(*adapters) as providers:
        result = await enrich_lead(
            lead_from(LeadInput(**(data or ADA)), "1"),
            Search(types, order or tuple(one.provider_id for one in adapters), **options),
            Calls(
                providers, workspace_id="default", job_id=None, priority=3, max_credits=max_credits
            ),
        )
    assert isinstance(result, LeadResult)
    return result


async def search_with(providers: Providers, data: dict[str, Any], search: Search) -> LeadResult:
    calls = Calls(providers, workspace_id="default", job_id=None, priority=3, max_credits=None)
    result = await enrich_lead(lead_from(LeadInput(**data), "1"), search, calls)
    assert isinstance(result, LeadResult)
    return result


def tried(result: LeadResult) -> list[tuple[str, str, str | None]]:
    return [
        (call.provider, call.outcome, call.skip_reason)
        for call in result.calls
        if call.provider != "builtin"
    ]


async def test_the_second_provider_is_asked_only_for_what_the_first_left_open():
    first = ScriptedProvider("first", {Operation.ENRICH_PERSON: found(title("CTO"))})
    second = ScriptedProvider("second", {Operation.ENRICH_PERSON: found(title("Boss"))})

    result = await search(first, second)

    assert result.outcome == "complete"
    assert tried(result) == [("first", "answered", None), ("second", "skipped", "stop_rule_met")]
    assert second.asked == []
    assert result.cost_credits == 1


async def test_a_miss_goes_on_to_the_next_and_costs_nothing():
    first = ScriptedProvider("first", {Operation.ENRICH_PERSON: Found()})
    second = ScriptedProvider("second", {Operation.ENRICH_PERSON: found(title("Boss"))})

    result = await search(first, second)

    assert tried(result) == [("first", "noMatch", None), ("second", "answered", None)]
    assert result.person is not None
    assert result.person.value_at("title") == "Boss"


async def test_every_provider_that_is_not_asked_says_why():
    keyless = ScriptedProvider(
        "keyless", {Operation.ENRICH_PERSON: found(title("A"))}, refusal="no_api_key"
    )
    dear = ScriptedProvider("dear", {Operation.ENRICH_PERSON: found(title("B"))}, cost="3")
    other = ScriptedProvider("other", {Operation.ENRICH_COMPANY: Found()})

    result = await search(
        keyless,
        dear,
        other,
        order=("nobody", "keyless", "dear", "other"),
        max_credits=Decimal(2),
    )

    assert tried(result) == [
        ("nobody", "skipped", "no_such_provider"),
        ("keyless", "skipped", "no_api_key"),
        ("dear", "skipped", "would_exceed_max_credits"),
        ("other", "skipped", "nothing_missing"),
    ]
    assert (result.outcome, result.cost_credits) == ("notFound", 0)


async def test_the_stop_rule_wants_more_than_the_first_answer():
    first = ScriptedProvider("first", {Operation.ENRICH_PERSON: found(title("CTO", 0.6))})
    second = ScriptedProvider("second", {Operation.ENRICH_PERSON: found(title("CTO", 0.7))})
    rule = StopRule(required_fields=("person.title",), min_confidence=0.85)

    result = await search(first, second, stop_rule=rule)

    assert [call.outcome for call in result.calls if call.provider != "builtin"] == ["answered"] * 2
    assert result.outcome == "complete"
    assert result.person is not None
    assert result.person.confidence_at("title") == pytest.approx(0.88)


async def test_a_found_email_is_verified_and_helps_the_next_question():
    finder = ScriptedProvider(
        "finder",
        {
            Operation.FIND_EMAIL: found(email("ada@acme.com")),
            Operation.ENRICH_PERSON: found(title("CTO")),
        },
    )
    zones = {"acme.com": {"MX": ["10 mx.acme.com."]}}
    with DnsServer(zones) as dns:
        async with providers_of(finder, nameservers=[dns.address]) as providers:
            result = await search_with(
                providers, {**ADA, "domain": "acme.com"}, Search((EMAIL, PERSON), ("finder",))
            )

    assert result.verification is not None
    assert result.verification.reasons == ("mx_ok",)
    asked_with = [query.email for operation, query in finder.asked]
    assert asked_with == [None, "ada@acme.com"]
    assert result.outcome == "complete"


async def test_a_guess_does_not_end_the_search_and_is_no_knowledge():
    finder = ScriptedProvider("finder", {Operation.FIND_EMAIL: found(email("aq@acme.com"))})

    result = await search(finder, data={**ADA, "domain": "acme.com"}, types=(EMAIL,))

    assert [query.email for _, query in finder.asked] == [None]
    assert result.person is not None
    assert result.person.value_at("email") == "aq@acme.com"


async def test_a_bad_email_gives_way_to_the_one_that_is_found():
    finder = ScriptedProvider("finder", {Operation.FIND_EMAIL: found(email("ada@acme.com", 0.6))})
    zones = {"gone.com": {"MX": ["0 ."]}, "acme.com": {"MX": ["10 mx.acme.com."]}}
    with DnsServer(zones) as dns:
        async with providers_of(finder, nameservers=[dns.address]) as providers:
            result = await search_with(
                providers, {"email": "ada@gone.com"}, Search((EMAIL,), ("finder",))
            )

    assert result.person is not None
    assert result.person.value_at("email") == "ada@acme.com"
    assert result.verification is not None
    assert str(result.verification.address) == "ada@acme.com"


async def test_a_rule_that_says_nothing_of_confidence_is_not_content_with_a_guess():
    source = ScriptedProvider("source", {Operation.FIND_EMAIL: found(email("ada@acme.com"))})
    rule = StopRule(required_fields=("email",))

    result = await search(
        source, data={**ADA, "domain": "acme.com"}, types=(EMAIL,), stop_rule=rule
    )

    assert tried(result) == [("source", "answered", None)]


async def test_accepted_verdicts_are_part_of_the_stop_rule():
    rule = StopRule(email_verdicts=(Verdict.VALID,))

    result = await search(data={"email": "ada@acme.com"}, types=(EMAIL,), stop_rule=rule)

    assert result.outcome == "partial"


async def test_a_limit_of_the_only_provider_is_for_the_caller_to_wait_for():
    slow = ScriptedProvider(
        "slow",
        {Operation.ENRICH_PERSON: ProviderThrottled("slow", provider="slow", retry_after_s=9)},
    )

    with pytest.raises(ProviderThrottled):
        await search(slow)


async def test_of_several_troubles_the_shortest_wait_counts():
    down = ScriptedProvider("down", {Operation.ENRICH_PERSON: ProviderDown("d", provider="down")})
    late = ScriptedProvider(
        "late", {Operation.ENRICH_PERSON: ProviderThrottled("l", provider="late", retry_after_s=99)}
    )
    soon = ScriptedProvider(
        "soon", {Operation.ENRICH_PERSON: ProviderThrottled("s", provider="soon", retry_after_s=3)}
    )

    with pytest.raises(ProviderThrottled) as caught:
        await search(down, late, soon)

    assert caught.value.provider == "soon"
    with pytest.raises(ProviderDown):
        await search(down)


async def test_an_answer_that_was_paid_is_kept_whatever_happens_to_the_others():
    paid = ScriptedProvider(
        "paid", {Operation.ENRICH_PERSON: found(Fact("person", "headline", "Hi", 0.9, "api"))}
    )
    down = ScriptedProvider("down", {Operation.ENRICH_PERSON: ProviderDown("d", provider="down")})

    result = await search(down, paid)

    assert tried(result) == [("down", "down", None), ("paid", "answered", None)]
    assert (result.outcome, result.cost_credits) == ("partial", 1)


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (ProviderDenied("no key", provider="bad"), "denied"),
        (ProviderGarbled("what", provider="bad"), "garbled"),
    ],
)
async def test_what_no_retry_mends_is_a_reason_and_not_an_error(error, ending):
    bad = ScriptedProvider(
        "bad", {Operation.FIND_EMAIL: error, Operation.ENRICH_PERSON: found(title("CTO"))}
    )

    result = await search(bad, types=(EMAIL, PERSON))

    assert tried(result) == [("bad", ending, None)]
    assert len(bad.asked) == 1


async def test_a_defect_of_one_source_costs_none_of_the_others():
    broken = ScriptedProvider("broken", {Operation.ENRICH_PERSON: KeyError("data")})
    second = ScriptedProvider("second", {Operation.ENRICH_PERSON: found(title("CTO"))})

    result = await search(broken, second)

    assert tried(result) == [("broken", "garbled", None), ("second", "answered", None)]


async def test_the_result_is_plain_json_with_stable_keys():
    import json

    provider = ScriptedProvider("p", {Operation.ENRICH_PERSON: found(title("CTO"))})

    answer = (await search(provider, types=tuple(EnrichmentType))).to_json()

    assert json.loads(json.dumps(answer)) == answer
    assert list(answer) == [
        "leadId",
        "outcome",
        "person",
        "company",
        "emailVerification",
        "missing",
        "providers",
        "providersTried",
        "costCredits",
    ]
    assert answer["person"]["provenance"]["title"]["requestId"] == "r-1"
    assert {"entity": "company", "field": "name", "reason": "no_domain"} in answer["missing"]


async def test_known_fields_are_not_looked_up_when_they_are_to_be_skipped():
    first = ScriptedProvider("first", {Operation.ENRICH_PERSON: found(title("CTO"))})
    data = {**ADA, "title": "Boss"}

    skipped = await search(first, data=data, fill_mode=FillMode.SKIP_EXISTING)
    filled = await search(first, data={**ADA}, fill_mode=FillMode.SKIP_EXISTING)

    assert (skipped.outcome, skipped.calls) == ("complete", [])
    assert tried(filled) == [("first", "answered", None)]


@pytest.mark.parametrize(
    ("mode", "kept"), [(FillMode.OVERWRITE, "CTO"), (FillMode.FILL_EMPTY, "Boss")]
)
async def test_a_supplied_value_stands_or_gives_way(mode, kept):
    first = ScriptedProvider("first", {Operation.ENRICH_PERSON: found(title("CTO"))})
    rule = StopRule(required_fields=("person.headline",))

    result = await search(first, data={**ADA, "title": "Boss"}, fill_mode=mode, stop_rule=rule)

    assert result.person is not None
    assert result.person.value_at("title") == kept


async def test_a_person_who_opted_out_ends_the_search_and_leaves_nothing():
    gone = ScriptedProvider(
        "gone", {Operation.ENRICH_PERSON: PersonSuppressed("451", provider="gone")}
    )
    other = ScriptedProvider("other", {Operation.ENRICH_PERSON: found(title("CTO"))})

    result = await search(gone, other)

    assert result.outcome == "suppressed"
    assert (result.person, result.company, result.verification) == (None, None, None)
    assert other.asked == []


async def test_a_question_that_does_not_suit_a_provider_leaves_its_others():
    fussy = ScriptedProvider(
        "fussy",
        {
            Operation.FIND_EMAIL: ProviderRejected("422", provider="fussy"),
            Operation.ENRICH_PERSON: found(title("CTO")),
        },
    )

    result = await search(fussy, types=(EMAIL, PERSON))

    assert tried(result) == [("fussy", "rejected", None), ("fussy", "answered", None)]


def verdict(address: str, word: Verdict) -> EmailVerification:
    parsed = parse_address(address)
    assert isinstance(parsed, Address)
    return EmailVerification(address, parsed, word, ("scripted",), "2026-01-01", "2026-01-08")


async def test_a_likely_address_is_checked_before_one_is_searched_for():
    class Verifier(ScriptedProvider):
        async def call(self, operation: Operation, query: Query) -> Found:
            self.asked.append((operation, query))
            assert query.email is not None
            word = Verdict.VALID if query.email == "aquill@acme.com" else Verdict.INVALID
            return Found(verification=verdict(query.email, word), cost_credits=Decimal("0.5"))

    verifier = Verifier("verifier", {Operation.VERIFY_EMAIL: Found()})
    finder = ScriptedProvider("finder", {Operation.FIND_EMAIL: found(email("x@acme.com"))})

    result = await search(
        finder, verifier, data={**ADA, "domain": "acme.com"}, types=(EMAIL,), infer_email=True
    )

    assert [query.email for _, query in verifier.asked] == ["ada.quill@acme.com", "aquill@acme.com"]
    assert finder.asked == []
    assert result.outcome == "complete"
    assert result.person is not None
    assert result.person.value_at("email") == "aquill@acme.com"
    assert (result.verification and result.verification.verdict) == Verdict.VALID
    assert result.cost_credits == 1


async def test_two_verdicts_on_one_address_are_put_together():
    verifier = ScriptedProvider(
        "verifier",
        {Operation.VERIFY_EMAIL: Found(verification=verdict("ada@acme.com", Verdict.VALID))},
    )
    with DnsServer({"acme.com": {"MX": ["10 mx.acme.com."]}}) as dns:
        async with providers_of(verifier, nameservers=[dns.address]) as providers:
            result = await search_with(
                providers, {"email": "ada@acme.com"}, Search((EMAIL,), ("verifier",))
            )

    assert result.verification is not None
    assert result.verification.verdict == Verdict.VALID
    assert result.verification.mx.found is True


async def test_an_outage_is_waited_out_only_as_long_as_there_are_runs():
    paid = ScriptedProvider(
        "paid", {Operation.ENRICH_PERSON: found(Fact("person", "headline", "Hi", 0.9, "api"))}
    )
    down = ScriptedProvider("down", {Operation.ENRICH_PERSON: ProviderDown("d", provider="down")})

    result = await search(paid, down, is_last_run=True)

    assert result.outcome == "partial"


async def test_a_provider_whose_answer_is_the_whole_record_is_paid_for_it_once():
    class WholeRecord(ScriptedProvider):
        one_record = frozenset({Operation.FIND_EMAIL, Operation.ENRICH_PERSON})

    whole = WholeRecord(
        "whole",
        {
            Operation.FIND_EMAIL: found(email("ada@acme.com")),
            Operation.ENRICH_PERSON: found(title("CTO")),
        },
    )

    result = await search(whole, types=(EMAIL, PERSON))

    assert tried(result) == [("whole", "answered", None), ("whole", "skipped", "same_record")]
    assert len(whole.asked) == 1
