"""A lead: the caller's data made regular once, so that every source is asked in the same words."""

from __future__ import annotations

from dataclasses import dataclass

from enrichd.domain import fields
from enrichd.domain.emails import Address, InvalidAddress, is_free_mail, parse_address
from enrichd.domain.facts import Entity, Fact, Json
from enrichd.domain.merging import INPUT
from enrichd.domain.names import split_name
from enrichd.domain.payloads import LeadInput
from enrichd.domain.web_links import host_of, registrable_domain, social_profile


@dataclass(frozen=True, slots=True)
class Lead:
    """What the caller knows of a lead: no empty text, a bare lower-case domain, split names."""

    lead_id: str
    email: str | None = None
    """As given; `address` has it if its syntax is right."""
    address: Address | None = None
    email_problem: str | None = None
    """Why `email` is no address, snake_case."""
    first_name: str | None = None
    last_name: str | None = None
    full_name: str | None = None
    company_name: str | None = None
    domain: str | None = None
    """The company's domain, given or that of the email; never one where anybody gets a mailbox."""
    domain_problem: str | None = None
    """Why there is no domain to look a company up by, snake_case."""
    is_domain_given: bool = False
    linkedin_url: str | None = None
    phone: str | None = None
    title: str | None = None
    location: str | None = None


def lead_from(data: LeadInput, lead_id: str | None = None) -> Lead:
    """Make a lead of a payload's input; what cannot be read is left out with its reason."""
    email = (data.email or "").strip() or None
    parsed = parse_address(email) if email else None
    address = parsed if isinstance(parsed, Address) else None
    domain, domain_problem = _company_domain(data.domain, address)
    first, last, full = _names(data)
    return Lead(
        lead_id=lead_id or data.id or "",
        email=parsed.text if isinstance(parsed, InvalidAddress) else _spelled(address),
        address=address,
        email_problem=parsed.reason if isinstance(parsed, InvalidAddress) else None,
        first_name=first,
        last_name=last,
        full_name=full,
        company_name=_text(data.company_name),
        domain=domain,
        domain_problem=domain_problem,
        is_domain_given=domain is not None and bool(_text(data.domain)),
        linkedin_url=_profile_url(data.linkedin_url),
        phone=_text(data.phone),
        title=_text(data.title),
        location=_text(data.location),
    )


def _spelled(address: Address | None) -> str | None:
    return str(address) if address else None


def canonical_key(lead: Lead) -> str:
    """Return what two rows share that may share one answer: everything known but the id.

    Deliberately not the email alone: the caller's other values are part of the answer.
    """
    known = (
        lead.email,
        lead.first_name,
        lead.last_name,
        lead.full_name,
        lead.company_name,
        lead.domain,
        lead.linkedin_url,
        lead.phone,
        lead.title,
        lead.location,
    )
    return "\x1f".join((value or "").casefold() for value in known)


def given_facts(lead: Lead) -> list[Fact]:
    """Return what the caller supplied as facts, and the domain that its email gives away."""
    said: list[tuple[Entity, str, Json]] = [
        ("person", "email", str(lead.address) if lead.address else None),
        ("person", "firstName", lead.first_name),
        ("person", "lastName", lead.last_name),
        ("person", "fullName", lead.full_name),
        ("person", "title", lead.title),
        ("person", "location.raw", lead.location),
        ("person", "phones", lead.phone),
        ("person", "company.name", lead.company_name),
        ("company", "name", lead.company_name),
    ]
    facts = [Fact(entity, path, value, 1.0, INPUT) for entity, path, value in said if value]
    if lead.linkedin_url:
        facts.append(Fact("person", "socialProfiles", lead.linkedin_url, 1.0, INPUT))
    if lead.domain:
        source, confidence = (INPUT, 1.0) if lead.is_domain_given else ("email-domain", 0.9)
        facts.append(Fact("company", "domain", lead.domain, confidence, source))
        facts.append(Fact("person", "company.domain", lead.domain, confidence, source))
    return facts


def normal_domain(text: str) -> str | None:
    """Return the bare ASCII host of a domain or a web page, without `www.`; None if it has none."""
    host = host_of(text)
    return host.removeprefix("www.") if host else None


def _company_domain(given: str | None, address: Address | None) -> tuple[str | None, str | None]:
    if given and given.strip():
        domain = normal_domain(given)
        if domain is None:
            return None, "domain_invalid"
    elif address is not None:
        domain = address.ascii_domain
        if not is_free_mail(domain):
            domain = registrable_domain(domain) or domain
    else:
        return None, "no_domain"
    # Gmail is not where somebody works; looking it up as a company costs credits for nothing.
    return (None, "free_mail_domain") if is_free_mail(domain) else (domain, None)


def _names(data: LeadInput) -> tuple[str | None, str | None, str | None]:
    """Return first, last and full name, each made of the others where it is missing."""
    first, last, full = _text(data.first_name), _text(data.last_name), _text(data.full_name)
    if full and not (first and last):
        split_first, split_last = split_name(full)
        first, last = first or split_first, last or split_last
    if not full and first and last:
        full = f"{first} {last}"
    return first, last, full


def _text(value: str | None) -> str | None:
    return fields.text(value, 512) if value else None


def _profile_url(value: str | None) -> str | None:
    profile = social_profile(value, assume="person") if value else None
    return profile["url"] if profile else None
