"""Which rate limits hold for a credential: what was configured and what the provider documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from enrichd.providers.contracts import Contract, Window
from enrichd.settings.providers import ProviderSettings

ALL: Final = "*"
"""What all operations share."""
LENGTHS: Final[Mapping[str, int]] = {
    "rate_limit_per_second": 1,
    "rate_limit_per_minute": 60,
    "rate_limit_per_hour": 3600,
    "rate_limit_per_day": 86_400,
}
"""The window of each setting, in seconds."""


def limits_in_force(
    settings: ProviderSettings, contract: Contract | None
) -> Mapping[str, Sequence[Window]]:
    """Return the windows of each operation, and under ALL those that all operations share.

    The limiter lets the strictest of all decide.
    """
    configured = [
        Window(1, settings.rate_limit_per_second),
        Window(60, settings.rate_limit_per_minute),
        Window(3600, settings.rate_limit_per_hour),
    ]
    if settings.rate_limit_per_day is not None:
        configured.append(Window(86_400, settings.rate_limit_per_day))
    # Whoever sets a provider's limit by name has bought a plan of its own.
    bought = {LENGTHS[name] for name in settings.limits_by_name}
    limits: dict[str, Sequence[Window]] = {ALL: tuple(configured)}
    for operation, documented in (contract.limits if contract else {}).items():
        name = ALL if operation is None else str(operation)
        kept = [window for window in documented if window.seconds not in bought]
        limits[name] = (*limits.get(name, ()), *kept)
    return limits
