"""JSON on its way into and out of jsonb columns.

PostgreSQL refuses NUL and lone surrogates, stores integers and depths that Python then cannot read,
and providers' data is hostile. What goes in is made storable here; what comes out is read without
ever raising.
"""

from __future__ import annotations

import math
from typing import Any

import orjson

from enrichd.domain.jobs import JSON_DEPTH_MAX

NUL = b"\\u0000"
INT_MAX = 2**63 - 1


def dumps(value: Any) -> str:
    """Return JSON text that a jsonb column takes, for any value a handler may return.

    NUL characters go, lone surrogates become U+FFFD, integers past 64 bits become text, NaN and
    infinity become null, what is deeper than 64 levels becomes text. Raises TypeError for values
    that are not JSON at all (a set, an object).
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


def storable(value: Any, depth: int = 0) -> Any:
    """Return a copy of a value with everything mended that jsonb or its readers cannot take."""
    match value:
        case None | bool():
            return value
        case str():
            return (
                value.replace("\0", "").encode("utf-8", "replace").decode()
                if ("\0" in value or not is_encodable(value))
                else value
            )
        case int():
            return value if abs(value) <= INT_MAX else short_digits(value)
        case float():
            return value if math.isfinite(value) else None
        case dict() | list() | tuple() if depth >= JSON_DEPTH_MAX:
            return "(nested too deep)"
        case dict():
            return {
                storable(str(key), depth): storable(part, depth + 1) for key, part in value.items()
            }
        case list() | tuple():
            return [storable(part, depth + 1) for part in value]
        case _:
            # orjson knows dates, UUIDs, enums and dataclasses; anything else is a TypeError.
            return orjson.loads(orjson.dumps(value))


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
