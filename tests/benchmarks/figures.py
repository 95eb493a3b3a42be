"""What was measured, and how it is shown: median, range, and the ratio that counts."""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(slots=True)
class Figures:
    """Values by (what, whose), in the order they were measured."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    units: dict[str, str] = field(default_factory=dict)

    def add(self, what: str, whose: str, value: float, unit: str) -> None:
        """Add one value and say it."""
        self.values[what, whose].append(value)
        self.units[what] = unit
        print(f"  {whose:14} {what:44} {shown(value)} {unit}", file=sys.stderr, flush=True)

    def to_json(self) -> list[dict[str, Any]]:
        """Return a row for each figure."""
        return [
            {
                "what": what,
                "whose": whose,
                "unit": self.units[what],
                "median": statistics.median(values),
                "values": values,
            }
            for (what, whose), values in self.values.items()
        ]

    def show(self) -> None:
        """Print a line for each figure and a column for each queue."""
        owners = list(dict.fromkeys(whose for _, whose in self.values))
        table = Table(title="Median (lowest to highest); x: times pgqueuer's median")
        table.add_column("")
        for owner in owners:
            table.add_column(owner, justify="right")
        for what in self.units:
            base = statistics.median(self.values.get((what, "pgqueuer"), [float("nan")]))
            cells = [self._cell(what, owner, base) for owner in owners]
            table.add_row(f"{what} ({self.units[what]})", *cells)
        Console(width=180).print(table)

    def _cell(self, what: str, owner: str, base: float) -> str:
        values = self.values.get((what, owner))
        if not values:
            return ""
        middle = statistics.median(values)
        text = shown(middle)
        if len(values) > 1:
            text += f" ({shown(min(values))} to {shown(max(values))})"
        return text if base != base or not base else f"{text}  x{middle / base:.2f}"


def shown(value: float) -> str:
    """Return a number with three digits that matter."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` (0 to 1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
