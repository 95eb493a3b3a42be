"""From the text of a cell to a lead's field: trimmed, NFC, a URL cut down to its domain."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import urlsplit

from enrichd.ctl.sheet_aliases import word_set

LEAD_FIELD_CHARS_MAX = 512
ID_CHARS_MAX = 200

# Other text is cut where it is too long; a cut address or id would be a different one.
WHOLE_FIELDS = frozenset({"id", "email", "domain", "linkedinUrl"})

PLACEHOLDERS = word_set(
    """- -- --- . ? / n/a #n/a na n.a. none null nil undefined unknown tbd #value! #ref! #name?
    k.a. nvt n.v.t. nan"""
)

EMAIL = re.compile(r"[^\s@<>,;:|\"']+@[^\s@<>,;:|\"']+\.[^\s@<>,;:|\"'.]{2,}")
HOST = re.compile(
    r"(?=.{4,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{1,62}"
)
PLAIN_SITE = re.compile(r"(?:https?://)?(?:www\.)?([a-z0-9.-]+)(?:[/?#].*)?", re.DOTALL)
LINKEDIN_PROFILE = re.compile(r"(?:[a-z]+://)?(?:[\w-]+\.)?linkedin\.com/.+", re.IGNORECASE)
LINKEDIN_PATH = re.compile(r"/?(?:in|pub)/[^\s/]+/?", re.IGNORECASE)
LINKEDIN_COMPANY = re.compile(r"linkedin\.com/(?:company|school|showcase)/", re.IGNORECASE)
INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff]+"
)

# A page there is about the company and not of it.
FOREIGN_HOSTS = word_set(
    """linkedin.com facebook.com instagram.com x.com twitter.com youtube.com github.com xing.com
    tiktok.com google.com maps.google.com linktr.ee crunchbase.com"""
)


def clean_text(value: str) -> str:
    """Return a cell as one trimmed line in NFC; "" if it only says "nothing" (`n/a`)."""
    if not value.isascii() or not value.isprintable():
        value = unicodedata.normalize("NFC", INVISIBLE.sub(" ", value))
    value = " ".join(value.split())
    return "" if len(value) <= 9 and value.lower() in PLACEHOLDERS else value


def clean_email(value: str) -> str:
    """Return the first address in a cell (`Anna <anna@x.de>; b@x.de`), else "" without an @."""
    text = clean_text(value)
    if EMAIL.fullmatch(text):
        return text
    if "@" not in text:
        return ""
    # A broken address is passed on: it is the verification that says what is wrong with it.
    found = EMAIL.search(text.removeprefix("mailto:"))
    return found.group() if found else text


def clean_domain(value: str) -> str:
    """Return the host of a domain, URL or e-mail address in lower case without `www.`, or ""."""
    text = clean_text(value).lower()
    plain = PLAIN_SITE.fullmatch(text)
    host = plain.group(1) if plain else _host(text)
    host = host.strip(".").removeprefix("www.")
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            return ""
    return host if HOST.fullmatch(host) and host not in FOREIGN_HOSTS else ""


def _host(text: str) -> str:
    """Return the host of a URL as people write it: `//x.de:80`, `a@x.de`, `x.de, y.de`."""
    first = re.split(r"[\s,;|]", text.replace("\\", "/"), maxsplit=1)[0]
    try:
        return urlsplit(first if "//" in first else "//" + first).hostname or ""
    except ValueError:
        return ""


def clean_linkedin(value: str) -> str:
    """Return a person's LinkedIn URL with its scheme, or "" if the cell holds none."""
    text = clean_text(value)
    if LINKEDIN_PATH.fullmatch(text):
        return "https://www.linkedin.com/" + text.strip("/")
    if not LINKEDIN_PROFILE.fullmatch(text) or LINKEDIN_COMPANY.search(text):
        return ""
    return text if "://" in text else "https://" + text


NOTHING_TO_LOOK_UP = "nothing to look up: no email, domain, company or LinkedIn URL"
CLEANERS = {"email": clean_email, "domain": clean_domain, "linkedinUrl": clean_linkedin}


def read_lead(cells: Iterable[tuple[str, str]]) -> tuple[dict[str, str], str | None]:
    """Build a lead from (field, cell) pairs: the lead, and why it cannot be used or None."""
    lead: dict[str, str] = {}
    for field, cell in cells:
        value = CLEANERS.get(field, clean_text)(cell) if cell else ""
        most = ID_CHARS_MAX if field == "id" else LEAD_FIELD_CHARS_MAX
        if len(value) > most:
            if field in WHOLE_FIELDS:
                return lead, f"{field} is longer than {most} characters"
            value = value[:most].rstrip()
        if value:
            lead[field] = value
    if "city" in lead or "country" in lead:
        _join_location(lead)
    return lead, None if is_usable(lead) else NOTHING_TO_LOOK_UP


def _join_location(lead: dict[str, str]) -> None:
    parts = (lead.pop("city", ""), lead.pop("country", ""))
    location = ", ".join(filter(None, parts))[:LEAD_FIELD_CHARS_MAX]
    lead.setdefault("location", location)


def is_usable(lead: dict[str, str]) -> bool:
    """Tell if a source could be asked about the lead at all."""
    return not lead.keys().isdisjoint(("email", "domain", "companyName", "linkedinUrl"))
