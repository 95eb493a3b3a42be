"""Somebody else's JSON as values that can be worked with, whatever was put into it."""

from __future__ import annotations

import json
from typing import Final

import orjson

from enrichd.domain.facts import Json
from enrichd.store.json_text import storable

DIGITS_MAX: Final = 300


def read_json(body: bytes | str) -> Json:
    """Return what JSON text says. Raises ValueError if it is none, or nested beyond all reason.

    What strict readers refuse in a single value is mended: lone surrogates, NaN, huge numbers.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        try:
            return storable(json.loads(body, parse_int=_whole, parse_constant=_nothing))
        except (ValueError, RecursionError):
            raise error from None


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= DIGITS_MAX else digits[:DIGITS_MAX]


def _nothing(_: str) -> None:
    return None
