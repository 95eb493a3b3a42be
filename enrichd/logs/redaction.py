"""What may be logged: turns any value into plain JSON of bounded size without secrets or addresses.

Three nets, because each has holes: the name a value goes by (`api_key`), the look of a value
(`Bearer …`), and the secrets this process knows (`register_secret`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any, TypeAlias
from urllib.parse import quote

Replacement: TypeAlias = str | Callable[[re.Match[str]], str]

REDACTED = "***"
TEXT_MAX = 8_192
"""Characters of one value that are kept."""
SCANNED_MAX = 65_536
"""Characters that are searched; the rest is dropped unseen, so a huge value costs little."""
ITEMS_MAX = 100
DEPTH_MAX = 6
SECRETS_MAX = 1_000
SECRET_LENGTH_MIN = 6
"""Shorter ones are not searched for: hiding every `test` would make logs unreadable."""

_SECRET_WORDS = frozenset(
    {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "tokens", "jwt"}
    | {"authorization", "cookie", "cookies", "credential", "credentials", "dsn", "conninfo"}
    | {"apikey"}
)
_SECRET_PAIRS = frozenset(
    {"api key", "api keys", "private key", "access key", "service key", "role key", "anon key"}
    | {"signing key", "encryption key"}
)
# password_file and token_count tell nothing; password_hash does.
_HARMLESS_LAST_WORDS = frozenset(
    ("id", "ids", "name", "count", "file", "source", "length", "expires")
)
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")

# Most values are ids and numbers; without one of these no pattern below can match.
_WORTH_A_LOOK = re.compile(r"[@=:\s]|%40|whsec_|sb_secret_|eyJ")

# Local part and domain are bounded, so a long run of letters costs no more than its length. The
# user of a URL (postgresql://app@db.example.com) is no mailbox and stays.
_EMAIL = re.compile(
    r"(?<![\w.%+'-])(?<!//)([\w.%+'-]{1,64})(?:@|%40)((?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,63})"
)
_PATTERNS: tuple[tuple[re.Pattern[str], Replacement], ...] = (
    # To the last @ of the word: a password may hold one, or a slash, unescaped.
    (re.compile(r"\b(postgres(?:ql)?://[^\s:/@]{0,256}:)[^\s\"'<>]{0,512}@"), rf"\1{REDACTED}@"),
    (re.compile(r"(://[^\s:/@]{0,256}:)[^\s/@]{1,512}@"), rf"\1{REDACTED}@"),
    (
        re.compile(
            r"(?<![A-Za-z])(pass(?:word|wd|phrase)|pwd|api[ _-]?key|(?:role|anon|private)[_-]key"
            r"|secret|token|authorization|credentials?)(\\?[\"']?\s*[=:]\s*)"
            r"((?:Bearer|Basic)\s+\S+|\"[^\"]*\"|'[^']*'|[^\s,;&)}\]]+)",
            re.IGNORECASE,
        ),
        rf"\1\2{REDACTED}",
    ),
    (re.compile(r"\b(Bearer|Basic)\s+[^\s,;\"']{4,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"\b(whsec_|sb_secret_)[\w+/=-]+"), rf"\1{REDACTED}"),
    (re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){0,4}"), REDACTED),
    # PostgreSQL puts the row into it: "Key (email)=(ada@example.com) already exists."
    (re.compile(r"^([ \t]*(?:DETAIL|CONTEXT):).*$", re.MULTILINE), rf"\1 {REDACTED}"),
    (_EMAIL, lambda match: _hashed(match)),
)

_secrets: dict[str, None] = {}
_known: re.Pattern[str] | None = None


def register_secret(value: str) -> None:
    """Never write this value again, neither as it is nor as in a URL or JSON.

    The newest 1,000 are remembered.
    """
    global _known
    if len(value) < SECRET_LENGTH_MIN:
        return
    for form in (value, quote(value, safe=""), json.dumps(value)[1:-1]):
        _secrets.pop(form, None)
        _secrets[form] = None
    while len(_secrets) > 3 * SECRETS_MAX:
        del _secrets[next(iter(_secrets))]
    # Longest first: a secret that starts with another one must go as a whole.
    _known = re.compile("|".join(map(re.escape, sorted(_secrets, key=len, reverse=True))))


def redact(value: object, depth: int = 0) -> Any:
    """Return plain JSON that may be logged: nested at most 6 deep, 100 items wide."""
    match value:
        case None | bool() | float():
            return value
        case int():
            return (
                int(value)
                if -(2**63) <= value < 2**64
                else f"an integer of {value.bit_length()} bits"
            )
        case str():
            return redact_text(str(value))
        case Mapping() | list() | tuple() | AbstractSet() if depth >= DEPTH_MAX:
            return "…"
        case Mapping():
            return redact_mapping(value, depth)
        case list() | tuple() | AbstractSet():
            items = [redact(item, depth + 1) for item in islice(value, ITEMS_MAX)]
            return items if len(value) <= ITEMS_MAX else [*items, f"… {len(value)} in all"]
        case BaseException():
            return redact_text(f"{type(value).__name__}: {text_of(value)}")
        case _:
            return redact_text(text_of(value))


def redact_mapping(values: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
    """Redact every value by its name first, then by its look."""
    found: dict[str, Any] = {}
    for key, value in islice(values.items(), ITEMS_MAX):
        name = key if isinstance(key, str) else text_of(key)
        found[redact_text(name)] = (
            REDACTED if _hides(name[:200], value) else redact(value, depth + 1)
        )
    if len(values) > ITEMS_MAX:
        found["…"] = f"{len(values)} in all"
    return found


def redact_text(text: str, longest: int = TEXT_MAX) -> str:
    """Replace what looks like a secret or is one, hash email addresses, and cut in the middle."""
    dropped = max(len(text) - SCANNED_MAX, 0)
    # The end of a traceback says more than its middle, so both ends are kept, each whole enough
    # that a secret torn at the seam falls to the second cut.
    if dropped:
        text = text[: SCANNED_MAX // 2] + text[-SCANNED_MAX // 2 :]
    if _known is not None:
        text = _known.sub(REDACTED, text)
    if _WORTH_A_LOOK.search(text):
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
    if len(text) > longest:
        cut = len(text) - longest + dropped
        text = f"{text[: longest // 2]}… {cut} characters …{text[-longest // 2 :]}"
    # A lone surrogate (a file name in another encoding) cannot be written as UTF-8.
    return text.encode("utf-8", "backslashreplace").decode()


def text_of(value: object) -> str:
    """Return `str(value)`, whatever the value's own code does."""
    if isinstance(value, bytes | bytearray):
        return bytes(value[:SCANNED_MAX]).decode("utf-8", "backslashreplace")
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - a log line must not take down what it tells about
        return f"<{type(value).__name__} whose text failed: {type(error).__name__}>"


def _hides(name: str, value: object) -> bool:
    # `tokens=3` is a count, and "no password" is worth knowing.
    if value is None or isinstance(value, bool):
        return False
    is_count = isinstance(value, int | float) and name.lower().endswith("tokens")
    return _is_secret_name(name) and not is_count


@lru_cache(maxsize=2_048)
def _is_secret_name(name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[-1] in _HARMLESS_LAST_WORDS:
        return False
    pairs = {f"{first} {second}" for first, second in pairwise(words)}
    return not (_SECRET_WORDS.isdisjoint(words) and _SECRET_PAIRS.isdisjoint(pairs))


def _hashed(match: re.Match[str]) -> str:
    address = f"{match[1]}@{match[2]}".lower()
    digest = hashlib.sha256(address.encode("utf-8", "backslashreplace")).hexdigest()
    return f"{address[0]}…@sha256:{digest[:8]}"
