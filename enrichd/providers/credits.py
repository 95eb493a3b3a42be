"""What may be spent on providers, as it was configured."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final


@dataclass(frozen=True, slots=True)
class Caps:
    """The most credits in a day or month (UTC); None: any amount."""

    per_day: Decimal | None = None
    """Of everybody together."""
    workspace_per_day: Decimal | None = None
    """Of each workspace that has no cap of its own (`enrichment_budgets`)."""
    workspace_per_month: Decimal | None = None


NO_CAPS: Final = Caps()
