"""The enriched list: the user's own columns, values and order, with the results behind.

The file is opened in spreadsheets, so cells that would run as a formula get a leading `'`: result
columns always, the user's own unless `raw`. Text is UTF-8, with a byte order mark if the file that
was read had one. Blank rows are not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import orjson

from enrichd.ctl.sheet_output import Output
from enrichd.ctl.sheet_reading import BadRow, Format, Row, Sheet
from enrichd.domain.result_fields import column_values
from enrichd.domain.sheet_cells import neutral, quoted

RESULT_PREFIX = "enriched_"
RESULT_KEY = "enrichment"


class SheetWriter:
    """The enriched list being written; use it in a `with` block and `commit()` at its end."""

    def __init__(
        self,
        path: str,
        sheet: Sheet,
        fields: Sequence[str],
        *,
        raw: bool = False,
        format: Format | None = None,
    ) -> None:
        self._sheet = sheet
        self._fields = tuple(fields)
        self._raw = raw
        self._format: Format = format or _format_of(path, sheet)
        self._result_key = _free_name(RESULT_KEY, sheet.header)
        self._output = Output(path)
        self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._output.discard()

    @property
    def is_closed_by_reader(self) -> bool:
        """Whether the program that reads standard output went away; more rows reach nobody."""
        return self._output.is_closed_by_reader

    @property
    def result_columns(self) -> list[str]:
        """The names of the added columns, none of them the user's own."""
        taken = list(self._sheet.header)
        for field in self._fields:
            taken.append(_free_name(RESULT_PREFIX + field, taken))
        return taken[len(self._sheet.header) :]

    def write(self, row: Row, result: Mapping[str, Any] | None, error: str | None = None) -> bool:
        """Write a row with its result; False if the reader of standard output went away.

        A BadRow needs no error: its reason is written, with its cells if it has any.
        """
        if isinstance(row, BadRow) and error is None:
            error = f"line {row.line}: {row.reason}"
        if self._format == "jsonl":
            line = self._json_line(row, result, error)
        else:
            line = self._csv_line(row, column_values(result, error, self._fields))
        return self._output.write(line)

    def commit(self) -> None:
        """Put the file, whole and on disk, under its final name."""
        self._output.commit()

    def _start(self) -> None:
        try:
            if self._format == "jsonl":
                return
            if self._sheet.has_bom:
                self._output.write("\ufeff")
            if self._sheet.sep_line:
                self._output.write(self._sheet.sep_line + self._sheet.line_end)
            own = self._sheet.header if self._raw else map(neutral, self._sheet.header)
            self._output.write(self._joined([*own, *self.result_columns]))
        except BaseException:
            self._output.discard()
            raise

    def _csv_line(self, row: Row, values: list[str]) -> str:
        width = len(self._sheet.header)
        cells = self._own_cells(row)
        if not self._raw:
            cells = list(map(neutral, cells))
        # What a row has beyond the header goes behind the results, where it moves no column.
        return self._joined([*cells[:width], *map(neutral, values), *cells[width:]])

    def _own_cells(self, row: Row) -> list[str]:
        header = self._sheet.header
        if row.cells is None:
            return [""] * len(header)
        if isinstance(row.cells, list):
            return row.cells
        return [_json_cell(row.cells, key) for key in header]

    def _joined(self, cells: list[str]) -> str:
        delimiter, end = self._sheet.delimiter, self._sheet.line_end
        line = delimiter.join(cells)
        # Most rows need no quotes at all, which one look at the whole line shows.
        if (
            '"' in line
            or "\n" in line
            or "\r" in line
            or line.count(delimiter) != len(cells) - 1
            or (len(cells) == 1 and not line)
        ):
            line = delimiter.join(quoted(cell, delimiter, alone=len(cells) == 1) for cell in cells)
        return line + end

    def _json_line(self, row: Row, result: Mapping[str, Any] | None, error: str | None) -> str:
        enrichment = dict(result or {})
        if error is not None:
            enrichment |= {"error": error} if result else {"outcome": "failed", "error": error}
        key = self._result_key
        if isinstance(row.cells, dict) and row.text is not None:
            while key in row.cells:
                key = _free_name(key, [*row.cells])
            # The object's own text is kept: parsed and written again, 1.10 would become 1.1.
            own = row.text[:-1].rstrip()
            separator = "" if own.endswith("{") else ","
            return f"{own}{separator}{_json(key)}:{_json(enrichment)}}}\n"
        if row.text is not None:
            return f"{_json({'input': row.text, key: enrichment})}\n"
        names: list[str] = []
        for name in self._sheet.header:
            names.append(_free_name(name, names))
        cells = row.cells if isinstance(row.cells, list) else []
        own_cells: dict[str, Any] = dict(zip(names, cells, strict=False))
        if len(cells) > len(names):
            own_cells[_free_name("extra", names)] = cells[len(names) :]
        return f"{_json(own_cells | {key: enrichment})}\n"


def _format_of(path: str, sheet: Sheet) -> Format:
    if path.lower().endswith((".jsonl", ".ndjson", ".jsonlines")):
        return "jsonl"
    return "csv" if path.lower().endswith((".csv", ".tsv", ".txt")) else sheet.format


def _free_name(name: str, taken: Iterable[str]) -> str:
    """Return the name, with `_2` or the next free number if it is taken in any case."""
    lower = {other.strip().lower() for other in taken}
    number, free = 1, name
    while free.lower() in lower:
        number += 1
        free = f"{name}_{number}"
    return free


def _json_cell(value: Mapping[str, Any], key: str) -> str:
    if key not in value and "." in key:
        outer, inner = key.split(".", 1)
        within = value.get(outer)
        found = within.get(inner) if isinstance(within, Mapping) else None
    else:
        found = value.get(key)
    if isinstance(found, str):
        return found
    return "" if found is None else _json(found)


def _json(value: object) -> str:
    return orjson.dumps(value, default=str).decode()
