"""People's names: which part is which, and how mail addresses write them."""

from __future__ import annotations

import unicodedata

_SALUTATIONS = frozenset("mr mrs ms miss mx dr prof sir dame herr frau ing dipl".split())  # noqa: SIM905
_SUFFIXES = frozenset("jr sr ii iii iv phd md mba msc bsc cpa esq".split())  # noqa: SIM905
_PARTICLES = frozenset(
    "van von der den de del della di da dos du la le ter ten zu zum bin al el st".split()  # noqa: SIM905
)


def split_name(full: str) -> tuple[str | None, str | None]:
    """Return first and last name of `Dr. Ada van Quill` or `Quill, Ada`; None for no such part."""
    family, comma, given = full.partition(",")
    if comma and given.strip(" .").casefold().replace(".", "") not in _SUFFIXES:
        full = f"{given.strip()} {family.strip()}"
    words = [word for word in full.replace(",", " ").split() if word]
    while len(words) > 1 and words[0].rstrip(".").casefold() in _SALUTATIONS:
        words.pop(0)
    while len(words) > 1 and words[-1].replace(".", "").casefold() in _SUFFIXES:
        words.pop()
    if len(words) < 2:
        return (words[0] if words else None), None
    start = len(words) - 1
    while start > 1 and words[start - 1].casefold() in _PARTICLES:
        start -= 1
    return words[0], " ".join(words[start:])


def fold_name(text: str) -> str:
    """Return a name in the letters of mail addresses: `joerg nunez-o` for `Jörg Ñuñez-Ø`."""
    lowered = text.casefold()
    for letter, letters in _LETTERS.items():
        lowered = lowered.replace(letter, letters)
    bare = unicodedata.normalize("NFKD", lowered)
    return "".join(char for char in bare if not unicodedata.combining(char))


_LETTERS = {
    "ä": "ae",
    "ö": "oe",
    "ü": "ue",
    "æ": "ae",
    "œ": "oe",
    "ø": "o",
    "å": "a",
    "ð": "d",
    "þ": "th",
    "ł": "l",
    "đ": "d",
    "ı": "i",
}
