"""A lead list opened for reading: CSV or JSON lines, one row at a time, each with its lead.

Nothing is held but one block of the file, so a list of any length is read in bounded memory, from a
pipe too. A row that cannot be used becomes a BadRow with its line and the reason and ends nothing.

What counts as what: blank lines and rows without any text are skipped and counted; a short row is
padded; a row with more text than the header has columns is a BadRow, because its cells have most
likely moved, and keeps all its cells.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import BinaryIO, Literal, Self, TypeAlias

from enrichd.ctl.sheet_columns import looks_like_header, name_by_content, recognise
from enrichd.ctl.sheet_dialect import UNUSED_DELIMITER, Layout, sniff
from enrichd.ctl.sheet_json import Object, flat_cells, parse_object, read_json_lines
from enrichd.ctl.sheet_leads import read_lead
from enrichd.ctl.sheet_records import TOO_LARGE, Record, read_records
from enrichd.ctl.sheet_text import TextSource, open_bytes
from enrichd.errors import InvalidFile

Format: TypeAlias = Literal["csv", "jsonl"]

COLUMNS_MAX = 2000
OBJECTS_SAMPLED_MAX = 200
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson", ".jsonlines")


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A row that can be enriched."""

    line: int
    """The physical line it begins on, from 1."""
    cells: list[str] | Object
    """The user's own cells, as many as the header has, or the JSON object."""
    lead: dict[str, str]
    """The lead's fields (`LEAD_FIELDS`), cleaned; only those with a value."""
    text: str | None = None
    """A JSON line as it stands in the file."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be enriched, and why."""

    line: int
    reason: str
    cells: list[str] | Object | None = None
    """None if the row was too large to keep, or is no JSON."""
    text: str | None = None


Row: TypeAlias = SheetRow | BadRow


def open_sheet(
    path: str, *, mapping: Mapping[str, str] | None = None, format: Format | None = None
) -> Sheet:
    """Open a lead list, or standard input for `-`, and find out how it is written.

    `mapping` is lead field → column, as `--map` gives it. Raises InvalidFile if the file cannot be
    read, is no table, or has no column that says anything about a lead.
    """
    stream = open_bytes(path)
    try:
        return Sheet(stream, path, mapping or {}, format)
    except BaseException:
        if path != "-":
            stream.close()
        raise


