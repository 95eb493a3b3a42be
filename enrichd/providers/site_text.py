"""From what a website wrote to clean values: text, years, head counts, phones, countries, links.

All of it is a stranger's text of any size. Every function cuts before it looks, takes linear time,
and answers None to what it cannot use.
"""

from __future__ import annotations

import html
import importlib.util
import re
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import phonenumbers

from enrichd.domain.fields import EMPLOYEE_RANGES, LARGEST_RANGE
from enrichd.domain.web_links import host_of

URL_CHARS_MAX: Final = 2_048
PHONE_CHARS_MAX: Final = 40

# `html.unescape` turns digits into an int, which refuses thousands of them with ValueError.
_LONG_REFERENCE = re.compile(r"&#[xX]?[0-9a-fA-F]{8,};?")
_TAG = re.compile(r"<[^<>]{0,400}>")
_INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ud800-\udfff\ufeff]"
)
_YEAR = re.compile(r"(?<!\d)(1[0-9]{3}|20[0-9]{2})(?!\d)")
_COUNT = re.compile(r"\d{1,3}(?:[.,' \u00a0]\d{3})+(?!\d)|\d{1,9}(?!\d)")
_EMAIL = re.compile(r"[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,5}")
_NOT_REAL_HOSTS = frozenset(
    {"example.com", "example.org", "example.net", "domain.com", "email.com"}
)

# Country codes that are sold as words; a company there says nothing of where it is.
_SOLD_TLD_WORDS = "ac ai bz cc cd co fm gg im io la ly me nu sh so st tk to tv vc ws"
_SOLD_TLDS: Final = frozenset(_SOLD_TLD_WORDS.split())
_COUNTRY_LANGUAGES = ("en", "de", "fr", "es", "it", "nl", "pt", "pl", "sv", "da")
_COUNTRY_ALIASES: Final = {
    "usa": "US",
    "u.s.a.": "US",
    "u.s.": "US",
    "united states of america": "US",
    "uk": "GB",
    "u.k.": "GB",
    "great britain": "GB",
    "england": "GB",
    "scotland": "GB",
    "wales": "GB",
    "northern ireland": "GB",
    "the netherlands": "NL",
    "holland": "NL",
    "czech republic": "CZ",
    "turkey": "TR",
}


def unescape(text: str) -> str:
    """Resolve character references, those with absurdly many digits left out."""
    return html.unescape(_LONG_REFERENCE.sub("", text)) if "&" in text else text


def clean_text(value: Any, chars_max: int = 300) -> str | None:
    """Return one line of visible text without markup, or None if nothing is left."""
    if not isinstance(value, str):
        return None
    text = unescape(value[: chars_max * 8])
    if "<" in text:
        text = _TAG.sub(" ", text)
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    return " ".join(text.split())[:chars_max].strip() or None


def http_url(value: Any, base: str) -> str | None:
    """Return an absolute http or https URL with a real host and no credentials, or None."""
    if not isinstance(value, str) or not 0 < len(value) <= URL_CHARS_MAX:
        return None
    try:
        url = urljoin(base, unescape(value.strip()).replace(" ", "%20"))
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.username is None
    except ValueError:
        return None
    return url if usable and len(url) <= URL_CHARS_MAX and host_of(url) else None


def year(value: Any) -> int | None:
    """Return the first plausible year of a date in any notation."""
    text = str(value) if isinstance(value, int) and 0 < value < 10_000 else value
    found = _YEAR.search(text[:100]) if isinstance(text, str) else None
    return int(found[1]) if found else None


