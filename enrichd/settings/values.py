"""How the text of a variable becomes its value: one reader for each kind of variable.

Every reader is a pydantic validator that takes text and refuses it by saying what would be right,
never by repeating it: the text may be a secret. What is not text (a default that is already a
value) passes untouched.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

POOLER_PORTS = frozenset({"6432", "6543"})
"""PgBouncer's own port, and the one on which Supabase pools by transaction."""

_SIZE_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}\.?)+", re.ASCII)
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
_MAILBOX = re.compile(r"[^@\s<>]{1,64}@[^@\s<>]{1,255}")
_ORIGIN = re.compile(r"https?://[a-z0-9._-]{1,255}(:[0-9]{1,5})?")
_DATABASE_HOST = re.compile(r"[\w.,:%/-]*")


def wrong(allowed: str) -> PydanticCustomError:
    """Build the error of a text that does not fit, from the words for what would."""
    return PydanticCustomError("not_allowed", "{allowed}", {"allowed": allowed})


def whole(low: int, high: int) -> BeforeValidator:
    allowed = f"a whole number from {low} to {high}"
    return _reader(lambda text: _whole(text, low, high, allowed))


def milliseconds(low: int, high: int) -> BeforeValidator:
    """Read whole milliseconds as seconds: the one place where the unit changes."""
    allowed = f"a whole number of milliseconds from {low} to {high}"
    return _reader(lambda text: _whole(text, low, high, allowed) / 1000)


def number(low: float, high: float) -> BeforeValidator:
    allowed = f"a number from {low:g} to {high:g}"

    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", text):
            raise wrong(allowed)
        if not low <= (value := float(text)) <= high:
            raise wrong(allowed)
        return value

    return _reader(read)


def size_bytes(least: int) -> BeforeValidator:
    """Read a size such as `512M`; K, M and G are powers of 1024, 0 stands for no limit."""
    allowed = f"0 for no limit, or at least {least >> 20}M, written as bytes or with K, M or G"

    def read(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,15})\s*([KMG]?)(iB|B)?", text, re.IGNORECASE)
        if match is None:
            raise wrong(allowed)
        size = int(match[1]) * _SIZE_BYTES[match[2].upper()]
        if 0 < size < least:
            raise wrong(allowed)
        return size

    return _reader(read)


def one_of(*words: str) -> BeforeValidator:
    allowed = f"one of {', '.join(words)}"

    def read(text: str) -> str:
        if text.lower() not in words:
            raise wrong(allowed)
        return text.lower()

    return _reader(read)


def on_or_off() -> BeforeValidator:
    def read(text: str) -> bool:
        if text.lower() in ("on", "true", "yes", "1"):
            return True
        if text.lower() in ("off", "false", "no", "0"):
            return False
        raise wrong("on or off")

    return _reader(read)


def words(longest: int) -> BeforeValidator:
    """Read free text that can be shown on one line."""
    allowed = f"up to {longest} characters, none of them a control character"

    def read(text: str) -> str:
        if len(text) > longest or not text.isprintable():
            raise wrong(allowed)
        return text

    return _reader(read)


def secret(shortest: int = 1) -> BeforeValidator:
    """Read a key or password that goes into an HTTP header."""
    length = f"at least {shortest} " if shortest > 1 else ""
    allowed = f"{length}visible ASCII characters without spaces"

    def read(text: str) -> str:
        if len(text) < shortest or not re.fullmatch(r"[!-~]+", text):
            raise wrong(allowed)
        return text

    return _reader(read)


def secret_keys() -> BeforeValidator:
    """Read keys to seal secrets with, `id:base64 of 32 bytes`, several with commas between."""
    allowed = "id:key, the key being 32 bytes in base64; several with commas, the first one seals"

    def read(text: str) -> str:
        try:
            parsed_secret_keys(text)
        except ValueError:
            raise wrong(allowed) from None
        return text

    return _reader(read)


def parsed_secret_keys(text: str) -> dict[str, bytes]:
    """Return keys by id, in the order in which they stand. Raises ValueError for anything else."""
    keys: dict[str, bytes] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, _, written = item.partition(":")
        key = base64.b64decode(written, validate=True)
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", name) or len(key) != 32 or name in keys:
            raise ValueError("not a key")
        keys[name] = key
    if not keys:
        raise ValueError("no key")
    return keys


def credits() -> BeforeValidator:
    """Read an amount of credits; empty is no limit."""
    allowed = "a number of credits from 0 to 1000000000, with up to 4 decimals"

    def read(text: str) -> Decimal:
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,4})?", text):
            raise wrong(allowed)
        return Decimal(text)

    return _reader(read)


def database_url() -> BeforeValidator:
    allowed = (
        "a PostgreSQL address, postgresql://user:password@host:5432/name"
        " or host=… dbname=… (several hosts may be named)"
    )

    def read(text: str) -> str:
        try:
            parts = conninfo_to_dict(text)
        except psycopg.Error:
            # libpq's own message quotes the text, password and all: neither shown nor chained.
            parts = None
        if parts is None:
            extra = (
                "; libpq does not know pgbouncer=true, leave it out" if "pgbouncer=" in text else ""
            )
            raise wrong(allowed + extra)
        if not _DATABASE_HOST.fullmatch(str(parts.get("host", ""))):
            raise wrong(f"{allowed}; in a password, @ is written %40, / is %2F and : is %3A")
        if not all(port == "" or _is_port(port) for port in _ports(parts)):
            raise wrong(f"{allowed}; a port is a number from 1 to 65535")
        return text

    return _reader(read)


