"""JSON on its way into and out of jsonb columns.

PostgreSQL refuses NUL and lone surrogates, stores integers and depths that Python then cannot read,
and providers' data is hostile. What goes in is made storable here; what comes out is read without
ever raising.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import orjson

from enrichd.domain.jobs import JSON_DEPTH_MAX

NUL = b"\\u0000"
INT_MAX = 2**63 - 1
SURROGATES = re.compile("[\ud800-\udfff]")


def dumps(value: Any) -> str:
    """Return JSON text that a jsonb column takes, for any value a handler may return.

    NUL characters go, lone surrogates become U+FFFD, integers past 64 bits become text, NaN and
    infinity become null; where something had to be mended, what is deeper than 64 levels becomes
    text. Raises TypeError for values that are not JSON at all (a set, an object), ValueError for
    those that contain themselves.
    """
    try:
        data = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    except (TypeError, ValueError, RecursionError):
        data = orjson.dumps(storable(value))
    else:
        # A backslash before the escape makes it plain text, but cleaning that too does no harm.
        if NUL in data:
            data = orjson.dumps(storable(orjson.loads(data)))
    return data.decode()


def storable(value: Any, inside: tuple[int, ...] = ()) -> Any:
    """Return a copy of a value with everything mended that jsonb or its readers cannot take.

    `inside` has the identities of the containers around it: a tree whose nodes know their parent
    would otherwise be walked in every direction, 64 levels deep, which never ends.
    """
    match value:
        case None | bool():
            return value
        case str():
            return SURROGATES.sub("\ufffd", value.replace("\0", ""))
        case int():
            return value if abs(value) <= INT_MAX else short_digits(value)
        case float():
            return value if math.isfinite(value) else None
        case Mapping() | list() | tuple() if id(value) in inside:
            raise ValueError("it contains itself")
        case Mapping() | list() | tuple() if len(inside) >= JSON_DEPTH_MAX:
            return "(nested too deep)"
        case Mapping():
            around = (*inside, id(value))
            return {storable(key_text(key)): storable(part, around) for key, part in value.items()}
        case list() | tuple():
            around = (*inside, id(value))
            return [storable(part, around) for part in value]
        case _:
            # orjson knows dates, UUIDs, enums and dataclasses; anything else is a TypeError.
            return storable(orjson.loads(orjson.dumps(value)), inside)


def key_text(key: Any) -> str:
    """Return a mapping's key as the text that orjson makes of it."""
    if isinstance(key, str):
        return key
    if type(key) is int and abs(key) > INT_MAX:
        return short_digits(key)
    (text,) = orjson.loads(orjson.dumps({key: None}, option=orjson.OPT_NON_STR_KEYS))
    return str(text)


def is_encodable(text: str) -> bool:
    """Say whether text has no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def short_digits(value: int) -> str:
    """Return a huge integer as text; past 4,000 digits Python refuses to print it."""
    return str(value) if value.bit_length() < 13_000 else "(integer too large)"


def loads(text: str | None) -> Any:
    """Return what JSON text says; None for None; the text itself if it cannot be read."""
    if text is None:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
