"""Lines of text for a screen of given width and height: columns, and which rows fit.

Every line is one row of the terminal, so that a layout can count them. All cells are untrusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from enrichd.ctl.render import GAP, wanted_widths
from enrichd.ctl.terminal import safe

BARS = "▁▂▃▄▅▆▇█"
NAME_WIDTH_MIN = 12


@dataclass(frozen=True, slots=True)
class Panel:
    """A titled table whose rows may be more than there is room for; the first matter most."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[int] = ()
    """Columns of numbers."""
    cuts: Sequence[int] = ()
    """Columns that may be cut, in that order, to a few letters each; the others stay whole."""
    row_styles: Mapping[int, str] = field(default_factory=dict)
    empty: str = "none"
    """What is said when there are no rows."""

    @property
    def rows_wanted(self) -> int:
        """Lines below the headings that would show everything."""
        return max(len(self.rows), 1)

    def lines(self, width: int, rows_max: int) -> list[Text]:
        """Return the title with the headings, then as many rows as there is room for."""
        shown = self.rows[:rows_max]
        title = self.title
        if len(shown) < len(self.rows):
            title += f" ({len(shown)} of {len(self.rows)})"
        if not self.rows:
            return [Text(title, style="bold"), Text(safe(self.empty), style="dim")][: rows_max + 1]
        cells = [[Text(safe(cell)) for cell in row] for row in shown]
        headings = [title, *self.headings[1:]]
        widths = self._widths(headings, cells, width)
        lines = [self._line([Text(name) for name in headings], widths)]
        lines[0].stylize("bold")
        for place, row in enumerate(cells):
            line = self._line(row, widths)
            line.stylize(self.row_styles.get(place, ""))
            lines.append(line)
        return [cut(line, width) for line in lines]

    def width_wanted(self) -> int:
        """Return how wide it would be uncut."""
        cells = [[Text(safe(cell)) for cell in row] for row in self.rows]
        widths = wanted_widths([self.title, *self.headings[1:]], cells)
        return sum(widths) + GAP * (len(widths) - 1)

    def _widths(
        self, headings: Sequence[str], cells: Sequence[Sequence[Text]], width: int
    ) -> list[int]:
        widths = wanted_widths(headings, cells)
        excess = sum(widths) + GAP * (len(widths) - 1) - width
        for place in self.cuts:
            cut_by = max(min(excess, widths[place] - NAME_WIDTH_MIN), 0)
            widths[place] -= cut_by
            excess -= cut_by
        return widths

    def _line(self, cells: Sequence[Text], widths: Sequence[int]) -> Text:
        line = Text()
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            fitted = cell.copy()
            fitted.truncate(width, overflow="ellipsis")
            fitted.align("right" if place in self.right else "left", width)
            line.append_text(fitted)
            line.append(" " * GAP)
        line.rstrip()
        return line


def stacked(panels: Sequence[Panel], width: int, height: int | None) -> list[Text]:
    """Return panels one below the other in `height` lines, or uncut for None."""
    wanted = [panel.rows_wanted for panel in panels]
    # Each has its line of headings, and an empty line stands between two.
    room = None if height is None else max(height - 2 * len(panels) + 1, 0)
    lines: list[Text] = []
    for panel, rows in zip(panels, shares(wanted, room), strict=True):
        if rows:
            lines += [Text()] if lines else []
            lines += panel.lines(width, rows)
    return lines


def beside(left: Panel, right: Panel, width: int, height: int | None) -> list[Text]:
    """Return two panels side by side."""
    rows = max(left.rows_wanted, right.rows_wanted)
    rows = rows if height is None else max(min(rows, height - 1), 0)
    half = (width - 2 * GAP) // 2
    left_width = max(width - 2 * GAP - right.width_wanted(), half)
    lefts = left.lines(left_width, rows)
    rights = right.lines(width - left_width - 2 * GAP, rows)
    lines = []
    for place in range(max(len(lefts), len(rights))):
        line = lefts[place].copy() if place < len(lefts) else Text()
        line.align("left", left_width + 2 * GAP)
        if place < len(rights):
            line.append_text(rights[place])
        lines.append(line)
    return lines


def shares(wanted: Sequence[int], room: int | None) -> list[int]:
    """Divide lines: everybody gets the same, and what one does not need goes to the others."""
    if room is None:
        return list(wanted)
    given = [0] * len(wanted)
    while room > 0 and any(has < wants for has, wants in zip(given, wanted, strict=True)):
        for place, wants in enumerate(wanted):
            if given[place] < wants and room > 0:
                given[place] += 1
                room -= 1
    return given


def cut(line: Text, width: int) -> Text:
    """Return a line that is no wider than the screen."""
    line.truncate(width, overflow="ellipsis")
    return line


def joined(parts: Sequence[Text | str], gap: str = "   ") -> Text:
    """Return parts with gaps between them, empty ones left out."""
    texts = [part if isinstance(part, Text) else Text(part) for part in parts]
    return Text(gap).join([text for text in texts if text.plain])


def spread(left: Text, right: Text, width: int) -> Text:
    """Return two texts at the ends of a line; the right one is left out if both do not fit."""
    space = width - left.cell_len - right.cell_len
    return left if space < 2 else left + Text(" " * space) + right


def bars(values: Sequence[float], width: int) -> str:
    """Return the last values as a small bar chart, one letter each; empty without any."""
    shown = values[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return ""
    return "".join(
        BARS[min(int(value / top * len(BARS)), len(BARS) - 1)] if value > 0 else " "
        for value in shown
    )
