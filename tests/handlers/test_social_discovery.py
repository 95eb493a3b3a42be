"""`social_profile_discovery`."""

from __future__ import annotations

from enrichd.domain.payloads import LeadInput, SocialProfileDiscovery
from enrichd.handlers.social_discovery import discover_social_profiles
from tests.support.contexts import MemoryContext, providers_of
from tests.support.sites import Sites


async def test_the_persons_profiles_come_before_the_companys():
    async with (
        Sites() as sites,
        sites.fetcher() as fetcher,
        providers_of(fetcher=fetcher) as providers,
    ):
        payload = SocialProfileDiscovery(
            lead_id="1",
            input_data=LeadInput(domain="graph.test", linkedin_url="linkedin.com/in/adaq"),
        )
        answer = await discover_social_profiles(payload, MemoryContext(providers))

    found = [(one["entity"], one["network"], one["handle"]) for one in answer["socialProfiles"]]
    assert found[0] == ("person", "linkedin", "adaq")
    assert ("company", "x", "northwind") in found
    assert answer["outcome"] == "complete"
    assert [gap["field"] for gap in answer["missing"]] == []


async def test_without_anything_to_go_by_there_is_a_reason():
    async with providers_of() as providers:
        answer = await discover_social_profiles(
            SocialProfileDiscovery(lead_id="1"), MemoryContext(providers)
        )

    assert (answer["outcome"], answer["socialProfiles"]) == ("notFound", [])
    assert {gap["reason"] for gap in answer["missing"]} == {"no_domain"}
