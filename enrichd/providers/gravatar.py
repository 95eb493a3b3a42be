"""What a person says about themselves on Gravatar, by the hash of their email address.

Works without a key, a hundred times an hour; with one, a thousand times and with more fields.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final

import httpx

from enrichd.domain.facts import Fact, Facts, Json, Missing
from enrichd.domain.web_links import social_profile
from enrichd.providers.site_api import ANSWER_S, ask_json
from enrichd.providers.site_text import clean_text, http_url

BASE_URL: Final = "https://api.gravatar.com/v3"
CONFIDENCE: Final = 0.7
"""Self-declared, and nobody checks it."""
ACCOUNTS_MAX: Final = 20

_TEXTS: Final = (
    ("display_name", "fullName", 200),
    ("first_name", "firstName", 100),
    ("last_name", "lastName", 100),
    ("job_title", "title", 200),
    ("company", "company.name", 200),
    ("location", "location.raw", 300),
    ("description", "bio", 2_000),
    ("timezone", "timeZone", 60),
)


async def gravatar_facts(
    email: str,
    *,
    client: httpx.AsyncClient,
    base_url: str = BASE_URL,
    api_key: str | None = None,
    timeout_s: float = ANSWER_S,
) -> Facts:
    """Return what the owner of an address has published.

    A `Missing` for `*` says why there is nothing: `not_found` for an address without a profile,
    `empty` for a profile that says nothing, or another reason of `ApiAnswer`.
    """
    name = hashlib.sha256(email.strip().lower().encode("utf-8", "replace")).hexdigest()
    url = f"{base_url.rstrip('/')}/profiles/{name}"
    headers = {"Accept": "application/json"}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    answer = await ask_json(client, url, headers=headers, timeout_s=timeout_s)
    reason = answer.reason
    if reason is None and not isinstance(answer.value, dict):
        reason = "garbled"
    if reason is not None:
        return Facts((), (Missing("person", "*", reason),))
    facts = tuple(_facts(answer.value, name))
    return Facts(facts, () if facts else (Missing("person", "*", "empty"),))


def _facts(profile: dict[str, Any], name: str) -> Iterator[Fact]:
    source_url = http_url(profile.get("profile_url"), "") or f"https://gravatar.com/{name}"

    def fact(field: str, value: Json) -> Fact:
        return Fact("person", field, value, CONFIDENCE, "gravatar", source_url)

    for key, field, chars_max in _TEXTS:
        text = clean_text(profile.get(key), chars_max)
        if text is not None:
            yield fact(field, text)
    avatar = http_url(profile.get("avatar_url"), "")
    if avatar is not None:
        yield fact("avatarUrl", avatar)
    accounts = _accounts(profile)
    if accounts:
        yield fact("socialProfiles", accounts)


def _accounts(profile: dict[str, Any]) -> list[Json]:
    """Return the profile itself and the accounts Gravatar saw its owner log in to."""
    found: dict[str, Json] = {}
    listed = profile.get("verified_accounts")
    urls = [
        account.get("url")
        for account in (listed[:ACCOUNTS_MAX] if isinstance(listed, list) else [])
        if isinstance(account, dict) and account.get("is_hidden") is not True
    ]
    for url in (profile.get("profile_url"), *urls):
        account = social_profile(url, assume="person") if isinstance(url, str) else None
        if account is not None and account["kind"] == "person":
            found[account["url"]] = {
                **account,
                "verified": True,
                "source": "gravatar",
                "confidence": CONFIDENCE,
            }
    return list(found.values())
