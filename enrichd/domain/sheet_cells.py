"""Cells of a sheet that people open in a spreadsheet program, which runs some text as formulas."""

from __future__ import annotations

import re

FORMULA_STARTS = frozenset("=+-@\t\r\n＝＋－＠")
# Programs differ in what they strip from the front of a cell before they look for a formula.
HIDDEN_FORMULA = re.compile("[\\s\x00\u200b\u200e\u200f\u2060\ufeff]+[=+\\-@＝＋－＠]")
# A signed number or a phone number in groups of digits holds nothing to calculate. `+1-415-555` is
# not one of them: Excel would show -969.
HARMLESS = re.compile(r"[+-](?:[0-9]{1,20}(?:[ .,][0-9]{1,20}){0,20}[ %]?)?")


def neutral(cell: str) -> str:
    """Return a cell with a leading `'` if a spreadsheet might run it as a formula."""
    if cell and (cell[0] in FORMULA_STARTS or HIDDEN_FORMULA.match(cell)):
        return cell if HARMLESS.fullmatch(cell) else "'" + cell
    return cell


def quoted(cell: str, delimiter: str = ",", *, alone: bool = False) -> str:
    """Return a cell as it stands in a CSV line; `alone` is the only cell of its line."""
    # A line of one empty cell would read as a blank line.
    if '"' in cell or delimiter in cell or "\n" in cell or "\r" in cell or (alone and not cell):
        return '"' + cell.replace('"', '""') + '"'
    return cell
