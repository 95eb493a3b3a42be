"""The delimiter of a CSV file and the place of its header, from a sample of its text.

csv.Sniffer was tried and refused (`test_sheet_dialect.py` holds its failures): it guesses from the
frequency of letters. Here every candidate parses the sample for real, quotes and all, and is scored
by what comes out.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enrichd.ctl.sheet_aliases import is_known_header
from enrichd.ctl.sheet_leads import EMAIL
from enrichd.ctl.sheet_records import Dialect, new_reader

DELIMITERS = (",", ";", "\t", "|")
UNUSED_DELIMITER = "\x1f"
"""Reads a file of one column, whose cells may hold any of the real delimiters."""

RECORDS_SCORED_MAX = 60
LINES_ABOVE_HEADER_MAX = 10
TIGHT_DELIMITER = re.compile(r"[,;\t|](?=\S)")
DECIMAL_COMMA = re.compile(r"[+-]?[\d.]*,\d+\s?[%€$£]?")
SEP_LINE = re.compile(r'"?sep=(?P<delimiter>.)"?\s*', re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a CSV file's table begins and how its cells are set apart."""

    dialect: Dialect
    lines_above: int
    """Physical lines before the first record of the table: Excel's `sep=`, an export's notes."""
    first: list[str]
    rows: list[list[str]]
    """Some records after the first."""
    sep_line: str | None = None


def sniff(sample: str) -> Layout | None:
    """Decide the layout of a sample, or return None if it holds no record at all."""
    if not sample.strip(' "\t\r\n,;|'):
        return None
    lines = list(io.StringIO(sample, newline=""))
    sep = SEP_LINE.fullmatch(lines[0].rstrip("\r\n")) if lines else None
    if sep:
        dialect = Dialect(sep["delimiter"])
        layout = _layout(lines, 1, dialect)
        return layout and Layout(
            dialect, layout.lines_above, layout.first, layout.rows, lines[0].rstrip("\r\n")
        )
    above = _lines_above_header(lines)
    dialects = [Dialect(delimiter, _skips_space(sample, delimiter)) for delimiter in DELIMITERS]
    # The first candidate wins a draw, and one column wins over a split that shows nothing.
    best = max(
        [Dialect(UNUSED_DELIMITER), *dialects],
        key=lambda dialect: _score(list(_records(lines[above:], dialect)), dialect.delimiter),
    )
    return _layout(lines, above, best)


def _layout(lines: Sequence[str], above: int, dialect: Dialect) -> Layout | None:
    # Blank lines before the header are stepped over, so that its line is known exactly.
    while above < len(lines) and not lines[above].strip("\r\n"):
        above += 1
    records = list(_records(lines[above:], dialect, most=RECORDS_SCORED_MAX * 4))
    if not records:
        return None
    return Layout(dialect, above, records[0], records[1:])


def _records(
    lines: Sequence[str], dialect: Dialect, most: int = RECORDS_SCORED_MAX
) -> Iterator[list[str]]:
    reader = new_reader(iter(lines), dialect)
    for _ in range(most):
        try:
            cells = next(reader, None)
        except csv.Error:
            continue
        if cells is None:
            return
        if any(cells):
            yield cells


def _score(records: Sequence[Sequence[str]], delimiter: str) -> float:
    """Rate the table that comes out: equal widths, known headers, whole addresses, tight cells."""
    if not records:
        return 0.0
    width = len(records[0])
    if width == 1 and delimiter != UNUSED_DELIMITER:
        return 0.0
    others = records[1:]
    # A row cut short is common, a row too long means that a comma in a text was taken for one.
    even = [1.0 if len(cells) == width else 0.4 * (len(cells) < width) for cells in others]
    known = sum(is_known_header(cell) for cell in records[0])
    whole = sum(any(EMAIL.fullmatch(cell.strip()) for cell in cells) for cells in records)
    inner = [cell for cells in records for cell in cells[1:]]
    loose = sum(cell.startswith(" ") for cell in inner) / len(inner) if inner else 0.0
    filled = [cell for cells in records for cell in cells if cell]
    uncut = sum(map(_is_uncut, filled)) / max(len(filled), 1) if width > 1 else 0.0
    stray = sum('"' in cell for cell in filled) / max(len(filled), 1)
    return (
        (0.3 + 0.7 * (sum(even) / len(even) if even else 1.0))
        * (1 + min(known, 5) + whole / len(records) + 0.5 * (width > 1))
        * (1 - 0.5 * loose)
        * (1 - 0.5 * uncut - 0.4 * stray)
    )


def _is_uncut(cell: str) -> bool:
    """Tell if a cell still holds a delimiter that looks like one: no prose, no decimal comma."""
    return bool(TIGHT_DELIMITER.search(cell)) and not DECIMAL_COMMA.fullmatch(cell.strip())


def _skips_space(sample: str, delimiter: str) -> bool:
    """Tell if quotes stand after a space (`a, "b, c"`), where they would not count as quotes."""
    return f'{delimiter} "' in sample and f'{delimiter}"' not in sample


def _lines_above_header(lines: Sequence[str]) -> int:
    """Count the lines of notes above the header, as in LinkedIn's Connections.csv."""
    best, best_known = 0, 1
    for index, line in enumerate(lines[: LINES_ABOVE_HEADER_MAX + 1]):
        known = max(
            sum(is_known_header(cell) for cell in next(new_reader(iter([line]), dialect), []))
            for dialect in map(Dialect, DELIMITERS)
        )
        if index == 0 and known:
            return 0
        if known > best_known:
            best, best_known = index, known
    return best
