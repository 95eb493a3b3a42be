"""What commands print: tables that fit the terminal, JSON, plain lines.

Untrusted text goes through `safe`, and nothing is ever read as rich markup. A pipe gets no colour,
and tables of full width, for `grep` to find what a terminal would have cut.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

import orjson
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from enrichd.ctl.terminal import safe

STATUS_STYLES = {
    "pending": "cyan",
    "scheduled": "blue",
    "processing": "yellow",
    "waiting": "magenta",
    "completed": "green",
    "failed": "red",
    "dead_letter": "bold red",
    "cancelled": "dim",
}


PIPE_WIDTH = 10_000
GAP = 2
CUT_WIDTH_MIN = 8


class PlainConsole(Console):
    """A console whose reader may leave: rich's own would then exit with 1, main exits with 0."""

    def on_broken_pipe(self) -> NoReturn:
        """Pass the error on to `main`, which knows what it means."""
        raise BrokenPipeError


def console() -> Console:
    """Return the terminal (or pipe) as it is now."""
    made = PlainConsole(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = PIPE_WIDTH
    return made


def line(text: str) -> None:
    """Print one line of text."""
    console().print(Text(safe(text)), soft_wrap=True)


def fields(pairs: Sequence[tuple[str, str]]) -> None:
    """Print names and values one below the other; long values go on under their beginning."""
    out = console()
    indent = max(len(name) for name, _ in pairs) + 2
    for name, value in pairs:
        text = Text(safe(value))
        if name == "status":
            text.stylize(STATUS_STYLES.get(value.partition(" ")[0], ""))
        for place, part in enumerate(text.wrap(out, max(out.width - indent, 20))):
            label = Text(f"{name if place == 0 else '':<{indent}}")
            out.print(label + part, soft_wrap=True)


def progress(text: str) -> None:
    """Show how far a command is, in place, on a terminal only; empty text takes it away."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{safe(text)}")
        sys.stderr.flush()


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    whole: Sequence[int] = (),
    wrap: Sequence[int] = (),
) -> None:
    """Print rows under headings, cut to the terminal's width; columns in `right` are numbers.

    Columns in `whole` (ids to copy) are never cut, those in `wrap` go on below instead. A column
    headed `Status` is coloured by state; a heading may span lines.
    """
    out = console()
    cells = [[Text(safe(cell)) for cell in row] for row in rows]
    widths = fitting_widths(headings, cells, out.width, whole)
    shown = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for place, heading in enumerate(headings):
        shown.add_column(
            Text(safe(heading, block=True)),
            justify="right" if place in right else "left",
            overflow="fold" if place in wrap else "ellipsis",
            no_wrap=place not in wrap,
            width=widths[place],
        )
    for row in cells:
        for heading, cell in zip(headings, row, strict=True):
            if heading == "Status":
                cell.stylize(STATUS_STYLES.get(cell.plain, ""))
        shown.add_row(*row)
    out.print(shown)


def fits(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Say whether a table of these rows would be shown uncut."""
    cells = [[Text(safe(cell)) for cell in row] for row in rows]
    return sum(wanted_widths(headings, cells)) + GAP * (len(headings) - 1) <= console().width


def fitting_widths(
    headings: Sequence[str], cells: Sequence[Sequence[Text]], room: int, whole: Sequence[int]
) -> list[int]:
    """Return the columns' widths: as wide as they want or, if that is too much, the last cut first.

    None is cut below a few characters; rich would cut them all alike, short numbers to nothing.
    """
    widths = wanted_widths(headings, cells)
    excess = sum(widths) + GAP * (len(widths) - 1) - room
    for place in reversed(range(len(widths))):
        if place not in whole and excess > 0:
            cut = min(excess, max(widths[place] - CUT_WIDTH_MIN, 0))
            widths[place] -= cut
            excess -= cut
    return widths


def wanted_widths(headings: Sequence[str], cells: Sequence[Sequence[Text]]) -> list[int]:
    """Return how wide each column would like to be."""
    return [
        max(cell_len(text) for text in [*heading.split("\n"), *(row[place].plain for row in cells)])
        for place, heading in enumerate(headings)
    ]


def json_document(value: Any) -> None:
    """Print one JSON document, indented, ASCII only."""
    write_json(value, orjson.OPT_INDENT_2)


def json_line(value: Any) -> None:
    """Print one line of JSON, ASCII only."""
    write_json(value, 0)


def write_json(value: Any, option: int) -> None:
    """Write JSON that no terminal can act on: everything past ASCII is escaped."""
    text = orjson.dumps(value, option=option | orjson.OPT_APPEND_NEWLINE).decode()
    sys.stdout.write(text if text.isascii() else "".join(map(ascii_json, text)))


def ascii_json(char: str) -> str:
    """Return a character as JSON writes it in ASCII."""
    if char.isascii():
        return char
    code = ord(char)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def age(moment: datetime | None, now: datetime) -> str:
    """Return how long ago (or ahead) a moment is: `5s`, `3m`, `2h`, `4d`, `in 5m`; `-` for None."""
    if moment is None:
        return "-"
    seconds = (now - moment).total_seconds()
    text = duration(abs(seconds))
    return f"in {text}" if seconds < -0.5 else text


def duration(seconds: float | None) -> str:
    """Return a duration in its largest unit: `40ms`, `5s`, `3m`, `2h`, `4d`; `-` for None."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