def http_url() -> BeforeValidator:
    """Read an http or https URL; a slash at its end is dropped so that paths can be appended."""
    allowed = (
        "a URL that starts with https:// or http://, has a host, and no user, password, ? or #"
    )

    def read(text: str) -> str:
        try:
            url = urlsplit(text)
            is_usable = bool(url.hostname) and (url.port is None or url.port > 0)
        except ValueError:
            raise wrong(allowed) from None
        if url.scheme not in ("http", "https") or not is_usable or not re.fullmatch("[!-~]+", text):
            raise wrong(allowed)
        if "@" in url.netloc or "?" in text or "#" in text:
            raise wrong(allowed)
        return text.rstrip("/")

    return _reader(read)


def origins() -> BeforeValidator:
    """Read origins as browsers write them: scheme, host and port, no path."""
    allowed = "origins such as https://app.example.com or http://localhost:5173, by commas"

    def read(text: str) -> tuple[str, ...]:
        found = tuple(item.lower() for item in _items(text))
        if not all(_ORIGIN.fullmatch(item) for item in found):
            raise wrong(allowed)
        return found

    return _reader(read)


def host() -> BeforeValidator:
    def read(text: str) -> str:
        bare = text.removeprefix("[").removesuffix("]")
        if _address(bare) is None and not (len(text) <= 253 and _HOST_NAME.fullmatch(text)):
            raise wrong("an IP address or a host name")
        return bare

    return _reader(read)


def networks() -> BeforeValidator:
    allowed = "networks such as 10.20.0.0/16 or fd00:1::/32, separated by commas"

    def read(text: str) -> tuple[Network, ...]:
        return tuple(_network(item, allowed) for item in _items(text))

    return _reader(read)


def name_servers() -> BeforeValidator:
    """Read `ip`, `ip:port` or `[ipv6]:port`, separated by commas, as pairs of address and port."""
    allowed = (
        "IP addresses, with a port if it is not 53, separated by commas: 10.0.0.2, 10.0.0.3:5353"
    )

    def read(text: str) -> tuple[tuple[str, int], ...]:
        return tuple(_name_server(item, allowed) for item in _items(text))

    return _reader(read)


def modules() -> BeforeValidator:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(_items(text))
        if not all(_MODULE.fullmatch(name) for name in names):
            raise wrong("names of Python modules, separated by commas: my_package.jobs, other")
        return names

    return _reader(read)


def mailbox() -> BeforeValidator:
    def read(text: str) -> str:
        if not _MAILBOX.fullmatch(text) or not text.isprintable():
            raise wrong("an email address at a domain of yours")
        return text

    return _reader(read)


def path() -> BeforeValidator:
    def read(text: str) -> Path:
        try:
            return Path(text).expanduser().absolute()
        except (RuntimeError, ValueError, OSError):
            raise wrong("a path") from None

    return _reader(read)


def is_pooler(database_url: str) -> bool:
    """Whether a host is reached through a pool that lends its connections per transaction."""
    return not POOLER_PORTS.isdisjoint(_ports(conninfo_to_dict(database_url)))


def database_passwords(database_url: str) -> Iterator[str]:
    """Yield the password as libpq reads it and, where it differs, as it stands in the URL."""
    parts = conninfo_to_dict(database_url)
    for key in ("password", "sslpassword"):
        if password := parts.get(key):
            yield str(password)
    in_url = re.match(r"\w+://[^:@/]*:([^@]*)@", database_url)
    if in_url and in_url[1] != unquote(in_url[1]):
        yield in_url[1]


def shown_database_url(database_url: str) -> str:
    """Say which server and database an accepted address means, and nothing secret."""
    parts = conninfo_to_dict(database_url)
    user = f"{parts['user']}@" if "user" in parts else ""
    ports = f":{parts['port']}" if "port" in parts else ""
    return f"postgresql://{user}{parts.get('host', '')}{ports}/{parts.get('dbname', '')}"


def shown(text: str, longest: int = 80) -> str:
    """Make text safe to show on one line: control characters escaped, URL passwords masked, cut."""
    text = re.sub(r"(://[^\s:/@]*:)[^\s@]*@", r"\1********@", text[: longest * 16])
    escaped = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
    return escaped if len(escaped) <= longest else escaped[: longest - 1] + "…"


def _reader(read: Callable[[str], Any]) -> BeforeValidator:
    return BeforeValidator(lambda raw: read(raw) if isinstance(raw, str) else raw)


def _whole(text: str, low: int, high: int, allowed: str) -> int:
    # int() alone would take "1_000", " 7 " and digits of other scripts.
    if not re.fullmatch(r"-?[0-9]{1,18}", text) or not low <= int(text) <= high:
        raise wrong(allowed)
    return int(text)


def _items(text: str) -> Sequence[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _network(item: str, allowed: str) -> Network:
    try:
        return ipaddress.ip_network(item)
    except ValueError:
        raise wrong(allowed) from None


def _name_server(item: str, allowed: str) -> tuple[str, int]:
    if (address := _address(item)) is not None:
        return address, 53
    server, _, port = item.rpartition(":")
    if server.startswith("[") == server.endswith("]") and _is_port(port):
        address = _address(server.removeprefix("[").removesuffix("]"))
        if address is not None and (":" in address) == server.startswith("["):
            return address, int(port)
    raise wrong(allowed)


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _is_port(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", text) is not None and 0 < int(text) < 65536


def _ports(parts: dict[str, Any]) -> Sequence[str]:
    return str(parts.get("port", "")).split(",")
