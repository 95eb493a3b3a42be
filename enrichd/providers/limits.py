"""Which rate limits hold for a credential: what was configured and what the provider documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from enrichd.providers.contracts import Contract, Window
from enrichd.settings.providers import ProviderSettings

ALL: Final = "*"
"""What all operations share."""
LENGTHS_S: Final = {
    "rate_limit_per_second": 1,
    "rate_limit_per_minute": 60,
    "rate_limit_per_hour": 3600,
    "rate_limit_per_day": 86_400,
}


def limits_in_force(
    settings: ProviderSettings, contract: Contract | None
) -> Mapping[str, Sequence[Window]]:
    """Return the windows of each operation, and under ALL those that all operations share.

    The limiter lets the strictest of all decide. A limit that was set for this provider by name
    replaces the documented ones of its length: somebody has bought more, or wants to use less.
    """
    configured = tuple(
        Window(seconds, calls)
        for name, seconds in LENGTHS_S.items()
        if (calls := getattr(settings, name)) is not None
    )
    replaced = {LENGTHS_S[name] for name in settings.limits_by_name}
    limits: dict[str, Sequence[Window]] = {ALL: configured}
    for operation, documented in (contract.limits if contract else {}).items():
        name = ALL if operation is None else str(operation)
        kept = [window for window in documented if window.seconds not in replaced]
        if kept:
            limits[name] = (*limits.get(name, ()), *kept)
    return limits
