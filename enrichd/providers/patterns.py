"""Guess a work address from a person's name and the company's domain.

The patterns stand in the order in which companies use them. A guess carries GUESS_CONFIDENCE until
a mail server has confirmed it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from enrichd.domain.names import fold_name

GUESS_CONFIDENCE = 0.3
CONFIRMED_CONFIDENCE = 0.95
CANDIDATES_MAX = 8

_LETTERS = re.compile(r"[^a-z]+")

PATTERNS: Final[tuple[tuple[str, Callable[[str, str], str]], ...]] = (
    ("{first}.{last}", lambda first, last: f"{first}.{last}"),
    ("{f}{last}", lambda first, last: f"{first[0]}{last}"),
    ("{first}", lambda first, _: first),
    ("{first}{last}", lambda first, last: f"{first}{last}"),
    ("{f}.{last}", lambda first, last: f"{first[0]}.{last}"),
    ("{first}_{last}", lambda first, last: f"{first}_{last}"),
    ("{first}{l}", lambda first, last: f"{first}{last[0]}"),
    ("{last}", lambda _, last: last),
    ("{last}.{first}", lambda first, last: f"{last}.{first}"),
    ("{last}{f}", lambda first, last: f"{last}{first[0]}"),
)


@dataclass(frozen=True, slots=True)
class Guess:
    """An address that may exist, and the pattern it was made by."""

    address: str
    pattern: str
    """`{first}.{last}`; `{f}` and `{l}` are initials."""


def guesses(
    first_name: str, last_name: str, domain: str, *, known_pattern: str | None = None
) -> list[Guess]:
    """Return up to CANDIDATES_MAX addresses, the most usual first.

    A name without Latin letters has none. A `known_pattern` of the company goes before all others.
    """
    first, last = _part(first_name), _part(last_name)
    if not first or not last:
        return []
    ordered = sorted(PATTERNS, key=lambda pattern: pattern[0] != known_pattern)
    made = {build(first, last): pattern for pattern, build in reversed(ordered)}
    in_order = ((build(first, last), pattern) for pattern, build in ordered)
    # Two patterns may meet in one address ("o.o"); the more usual one names it.
    unique = dict.fromkeys(local for local, _ in in_order)
    return [Guess(f"{local}@{domain}", made[local]) for local in unique if len(local) <= 64][
        :CANDIDATES_MAX
    ]


def pattern_of(address: str, first_name: str, last_name: str) -> str | None:
    """Return the pattern by which a known address was made of its owner's name, or None."""
    first, last = _part(first_name), _part(last_name)
    if not first or not last:
        return None
    local = address.partition("@")[0].casefold()
    return next((pattern for pattern, build in PATTERNS if build(first, last) == local), None)


def _part(name: str) -> str:
    """Return a name as addresses write it, a double one (`Anna Maria`) joined."""
    return _LETTERS.sub("", fold_name(name))[:40]
