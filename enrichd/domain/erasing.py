"""What is left of a job when a person in it is erased.

A job that is about the person alone keeps its id, type and times and loses everything else. One
about many people loses that person: a batch's lead, an address of a validation, an entry of a list.
Who the person is, is an address in any of its spellings, wherever in the JSON it stands.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from enrichd.domain.emails import Address
from enrichd.domain.facts import Json
from enrichd.domain.lead_results import LeadOutcome, LeadResult

ERASED: Final = "(erased)"
NOTHING: Final[Mapping[str, Json]] = {"erased": True}
DEPTH_MAX: Final = 100
"""What is nested deeper goes as a whole."""

ABOUT_ONE: Final = frozenset({"single_lead_enrichment", "social_profile_discovery"})
COMPANY_INPUTS: Final = ("domain", "companyName")
"""What of a company's input says nothing about a person."""

AT: Final = r"(?:@|%40|\\u0040)"
PLUS: Final = r"(?:\+|%2B)"
GMAIL: Final = frozenset({"gmail.com", "googlemail.com"})


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody to look for."""

    exact: re.Pattern[str]
    rough: str
    """A PostgreSQL regular expression that finds more than `exact`, and never less."""

    def is_in(self, value: object) -> bool:
        """Say whether any text in a value, keys included, has the person's address."""
        inside = [value]
        while inside:
            match inside.pop():
                case str() as text:
                    if self.exact.search(text) or self.exact.search(_plain(text)):
                        return True
                case Mapping() as parts:
                    inside += [*parts.keys(), *parts.values()]
                case list() | tuple() as parts:
                    inside += parts
                case _:
                    pass
        return False

    def out_of(self, value: Any, depth: int = 0) -> Any:
        """Return a value with the address taken out of every text."""
        match value:
            case str():
                if not self.is_in(value):
                    return value
                mended = self.exact.sub(ERASED, value)
                return ERASED if self.is_in(mended) else mended
            case Mapping() | list() | tuple() if depth >= DEPTH_MAX:
                return ERASED if self.is_in(value) else value
            case Mapping():
                return {
                    self.out_of(key): self.out_of(part, depth + 1) for key, part in value.items()
                }
            case list() | tuple():
                return [self.out_of(part, depth + 1) for part in value]
            case _:
                return value


def person_of(address: Address) -> Person:
    """Return how to find a person by all spellings of the address."""
    local, domains = address.local.casefold(), {address.domain, address.ascii_domain}
    name = re.escape(local).replace(re.escape("+"), PLUS)
    if address.ascii_domain in GMAIL:
        domains = set(GMAIL)
        if letters := local.split("+", 1)[0].replace(".", ""):
            name = r"\.*".join(map(re.escape, letters)) + rf"\.*(?:{PLUS}[\w.+%-]*)?"
    host = "|".join(map(re.escape, sorted(domains)))
    exact = re.compile(
        rf"(?<![\w.!#$%^{{|}}~*+-]){name}{AT}(?:{host})(?![\w-])(?!\.\w)"
        # After an escape such as %3C the address begins although a letter is before it.
        rf"|(?<=%[0-9A-F]{{2}}){name}{AT}(?:{host})(?![\w-])(?!\.\w)",
        re.IGNORECASE,
    )
    # Other scripts have capitals that PostgreSQL may not know, depending on its locale.
    core = f"{name}{AT}(?:{host})" if local.isascii() else f"{AT}(?:{host})"
    # Full-width letters are the same address too: whatever has any is looked at.
    return Person(exact, f"{core}|[\uff01-\uff5e]")


