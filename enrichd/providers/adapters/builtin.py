"""What can be found out without a key: DNS, the company's own website, its registry, Gravatar.

Network trouble is an answer here, not an error: a source that cannot be reached says so under
`missing`. A domain's and a person's facts are kept in memory for a while, and a thousand leads of
one company read its website once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import ClassVar

from enrichd.domain.email_verdicts import EmailVerification
from enrichd.domain.emails import canonical_key
from enrichd.domain.facts import Entity, Fact, Facts, Json, Missing
from enrichd.providers.base import Found, Operation, Query, provider
from enrichd.providers.client import Connections
from enrichd.providers.email_validation import validate_email
from enrichd.providers.gravatar import BASE_URL as GRAVATAR_URL
from enrichd.providers.gravatar import gravatar_facts
from enrichd.providers.kept_answers import KeptAnswers
from enrichd.providers.patterns import CONFIRMED_CONFIDENCE, GUESS_CONFIDENCE, Guess, guesses
from enrichd.providers.rdap import Bootstrap, rdap_facts
from enrichd.providers.site_reader import read_company_site
from enrichd.settings.providers import ProviderSettings

SOURCE_S = 40.0
"""The most that one source may take, above its own bounds; then it is named as missing."""
KEEP_S = 3_600.0
KEEP_TROUBLE_S = 60.0
KEPT_MAX = 2_000
"""Companies and people in memory, some kilobytes each."""
PROBES_MAX = 5
"""Mailboxes of one company that a mail server is asked about for one guess."""


@provider("builtin")
class Builtin:
    """The keyless sources as one provider; it costs nothing."""

    provider_id: ClassVar[str]
    operations: ClassVar[frozenset[Operation]] = frozenset(Operation)

    def __init__(self, connections: Connections, settings: ProviderSettings) -> None:
        self._connections = connections
        rdap = connections.settings_of("rdap")
        self._bootstrap = Bootstrap(base_url=rdap.base_url)
        self._sites: KeptAnswers[Facts] = KeptAnswers(kept_max=KEPT_MAX)
        self._registries: KeptAnswers[Facts] = KeptAnswers(kept_max=KEPT_MAX)
        self._profiles: KeptAnswers[Facts] = KeptAnswers(kept_max=KEPT_MAX)

    def cost_credits(self, operation: Operation) -> Decimal:
        """Return zero."""
        return Decimal(0)

    def can_answer(self, operation: Operation, query: Query) -> str | None:
        """Return what is lacking to ask about this lead, or None."""
        match operation:
            case Operation.VERIFY_EMAIL:
                return None if query.email is not None else "no_email"
            case Operation.FIND_EMAIL:
                if not (query.first_name and query.last_name):
                    return "no_name"
                return query.domain_problem if query.domain is None else None
            case Operation.ENRICH_PERSON:
                return None if query.address else query.email_problem or "no_email"
            case Operation.ENRICH_COMPANY:
                return None if query.domain else query.domain_problem or "no_domain"
            case Operation.FIND_SOCIAL_PROFILES:
                has_way = query.domain is not None or query.address is not None
                return None if has_way else query.domain_problem or "no_domain"

    async def call(self, operation: Operation, query: Query) -> Found:
        """Ask the sources that know about this; never raises for anything the network does."""
        match operation:
            case Operation.VERIFY_EMAIL:
                return Found(verification=await self._verify(query.email or ""))
            case Operation.FIND_EMAIL:
                return await self._guess_email(query)
            case Operation.ENRICH_PERSON:
                return _found([await self._profile(query)])
            case Operation.ENRICH_COMPANY:
                async with asyncio.TaskGroup() as group:
                    site = group.create_task(self._site(query))
                    registry = group.create_task(self._registry(query))
                return _found([site.result(), registry.result()])
            case Operation.FIND_SOCIAL_PROFILES:
                async with asyncio.TaskGroup() as group:
                    profile = group.create_task(self._profile(query))
                    site = group.create_task(self._site(query))
                return _found(map(_social_only, [profile.result(), site.result()]))

    async def _verify(self, email: str) -> EmailVerification:
        return await validate_email(
            email,
            resolver=self._connections.resolver,
            probe=self._connections.prober,
            checked_at=_now(),
        )

    async def _guess_email(self, query: Query) -> Found:
        """Offer the likeliest address; only a mail server can make more of it than a guess."""
        assert query.first_name is not None
        assert query.last_name is not None
        assert query.domain is not None
        candidates = guesses(query.first_name, query.last_name, query.domain)
        if not candidates:
            return _no_email("name_has_no_latin_letters")
        first: tuple[Guess, EmailVerification] | None = None
        for guess in candidates[: PROBES_MAX if self._connections.prober else 1]:
            verification = await self._verify(guess.address)
            if verification.mx.found is False:
                return _no_email(verification.reasons[0])
            if verification.verdict == "valid":
                return _email(guess, verification, CONFIRMED_CONFIDENCE)
            if verification.verdict != "invalid" and first is None:
                first = guess, verification
            if verification.verdict != "invalid":
                # Catch-all, blocked, greylisted: the next guess would hear the same.
                break
        return _email(*first, GUESS_CONFIDENCE) if first else _no_email("no_pattern_exists")

    async def _site(self, query: Query) -> Facts:
        if query.domain is None:
            return _nothing("company", query.domain_problem or "no_domain")
        domain = query.domain

        async def read() -> tuple[Facts, float]:
            try:
                async with asyncio.timeout(SOURCE_S):
                    facts = await read_company_site(domain, fetcher=self._connections.fetcher)
            except TimeoutError:
                facts = _nothing("company", "timeout")
            return facts, _keep_s(facts)

        return await self._sites.get(domain, read)

    async def _registry(self, query: Query) -> Facts:
        assert query.domain is not None
        domain = query.domain

        async def read() -> tuple[Facts, float]:
            try:
                async with asyncio.timeout(SOURCE_S):
                    facts = await rdap_facts(
                        domain, client=self._connections.http, bootstrap=self._bootstrap
                    )
            except TimeoutError:
                facts = _nothing("company", "timeout", "domainRegisteredAt")
            return facts, _keep_s(facts)

        return await self._registries.get(domain, read)

    async def _profile(self, query: Query) -> Facts:
        if query.address is None:
            return _nothing("person", query.email_problem or "no_email")
        email = str(query.address)
        chosen = self._connections.settings_of("gravatar")

        async def read() -> tuple[Facts, float]:
            try:
                async with asyncio.timeout(SOURCE_S):
                    facts = await gravatar_facts(
                        email,
                        client=self._connections.http,
                        base_url=chosen.base_url or GRAVATAR_URL,
                        api_key=chosen.api_key.get_secret_value() if chosen.api_key else None,
                    )
            except TimeoutError:
                facts = _nothing("person", "timeout")
            return facts, _keep_s(facts)

        return await self._profiles.get(canonical_key(query.address), read)


def _now() -> str:
    now = datetime.now(UTC)  # noqa: TID251 - when something was checked, not when a job is due
    return now.isoformat(timespec="seconds").replace("+00:00", "Z")


def _keep_s(facts: Facts) -> float:
    return KEEP_S if facts.facts else KEEP_TROUBLE_S


def _nothing(entity: Entity, reason: str, path: str = "*") -> Facts:
    return Facts(missing=(Missing(entity, path, reason),))


def _found(answers: Iterable[Facts]) -> Found:
    facts: list[Fact] = []
    missing: list[Missing] = []
    for answer in answers:
        facts += answer.facts
        missing += answer.missing
    return Found(facts=facts, missing=missing)


def _social_only(facts: Facts) -> Facts:
    return Facts(
        facts=[fact for fact in facts.facts if fact.field == "socialProfiles"],
        missing=[gap for gap in facts.missing if gap.field in ("*", "socialProfiles")],
    )


def _no_email(reason: str) -> Found:
    return Found(missing=(Missing("person", "email", reason),))


def _email(guess: Guess, verification: EmailVerification, confidence: float) -> Found:
    is_confirmed = confidence > GUESS_CONFIDENCE
    entry: dict[str, Json] = {
        "address": guess.address,
        "type": "work",
        "status": str(verification.verdict) if is_confirmed else "guess",
        "primary": True,
        "pattern": guess.pattern,
    }
    source = "smtp" if is_confirmed else "pattern"
    return Found(
        facts=(
            Fact("person", "email", guess.address, confidence, source),
            Fact("person", "emails", [entry], confidence, source),
        ),
        verification=verification,
    )
