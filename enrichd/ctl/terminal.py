"""Text from outside, made safe to print.

Whatever a terminal could act on or hide (escape sequences, carriage returns, reversed writing,
letters without width) is shown as a visible escape such as `\\x1b` or `\\u202e`. Callers print the
answer as plain text, never as rich markup.
"""

from __future__ import annotations

import unicodedata

ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Controls (C0, DEL, C1), format letters (bidi, zero-width, tags), surrogates, line separators."""

# Letters by category, yet blank on screen: two names that differ only here look the same.
BLANK_LETTERS = frozenset("\u115f\u1160\u17b4\u17b5\u3164\uffa0")

SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def safe(text: str, *, block: bool = False) -> str:
    """Return the text with everything a terminal may act on as a visible escape.

    `block` keeps line feeds, for text that is meant to span lines.
    """
    # isprintable() is false for every escaped category, so nearly all text ends here.
    if text.isprintable() and BLANK_LETTERS.isdisjoint(text):
        return text
    return "".join(_visible(letter, block) for letter in text)


def _visible(letter: str, block: bool) -> str:
    if letter == "\n" and block:
        return letter
    if letter not in BLANK_LETTERS and unicodedata.category(letter) not in ESCAPED_CATEGORIES:
        return letter
    if letter in SHORT_ESCAPES:
        return SHORT_ESCAPES[letter]
    code = ord(letter)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
