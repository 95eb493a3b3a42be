"""Which variables belong to a data provider, and what a provider's variables say together.

A provider's variable is its id in capitals, then one of `SUFFIXES`: `HUNTER_API_KEY`. Ids are
open: a plugin may bring any. But the environment is shared with other programs, so a prefix nobody
knows counts only once it brings a key or a base URL; in `enrichd.toml`, which is ours, every
suffix counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from enrichd.settings import values

KEYED = ("hunter", "apollo", "clearbit", "pdl")
"""The providers that answer nobody without a key."""

KNOWN = (*KEYED, "builtin", "website", "dns", "gravatar", "github", "rdap")

SUFFIXES = (
    "API_KEY",
    "BASE_URL",
    "WEBHOOK_SECRET",
    "RATE_LIMIT_PER_SECOND",
    "RATE_LIMIT_PER_MINUTE",
    "RATE_LIMIT_PER_HOUR",
    "RATE_LIMIT_PER_DAY",
)
SECRET_SUFFIXES = ("API_KEY", "WEBHOOK_SECRET")

RATE_LIMIT = values.whole(1, 1_000_000_000)

# Prefixes of variables that are ours or a platform's: SUPABASE_API_KEY names no data provider.
_NOT_PROVIDERS = frozenset(
    {
        "CALLBACK",
        "CRON",
        "DATABASE",
        "ENRICHD",
        "HEALTH_CHECK",
        "LOG",
        "RETRY",
        "SMTP",
        "SUPABASE",
        "WEBHOOK",
        "WORKER",
    }
)
_VARIABLE = re.compile(rf"([A-Z][A-Z0-9_]*)_({'|'.join(SUFFIXES)})", re.ASCII)


class ProviderSettings(BaseModel):
    """What was chosen for one provider; limits that were not are the common ones."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: str
    api_key: Annotated[SecretStr | None, values.secret()] = None
    base_url: Annotated[str | None, values.http_url()] = None
    """In place of the documented base, version path included, without a slash at the end."""
    webhook_secret: Annotated[SecretStr | None, values.secret()] = None
    rate_limit_per_second: Annotated[int, RATE_LIMIT] = Field()
    rate_limit_per_minute: Annotated[int, RATE_LIMIT] = Field()
    rate_limit_per_hour: Annotated[int, RATE_LIMIT] = Field()
    rate_limit_per_day: Annotated[int | None, RATE_LIMIT] = None
    """None: no limit a day."""
    limits_by_name: frozenset[str] = frozenset()
    """The limits that were set for this provider, not for all: `rate_limit_per_minute` …"""

    @property
    def webhook_secrets(self) -> tuple[str, ...]:
        """Return the secrets that its webhooks may be signed with; none: it has no webhooks."""
        if self.webhook_secret is None:
            return ()
        return tuple(filter(None, self.webhook_secret.get_secret_value().split(",")))


def split(variable: str) -> tuple[str, str] | None:
    """Take `HUNTER_API_KEY` apart into ("hunter", "API_KEY"); None if it is no provider's."""
    match = _VARIABLE.fullmatch(variable)
    if match is None or match[1] in _NOT_PROVIDERS:
        return None
    return match[1].lower(), match[2]


def limits_named(given: Mapping[str, str]) -> frozenset[str]:
    """Return which limits are among a provider's own settings."""
    return frozenset(name for name in given if name.startswith("rate_limit_per_"))


def is_secret(variable: str) -> bool:
    parts = split(variable)
    return parts is not None and parts[1] in SECRET_SUFFIXES


def variable(provider_id: str, suffix: str) -> str:
    return f"{provider_id.upper()}_{suffix}"


def normal_id(provider_id: str) -> str:
    """Write an id the way its variables do: `data-axle` is set by `DATA_AXLE_API_KEY`."""
    return re.sub(r"[^a-z0-9]+", "_", provider_id.lower())
