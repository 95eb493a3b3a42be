"""What makes two questions the same question.

The key is a hash of the provider, the operation and what of the lead goes into the request, each
part in one spelling. A part that is not sent must not be in it, or two jobs would pay for the same
answer; one that is sent must be, or a lead would get another's.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol, runtime_checkable
from uuid import UUID, uuid5

import orjson

from enrichd.domain.emails import canonical_key
from enrichd.domain.leads import Lead
from enrichd.domain.web_links import registrable_domain, social_profile
from enrichd.providers.contracts import Contract
from enrichd.providers.operations import Operation

VERSION: Final = 1
"""Of the keys and of what is kept under them: another one starts with an empty cache."""

NAMES: Final = ("first_name", "last_name", "full_name")
INPUTS: Final[Mapping[Operation, Sequence[str]]] = {
    Operation.VERIFY_EMAIL: ("address",),
    Operation.FIND_EMAIL: (*NAMES, "domain", "company_name", "linkedin_url", "location"),
    Operation.ENRICH_PERSON: (
        *("email", *NAMES, "domain", "company_name", "linkedin_url"),
        *("phone", "location", "title"),
    ),
    Operation.ENRICH_COMPANY: ("company",),
    Operation.FIND_SOCIAL_PROFILES: (
        *("email", *NAMES, "domain", "company_name", "linkedin_url"),
        *("phone", "location", "title"),
    ),
}
"""The parts of a lead that any provider might send, where its adapter does not say."""


@runtime_checkable
class Sparing(Protocol):
    """An adapter that says what of a lead it sends, so that more leads share an answer.

    The parts are those of `INPUTS`: fields of Lead, `email` for any spelling of one mailbox,
    `address` for this one, `company` for the domain or else the name.
    """

    inputs: Mapping[Operation, Sequence[str]]


@runtime_checkable
class Repeating(Protocol):
    """An adapter some of whose questions make the same request: they share an answer too."""

    def same_request(self, operation: Operation, lead: Lead) -> Operation:
        """Return the operation whose request and answer a question has."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question of one job to one provider."""

    workspace_id: str
    job_id: UUID
    buyer: UUID
    """The job's lead that it is for: it alone says what the answer did cost."""
    provider_id: str
    operation: Operation
    key: bytes
    credits: Decimal
    """The most that it may cost."""
    job_cap: Decimal | None
    addresses: Sequence[str] = ()
    """Whom it is about, as far as that is known."""


def buyer_of(job_id: UUID, lead: Lead) -> UUID:
    """Return what stands for one lead of one job; nobody reads a name out of it."""
    return uuid5(job_id, lead.lead_id)


def cache_key(adapter: object, provider_id: str, operation: Operation, lead: Lead) -> bytes:
    """Return the 32 bytes that all ways to put one question share."""
    if isinstance(adapter, Repeating):
        operation = adapter.same_request(operation, lead)
    names = adapter.inputs.get(operation) if isinstance(adapter, Sparing) else None
    parts = _parts(lead, names if names is not None else INPUTS[operation])
    if not parts:
        # It goes by something of its own; better to pay twice than to mix people up.
        parts = {"lead": repr(lead)}
    version = getattr(adapter, "parameters_version", 1)
    said = [VERSION, provider_id, str(operation), version, sorted(parts.items())]
    return hashlib.sha256(orjson.dumps(said)).digest()


def counted_as(
    adapter: object, contract: Contract | None, operation: Operation, lead: Lead
) -> Operation:
    """Return the operation whose limits a question falls under: that of its endpoint."""
    if isinstance(adapter, Repeating):
        operation = adapter.same_request(operation, lead)
    return contract.counted_as.get(operation, operation) if contract else operation


def _parts(lead: Lead, names: Sequence[str]) -> dict[str, str]:
    parts = {name: value for name in names if (value := _part(lead, name))}
    if "first_name" in parts and "last_name" in parts:
        # It is made of them, or they of it.
        parts.pop("full_name", None)
    return parts


def _part(lead: Lead, name: str) -> str | None:
    match name:
        case "email":
            return canonical_key(lead.address) if lead.address else None
        case "address":
            return f"{lead.address.local}@{lead.address.ascii_domain}" if lead.address else None
        case "domain":
            return _domain(lead)
        case "company":
            return _domain(lead) or _plain(lead.company_name)
        case "linkedin_url":
            return _handle(lead.linkedin_url)
        case _:
            return _plain(getattr(lead, name))


def _domain(lead: Lead) -> str | None:
    return (registrable_domain(lead.domain) or lead.domain) if lead.domain else None


def _handle(url: str | None) -> str | None:
    profile = social_profile(url, assume="person") if url else None
    return f"{profile['kind']}:{profile['handle'].casefold()}" if profile else _plain(url)


def _plain(text: str | None) -> str | None:
    if not text:
        return None
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return plain.encode("utf-8", "replace").decode()
