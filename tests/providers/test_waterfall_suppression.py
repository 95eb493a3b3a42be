"""Who wants to be left alone is not asked about, by whichever of his addresses he is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import uuid4

from enrichd.domain.facts import Fact
from enrichd.domain.lead_results import LeadResult
from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import LeadInput
from enrichd.errors import PersonSuppressed
from enrichd.providers.base import Found, Operation
from enrichd.providers.calls import Calls
from enrichd.providers.waterfall import Search, enrich_lead
from tests.providers.test_waterfall import EMAIL, PERSON, email, title
from tests.support.contexts import ScriptedProvider
from tests.support.sharing import sharing_providers

ADA = {"first_name": "Ada", "last_name": "Quill", "domain": "acme.com"}
KNOWN = Found((title("CTO"),))


class Suppressed:
    """Who wants to be left alone; `added` are those who said so meanwhile."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses
        self.added: list[str] = []

    async def is_suppressed(self, workspace_id: str, *texts: str) -> bool:
        return any(text in self._addresses for text in texts)

    async def add(self, workspace_id: str, address: str, *why: Any) -> None:
        self.added.append(address)

    async def aclose(self) -> None:
        pass


async def search(
    dsn: str, suppressed: Suppressed, *sources: ScriptedProvider, **options: Any
) -> LeadResult:
    async with sharing_providers(dsn, *sources) as providers:
        assert providers.shared is not None
        providers.shared = replace(providers.shared, suppressions=suppressed)  # type: ignore[arg-type]
        wanted = Search((EMAIL, PERSON), [one.provider_id for one in sources], **options)
        asker = Calls(providers, workspace_id="acme", job_id=uuid4())
        result = await enrich_lead(lead_from(LeadInput(**ADA), "1"), wanted, asker)
    assert isinstance(result, LeadResult)
    return result


async def test_a_guessed_address_is_not_sent_to_anybody(database_url):
    source = ScriptedProvider(
        "source", {Operation.VERIFY_EMAIL: Found(), Operation.ENRICH_PERSON: KNOWN}
    )

    result = await search(database_url, Suppressed("ada.quill@acme.com"), source, infer_email=True)

    assert (result.outcome, result.person, source.asked) == ("suppressed", None, [])


async def test_our_own_guess_does_not_bring_anybody_back(database_url):
    result = await search(database_url, Suppressed("ada.quill@acme.com"))

    assert (result.outcome, result.person) == ("suppressed", None)


async def test_an_address_that_was_just_found_ends_the_questions_at_once(database_url):
    source = ScriptedProvider(
        "source",
        {Operation.FIND_EMAIL: Found((email("ada@acme.com"),)), Operation.ENRICH_PERSON: KNOWN},
    )

    result = await search(database_url, Suppressed("ada@acme.com"), source)

    assert result.outcome == "suppressed"
    assert [operation for operation, _ in source.asked] == [Operation.FIND_EMAIL]


async def test_a_private_address_in_an_answer_counts_as_much_as_the_one_for_work(database_url):
    private = Fact("person", "emails", [{"address": "ada@home.com"}], 0.9, "api")
    source = ScriptedProvider("source", {Operation.ENRICH_PERSON: Found((title("CTO"), private))})
    other = ScriptedProvider("other", {Operation.FIND_EMAIL: Found()})

    result = await search(database_url, Suppressed("ada@home.com"), source, other)

    assert (result.outcome, result.person, other.asked) == ("suppressed", None, [])


async def test_who_opts_out_of_a_guess_is_left_alone_by_that_address(database_url):
    suppressed = Suppressed()
    source = ScriptedProvider(
        "source",
        {
            Operation.VERIFY_EMAIL: PersonSuppressed("left alone", provider="source"),
            Operation.ENRICH_PERSON: KNOWN,
        },
    )

    result = await search(database_url, suppressed, source, infer_email=True)

    assert result.outcome == "suppressed"
    assert [operation for operation, _ in source.asked] == [Operation.VERIFY_EMAIL]
    assert suppressed.added == ["ada.quill@acme.com"]