class Sheet:
    """An open lead list. Iterate once; close it or use it in a `with` block."""

    def __init__(
        self, stream: BinaryIO, path: str, mapping: Mapping[str, str], format: Format | None
    ) -> None:
        self._stream = stream
        self.path = path
        self.name = "standard input" if path == "-" else path
        self._source = TextSource(stream, self.name)
        sample = self._source.sample
        if not sample.strip("\r\n\t \0\ufeff"):
            raise InvalidFile(
                f"{self.name} is empty.", hint="It needs a header and a row for each lead."
            )
        self.format: Format = format or _format_of(path, sample, self.name)
        self.has_bom = self._source.has_bom
        self.line_end = "\r\n" if "\r" in sample[: sample.find("\n") + 1 or None] else "\n"
        self.delimiter = ","
        self.has_header = True
        self.sep_line: str | None = None
        self.header: list[str]
        """The user's own columns in order, duplicates kept; for JSON lines the keys first seen."""
        self.columns: dict[str, int]
        """Lead field → index of its column in `header`."""
        self._notes: list[str] = []
        self.row_count = self.bad_count = self.blank_count = 0
        self._layout: Layout | None = None
        find = self._find_table if self.format == "csv" else self._find_keys
        rows = find(sample)
        self.columns = recognise(self.header, rows, mapping, has_header=self.has_header)
        self._refuse_useless_columns()

    @property
    def encoding(self) -> str:
        """The encoding for people: `UTF-8`, `Windows-1252 (assumed)`.

        A file that begins in ASCII says UTF-8 until its first other letter was read.
        """
        return self._source.encoding.label

    @property
    def notes(self) -> list[str]:
        """What was assumed or left out so far, as sentences for the person at the command line."""
        if not self._source.encoding.is_assumed:
            return list(self._notes)
        return [*self._notes, f"{self.name} is read as {self._source.encoding.label}."]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self.path != "-":
            self._stream.close()

    def __iter__(self) -> Iterator[Row]:
        rows = self._csv_rows() if self.format == "csv" else self._json_rows()
        for row in rows:
            self.row_count += 1
            self.bad_count += isinstance(row, BadRow)
            yield row

    def _find_table(self, sample: str) -> list[list[str]]:
        whole = sample if self._source.sample_is_all else sample[: _last_line_end(sample)]
        layout = self._layout = sniff(whole or sample)
        if layout is None:
            raise InvalidFile(f"{self.name} holds no row.", hint="It needs a header and rows.")
        first, rows = layout.first, layout.rows
        if len(first) > COLUMNS_MAX:
            raise InvalidFile(f"{self.name} has {len(first)} columns; {COLUMNS_MAX} are the most.")
        if layout.dialect.delimiter != UNUSED_DELIMITER:
            self.delimiter = layout.dialect.delimiter
        self.sep_line = layout.sep_line
        self.has_header = looks_like_header(first)
        if self.has_header:
            self.header = first
        else:
            rows = [first, *rows]
            self.header = name_by_content(rows, len(first))
            self._notes.append(
                f"{self.name} has no header: its columns are read as {', '.join(self.header)}."
            )
        left_out = layout.lines_above - (self.sep_line is not None)
        if left_out > 0:
            self._notes.append(f"{left_out} lines above the header are left out.")
        return rows

    def _csv_rows(self) -> Iterator[Row]:
        layout = self._layout
        assert layout is not None
        width, fields = len(self.header), list(self.columns.items())
        lines = islice(self._source.lines(), layout.lines_above, None)
        records = read_records(
            lines,
            layout.dialect,
            width=width,
            line=layout.lines_above,
        )
        if self.has_header:
            next(records, None)
        for record in records:
            cells = record.cells
            if record.problem is None and cells is not None and len(cells) == width:
                lead, reason = read_lead([(field, cells[index]) for field, index in fields])
                if reason is None:
                    yield SheetRow(record.line, cells, lead)
                    continue
            if cells is not None and not any(cell and not cell.isspace() for cell in cells):
                self.blank_count += 1
            else:
                yield self._odd_row(record, fields)

    def _odd_row(self, record: Record, fields: list[tuple[str, int]]) -> Row:
        """Judge a row that is damaged, of another width, or without a usable lead."""
        width, cells = len(self.header), record.cells
        if cells is None:
            return BadRow(record.line, record.problem or TOO_LARGE)
        while len(cells) > width and not cells[-1].strip():
            cells.pop()
        cells += [""] * (width - len(cells))
        if record.problem:
            return BadRow(record.line, record.problem, cells)
        if len(cells) > width:
            reason = f"{len(cells)} cells, but the header has {width}: a missing quote?"
            return BadRow(record.line, reason, cells)
        lead, why_not = read_lead([(field, cells[index]) for field, index in fields])
        return (
            BadRow(record.line, why_not, cells) if why_not else SheetRow(record.line, cells, lead)
        )

    def _find_keys(self, sample: str) -> list[list[str]]:
        values = map(parse_object, sample.split("\n")[:OBJECTS_SAMPLED_MAX])
        objects = [dict(flat_cells(value)) for value in values if isinstance(value, dict)]
        if not objects:
            raise InvalidFile(
                f"No line at the start of {self.name} is a JSON object.",
                hint='A line looks like {"email": "anna@example.com", "company": "Example"}.',
            )
        self.header = list(dict.fromkeys(key for found in objects for key in found))[:COLUMNS_MAX]
        return [[found.get(key, "") for key in self.header] for found in objects]

    def _json_rows(self) -> Iterator[Row]:
        keys = [(field, self.header[index]) for field, index in self.columns.items()]
        for found in read_json_lines(self._source.lines()):
            if found is None:
                self.blank_count += 1
            elif found.value is None:
                yield BadRow(found.line, found.problem or TOO_LARGE, None, found.text)
            else:
                cells = dict(flat_cells(found.value))
                lead, reason = read_lead([(field, cells.get(key, "")) for field, key in keys])
                if reason:
                    yield BadRow(found.line, reason, found.value, found.text)
                else:
                    yield SheetRow(found.line, found.value, lead, found.text)

    def _refuse_useless_columns(self) -> None:
        useful = {"email", "domain", "companyName", "linkedinUrl"} & self.columns.keys()
        if not useful:
            raise InvalidFile(
                f"No column of {self.name} is recognised as an email, a company, a domain or a "
                f"LinkedIn URL. Its columns are: {', '.join(self.header[:40])}.",
                hint='Say which one it is: --map email="NAME OF THE COLUMN".',
            )


def _format_of(path: str, sample: str, name: str) -> Format:
    start = sample.lstrip("\ufeff \r\n\t")
    if re.match(r"\[\s*(\{|$)", start):
        raise InvalidFile(
            f"{name} is one JSON array; JSON lines are needed, one object a line.",
            hint=f"Convert it: jq -c '.[]' {path} > leads.jsonl",
        )
    if path.lower().endswith(JSON_LINES_SUFFIXES):
        return "jsonl"
    return "jsonl" if re.match(r'\{\s*("|\}|$)', start) else "csv"


def _last_line_end(text: str) -> int:
    return max(text.rfind("\n"), text.rfind("\r")) + 1