def head_count(value: Any) -> tuple[int | None, str | None]:
    """Return employees as (count, size class): one of them, or neither.

    Takes a number, `"1,200"`, `"11-50"`, or a QuantitativeValue with `value` or bounds. Bounds that
    are no size class of ours are not forced into one.
    """
    if isinstance(value, dict):
        one = head_count(value.get("value"))
        if one != (None, None):
            return one
        least, most = (head_count(value.get(key))[0] for key in ("minValue", "maxValue"))
        return None, _size_class(least, most)
    if isinstance(value, list):
        return head_count(value[0]) if value else (None, None)
    if isinstance(value, bool):
        return None, None
    if isinstance(value, int | float):
        return (int(value), None) if 1 <= value <= 10_000_000 else (None, None)
    if not isinstance(value, str):
        return None, None
    text = value[:60]
    counts = [int(re.sub(r"\D", "", found)) for found in _COUNT.findall(text)]
    if len(counts) == 2 and counts[0] < counts[1]:
        return None, _size_class(counts[0], counts[1])
    if len(counts) != 1 or not 1 <= counts[0] <= 10_000_000:
        return None, None
    return (None, _size_class(counts[0], None)) if "+" in text else (counts[0], None)


def _size_class(least: int | None, most: int | None) -> str | None:
    if most is None:
        return LARGEST_RANGE if least in (10_000, 10_001) else None
    name = dict(EMPLOYEE_RANGES).get(most)
    return name if name and least in (0, int(name.split("-")[0])) else None


def phone(value: Any, region: str | None) -> str | None:
    """Return a valid number in E.164; `region` is where it would be dialled without a prefix."""
    text = clean_text(value, PHONE_CHARS_MAX)
    if text is None:
        return None
    try:
        # `+49 (0)30 …` is how Germans write it; the zero is not dialled after a prefix.
        number = phonenumbers.parse(re.sub(r"^(\+\d+\s*)\(0\)", r"\1", text), region)
    except phonenumbers.NumberParseException:
        return None
    if not phonenumbers.is_valid_number(number):
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def phones_in(text: str, region: str | None, *, most: int = 3) -> list[str]:
    """Return the valid numbers written in a text, in E.164."""
    matches = phonenumbers.PhoneNumberMatcher(
        text[:6_000], region or "ZZ", leniency=phonenumbers.Leniency.VALID, max_tries=50
    )
    found: list[str] = []
    for match in matches:
        number = phonenumbers.format_number(match.number, phonenumbers.PhoneNumberFormat.E164)
        if number not in found:
            found.append(number)
        if len(found) == most:
            break
    return found


def email(value: Any) -> str | None:
    """Return an address (of a `mailto:` link too) with its host in lower case, or None."""
    text = clean_text(value, 320)
    if text is None:
        return None
    text = re.sub(r"(?i)^mailto:", "", text).partition("?")[0].strip()
    if not _EMAIL.fullmatch(text):
        return None
    local, _, host = text.rpartition("@")
    host = host.lower()
    return None if host in _NOT_REAL_HOSTS or host_of(host) is None else f"{local}@{host}"


def country_code(value: Any) -> str | None:
    """Return the ISO 3166 code of a code or of a name in one of ten languages."""
    text = clean_text(value, 60)
    if text is None:
        return None
    if len(text) == 2 and text.upper() in phonenumbers.SUPPORTED_REGIONS:
        return text.upper()
    folded = text.casefold()
    return _COUNTRY_ALIASES.get(folded) or _country_codes().get(folded)


def region_of_tld(domain: str) -> str | None:
    """Return the country a domain's last label stands for, unless it is sold as a word."""
    tld = domain.rsplit(".", 1)[-1].lower()
    if tld == "uk":
        return "GB"
    code = tld.upper()
    return code if tld not in _SOLD_TLDS and code in phonenumbers.SUPPORTED_REGIONS else None


@cache
def _country_codes() -> dict[str, str]:
    codes: dict[str, str] = {}
    for code, names in _country_names().items():
        for language in _COUNTRY_LANGUAGES:
            name = names.get(language, "")
            name = names.get(name[1:], "") if name.startswith("*") else name
            codes.setdefault(name.casefold(), code)
    codes.pop("", None)
    return codes


def _country_names() -> dict[str, dict[str, str]]:
    """Return each country's names by language, as phonenumbers has them."""
    # Loaded by its path: importing its package loads the names of every dialling area as well, for
    # 100 MB and a quarter of a second in each process. The name keeps its relative import working.
    path = Path(phonenumbers.__file__).parent / "geodata" / "locale.py"
    spec = importlib.util.spec_from_file_location("phonenumbers.geodata.locale", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names: dict[str, dict[str, str]] = module.LOCALE_DATA
    return names
