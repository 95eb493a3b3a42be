"""CSV records out of physical lines, with bounds on a cell and a row and a way back after damage.

The csv module's reader does the parsing. It asks for another line only inside quotes, so the feed
it reads from knows how far one record has grown and can stop it. A record that is too large is
skipped to its own end; a quote that is never closed costs its own line, not the rest of the file.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from enrichd.ctl.sheet_text import LOST_BYTE, without_lost_bytes

CELL_CHARS_MAX = 128 * 1024
ROW_CHARS_MAX = 1024 * 1024
RECOVERIES_MAX = 100
"""How often a file's lines are read again after an open quote; more could be made to cost hours."""
LINES_COMPARED_MAX = 50

TOO_LARGE = f"cell too large (at most {CELL_CHARS_MAX // 1024} KiB a cell, 1 MiB a row)"
NEVER_CLOSED = "a quote that opens in this line is never closed"
UNDECODABLE = "some bytes do not fit the encoding of the file"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV file writes its cells."""

    delimiter: str
    skips_space: bool = False
    """Whether a space after the delimiter is no part of the cell (`a, "b, c"`)."""


@dataclass(slots=True)
class Record:
    """One record: its first physical line, from 1, its cells, and what is wrong with it."""

    line: int
    cells: list[str] | None
    """None if the record was skipped, [] for a blank line."""
    problem: str | None = None


class _TooLarge(Exception):
    """Carries the stop out of the csv module's reader, which called the feed."""


class _Feed:
    """Physical lines for one csv reader, with those of the present record kept."""

    def __init__(self, lines: Iterator[str], line: int) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self.line = line
        """How many physical lines were handed out."""
        self.taken: list[str] = []
        self.chars = 0
        self.is_damaged = False
        self.ended_inside = False

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        try:
            line = self._again.popleft() if self._again else next(self._lines)
        except StopIteration:
            self.ended_inside = bool(self.taken)
            raise
        self.line += 1
        self.taken.append(line)
        self.chars += len(line)
        if not line.isascii() and LOST_BYTE.search(line):
            self.is_damaged = True
            line = without_lost_bytes(line)
        if self.chars > ROW_CHARS_MAX:
            # A piece without an end is not a line yet; its last piece will count as one.
            self.line -= not line.endswith(("\n", "\r"))
            raise _TooLarge
        return line

    def start_record(self) -> None:
        self.taken.clear()
        self.chars = 0
        self.is_damaged = self.ended_inside = False

    def put_back(self, lines: list[str]) -> None:
        self._again.extendleft(reversed(lines))
        self.line -= len(lines)


def read_records(
    lines: Iterator[str], dialect: Dialect, *, width: int, line: int = 0
) -> Iterator[Record]:
    """Yield every record of the lines, blank and damaged ones too.

    `width` is the usual number of cells, by which rows swallowed by an open quote are recognised;
    `line` is the number of physical lines before the first.
    """
    feed = _Feed(lines, line)
    reader = new_reader(feed, dialect)
    recoveries_left = RECOVERIES_MAX
    while True:
        feed.start_record()
        line = feed.line + 1
        try:
            cells: list[str] | None = next(reader)
        except StopIteration:
            return
        except (_TooLarge, csv.Error):
            cells = None
        taken = feed.taken
        # The csv module has a limit of its own, but it is global and anybody may have changed it.
        if cells and feed.chars > CELL_CHARS_MAX and max(map(len, cells)) > CELL_CHARS_MAX:
            cells = None
        is_odd = cells is None or feed.ended_inside or len(cells) != width
        if len(taken) > 1 and is_odd and recoveries_left and _are_rows(taken[1:], dialect, width):
            recoveries_left -= 1
            first = without_lost_bytes(taken[0])
            feed.put_back(taken[1:])
            yield Record(line, _cells_without_quotes(first, dialect), NEVER_CLOSED)
        elif feed.ended_inside and cells is not None:
            yield Record(line, cells, NEVER_CLOSED)
        elif cells is None:
            _skip_record(feed, dialect)
            yield Record(line, None, TOO_LARGE)
        elif feed.is_damaged:
            yield Record(line, cells, UNDECODABLE)
        else:
            yield Record(line, cells)


def new_reader(lines: Iterator[str], dialect: Dialect) -> Iterator[list[str]]:
    """Return the csv module's reader for a dialect."""
    return csv.reader(
        lines,
        delimiter=dialect.delimiter,
        skipinitialspace=dialect.skips_space,
        quotechar='"',
        doublequote=True,
        strict=False,
    )


def _are_rows(lines: list[str], dialect: Dialect, width: int) -> bool:
    """Tell if lines that ended up inside one cell read like rows of their own."""
    compared = [line for line in lines[:LINES_COMPARED_MAX] if line.strip()]
    if width < 2 or not compared:
        return False
    fits = 0
    for line in compared:
        try:
            fits += len(next(new_reader(iter([line]), dialect), [])) == width
        except csv.Error:
            continue
    return fits * 2 >= len(compared)


def _cells_without_quotes(line: str, dialect: Dialect) -> list[str]:
    return line.rstrip("\r\n").split(dialect.delimiter)


def _skip_record(feed: _Feed, dialect: Dialect) -> None:
    """Read on to the end of a record without keeping it."""
    state = "start"
    for piece in chain(list(feed.taken), _rest(feed)):
        state = _state_after(piece, state, dialect.delimiter)
        is_line_end = piece.endswith(("\n", "\r"))
        if is_line_end and state != "quoted" and piece is feed.taken[-1]:
            return


def _rest(feed: _Feed) -> Iterator[str]:
    """Yield the following physical lines, or pieces of one, keeping only the last."""
    while True:
        feed.start_record()
        try:
            next(feed)
        except StopIteration:
            return
        except _TooLarge:
            pass
        yield feed.taken[-1]


def _state_after(text: str, state: str, delimiter: str) -> str:
    """Follow the csv module's rules for quotes through a piece of a record.

    States: `start` of a cell, `plain`, `quoted`, and `quote` just after a quote inside quotes.
    """
    at = 0
    while 0 <= at < len(text):
        letter = text[at]
        match state:
            case "quoted":
                at = text.find('"', at)
                if at < 0:
                    return "quoted"
                state = "quote"
            case "quote" if letter == '"':
                state = "quoted"
            case "start" if letter == '"':
                state = "quoted"
            case _ if letter == delimiter:
                state = "start"
            case _:
                at = text.find(delimiter, at)
                if at < 0:
                    return "plain"
                state = "start"
        at += 1
    return state
