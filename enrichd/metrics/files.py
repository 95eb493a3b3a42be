"""Which metric files can be read: every byte of them is checked before the library sees it.

A process that died while it wrote, a full disk or a stray file leave bytes that
prometheus_client's own reader answers with any of five exceptions, or with an endless loop (a
negative length moves it backwards).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

FILE_BYTES_MAX = 16 << 20
HEADER_BYTES = 8
NUMBERS_BYTES = 16
KINDS = ("counter", "histogram", "summary")
GAUGE_MODES = frozenset(
    f"{live}{mode}" for live in ("", "live") for mode in ("all", "min", "max", "sum", "mostrecent")
)


def is_readable(file: Path) -> bool:
    """Say whether a file is named and made like a metric file, to its last entry."""
    kind, *rest = file.name.removesuffix(".db").split("_")
    is_named = (kind in KINDS and len(rest) == 1) or (
        kind == "gauge" and len(rest) == 2 and rest[0] in GAUGE_MODES
    )
    try:
        return is_named and is_sound(_used_part(file))
    except OSError:
        return False


def is_sound(data: bytes) -> bool:
    """Say whether every entry lies inside the used part and has a key as it should be."""
    if len(data) < HEADER_BYTES:
        return False
    used: int = struct.unpack_from("i", data)[0]
    if used == 0:
        return True  # reserved, and nothing counted yet
    if not HEADER_BYTES <= used <= len(data):
        return False
    place = HEADER_BYTES
    while place < used:
        if place + 4 > used:
            return False
        (length,) = struct.unpack_from("i", data, place)
        padded = length + (8 - (length + 4) % 8)
        end = place + 4 + padded + NUMBERS_BYTES
        if length <= 0 or end > used or not _is_key(data[place + 4 : place + 4 + length]):
            return False
        place = end
    return True


def _used_part(file: Path) -> bytes:
    with file.open("rb") as opened:
        head = opened.read(HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            return b""
        used: int = struct.unpack("ii", head)[0]
        return head + opened.read(min(max(used, HEADER_BYTES), FILE_BYTES_MAX) - HEADER_BYTES)


def _is_key(text: bytes) -> bool:
    """Say whether a key is JSON of [metric, sample, labels, help]."""
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        return False
    match parts:
        case [str(), str(), dict(labels), str()]:
            return all(isinstance(value, str) for value in labels.values())
        case _:
            return False