def _plain(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFKC", text)


@dataclass(frozen=True, slots=True)
class JobParts:
    """What of a job may hold a person."""

    type: str
    payload: Any
    result: Any
    error: Any
    tags: Sequence[str]
    idempotency_key: str | None
    webhook_url: str | None
    items: Collection[str] = ()
    """The keys of a batch's finished leads that hold the person."""


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of it."""

    is_whole: bool
    """Whether the job was about that person alone."""
    payload: Any
    result: Any
    error: Any
    tags: Sequence[str]
    idempotency_key: str | None
    webhook_url: str | None
    leads: Mapping[str, str] = field(default_factory=dict)
    """Of a batch: the key of each lead that went, and the key that it has from now on."""


def left_of(job: JobParts, person: Person, *, spare_key: str) -> Left | None:
    """Return what is left of a job without a person; None if the person is not in it.

    `spare_key` takes the place of an idempotency key that names the person.
    """
    names = (job.tags, job.idempotency_key, job.webhook_url)
    bodies = (job.payload, job.result, job.error)
    if not person.is_in([*bodies, *names]) and not job.items:
        return None
    payload, result, is_whole = job.payload, job.result, False
    leads: Mapping[str, str] = {}
    if person.is_in(bodies) or job.items:
        is_whole, payload, result, leads = _bodies(job, person)
    if is_whole:
        payload = dict(NOTHING)
        result = None if job.result is None else {"outcome": str(LeadOutcome.SUPPRESSED), **NOTHING}
    return Left(
        is_whole=is_whole,
        payload=payload,
        result=result,
        error=_error(job.error) if is_whole else person.out_of(job.error),
        tags=[tag for tag in job.tags if not person.is_in(tag)],
        idempotency_key=spare_key if person.is_in(job.idempotency_key) else job.idempotency_key,
        webhook_url=None if person.is_in(job.webhook_url) else job.webhook_url,
        leads=leads,
    )


def suppressed_lead(key: str) -> dict[str, Json]:
    """Return the result of a batch's lead that was erased."""
    return LeadResult(key, LeadOutcome.SUPPRESSED).to_json()


def lead_keys(payload: Mapping[str, Any]) -> list[str]:
    """Return the keys under which a batch keeps its leads, in their order."""
    if ids := payload.get("leadIds"):
        return [str(one) for one in ids]
    keys: dict[str, None] = {}
    for place, lead in enumerate(payload.get("leads") or (), start=1):
        key = lead.get("id") or f"#{place}"
        keys[f"{key}#{place}" if key in keys else key] = None
    return list(keys)


def _bodies(job: JobParts, person: Person) -> tuple[bool, Any, Any, dict[str, str]]:
    """Return whether the job is about the person alone, else its payload, result and leads."""
    payload = job.payload if isinstance(job.payload, dict) else {}
    if job.type in ABOUT_ONE:
        return True, None, None, {}
    if job.type == "batch_lead_enrichment" and _has_leads(payload):
        is_whole, payload, leads = _batch(payload, person, job.items)
        return is_whole, payload, person.out_of(job.result), leads
    if job.type == "email_validation" and isinstance(payload.get("emails"), list):
        emails = payload["emails"]
        left = [ERASED if person.is_in(one) else one for one in emails]
        is_whole = all(one == ERASED for one in left)
        return is_whole, {**payload, "emails": left}, _verdicts(job.result, person), {}
    if job.type == "company_data_update":
        given = payload.get("inputData")
        if isinstance(given, Mapping) and person.is_in(given):
            given = {name: given[name] for name in COMPANY_INPUTS if name in given}
            payload = {**payload, "inputData": given}
        return False, person.out_of(payload), person.out_of(job.result), {}
    is_whole, payload = _lists(job.payload, person)
    is_named, result = _lists(job.result, person)
    return is_whole, payload, dict(NOTHING) if is_named else result, {}


def _has_leads(payload: Mapping[str, Any]) -> bool:
    """Say whether a payload names leads the way a batch does: plain SQL may enqueue anything."""
    ids, leads, given = (payload.get(name) for name in ("leadIds", "leads", "inputData"))
    if given is not None and not isinstance(given, Mapping):
        return False
    if ids:
        return isinstance(ids, list)
    return isinstance(leads, list) and all(isinstance(lead, Mapping) for lead in leads)


def _batch(
    payload: dict[str, Any], person: Person, items: Collection[str]
) -> tuple[bool, dict[str, Any], dict[str, str]]:
    keys = lead_keys(payload)
    given = payload.get("inputData") or {}
    leads = payload.get("leads") or []
    gone: dict[str, str] = {}
    for place, key in enumerate(keys):
        data = given.get(key) if payload.get("leadIds") else leads[place]
        if key in items or person.is_in([key, data]):
            gone[key] = f"erased-{place + 1}" if person.is_in(key) else key
    left = dict(payload)
    if payload.get("leadIds"):
        left["leadIds"] = [gone.get(key, key) for key in keys]
        left["inputData"] = {key: data for key, data in given.items() if key not in gone}
    else:
        # Without an id of its own a lead is called by its place.
        left["leads"] = [
            lead if key not in gone else {"id": gone[key]} if lead.get("id") else {}
            for key, lead in zip(keys, leads, strict=False)
        ]
    return len(gone) == len(keys), person.out_of(left), gone


def _verdicts(result: Any, person: Person) -> Any:
    if not isinstance(result, Mapping):
        return person.out_of(result)
    unknown: Json = {"email": None, "verdict": "unknown", "reasons": ["suppressed"]}
    listed = result.get("results")
    if not isinstance(listed, list):
        return person.out_of(result)
    results = [unknown if person.is_in(one) else one for one in listed]
    return person.out_of({**result, "results": results})


def _lists(value: Any, person: Person) -> tuple[bool, Any]:
    """Return whether a value names the person outside of its lists, and it without their entries.

    Of a type that others brought nothing is known but this: a list has many people in it.
    """
    if not isinstance(value, Mapping):
        return person.is_in(value), value
    left: dict[str, Any] = {}
    is_named = False
    for name, part in value.items():
        is_about_others = isinstance(part, list) and not all(map(person.is_in, part))
        if is_about_others and not person.is_in(name):
            left[name] = [
                one if not person.is_in(one) else ERASED if isinstance(one, str) else dict(NOTHING)
                for one in part
            ]
            continue
        is_named = is_named or person.is_in([name, part])
        left[name] = part
    return is_named, left


def _error(error: Any) -> Any:
    """Return an error that says nothing but its kind."""
    if not isinstance(error, Mapping):
        return None
    kept = {name: error[name] for name in ("type", "provider", "retryable") if name in error}
    return {**kept, "message": ERASED}
