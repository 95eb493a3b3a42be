"""Which rate limits hold for a credential: what was configured and what the provider documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from enrichd.providers.contracts import Contract, Window
from enrichd.settings.providers import ProviderSettings

ALL: Final = "*"
"""What all operations share."""


def limits_in_force(
    settings: ProviderSettings, contract: Contract | None
) -> Mapping[str, Sequence[Window]]:
    """Return the windows of each operation, and under ALL those that all operations share.

    The limiter lets the strictest of all decide.
    """
    configured = (
        Window(1, settings.rate_limit_per_second),
        Window(60, settings.rate_limit_per_minute),
        Window(3600, settings.rate_limit_per_hour),
    )
    limits: dict[str, Sequence[Window]] = {ALL: configured}
    for operation, documented in (contract.limits if contract else {}).items():
        name = ALL if operation is None else str(operation)
        limits[name] = (*limits.get(name, ()), *documented)
    return limits
