"""How each provider stands for a workspace: key, limits, use, credits, breaker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from enrichd.domain.jobs import iso
from enrichd.domain.merging import amount
from enrichd.providers.base import REGISTERED
from enrichd.providers.contracts import Window
from enrichd.providers.keyring import credential_of, opened
from enrichd.providers.limits import ALL, limits_in_force
from enrichd.providers.roster import BUILTIN
from enrichd.settings import Settings
from enrichd.store import credits, provider_keys, provider_standing
from enrichd.store.credits import Use
from enrichd.store.database import Connection
from enrichd.store.provider_keys import ProviderKey
from enrichd.store.provider_standing import Standing
from enrichd.store.sealing import Sealer, Unreadable

UNITS: Final = {1: "s", 60: "min", 3_600: "h", 86_400: "d"}


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """One provider as one workspace meets it."""

    provider_id: str
    credential: str
    key: str
    """`set`, `own`, `missing`, `unreadable`, `refused`, or `none needed`."""
    hint: str
    """The last characters of a workspace's own key."""
    limits: Mapping[str, Sequence[Window]]
    """By operation; `*` is what all share."""
    calls: int
    answered: int
    no_match: int
    errors: int
    cache_hits: int
    credits_today: Decimal
    standing: Standing | None

    @property
    def hit_rate(self) -> float | None:
        """Return the share of questions that the cache answered; None if none was put."""
        asked = self.calls + self.cache_hits
        return self.cache_hits / asked if asked else None

    @property
    def cost_per_result(self) -> Decimal | None:
        """Return what an answer did cost today; None if there was none."""
        return self.credits_today / self.answered if self.answered else None

    @property
    def credits_left(self) -> Decimal | None:
        """Return what is left by the provider's own word: a number, or that there is nothing."""
        state = self.standing
        if state is not None and self.is_troubled and state.trouble == "exhausted":
            return Decimal(0)
        return state.credits_left if state is not None else None

    @property
    def breaker(self) -> str:
        """Return the breaker's state in words."""
        state = self.standing
        if state is None or state.breaker == "closed":
            by_hand = state is not None and state.is_set_by_hand
            return "closed by hand" if by_hand else "closed"
        return "half open" if state.breaker == "half_open" else "open"

    @property
    def is_troubled(self) -> bool:
        """Return whether the provider is not simply asked."""
        return self.standing is not None and self.standing.breaker != "closed"

    def to_json(self) -> dict[str, Any]:
        """Return the row in camelCase."""
        state = self.standing
        per_result = self.cost_per_result
        return {
            "providerId": self.provider_id,
            "credential": self.credential,
            "key": self.key,
            "keyHint": self.hint or None,
            "limits": {
                operation: [{"seconds": one.seconds, "calls": one.calls} for one in windows]
                for operation, windows in self.limits.items()
            },
            "today": {
                "calls": self.calls,
                "answered": self.answered,
                "noMatch": self.no_match,
                "errors": self.errors,
                "cacheHits": self.cache_hits,
                "costCredits": amount(self.credits_today),
            },
            "cacheHitRate": self.hit_rate,
            "costPerResult": None if per_result is None else amount(round(per_result, 4)),
            "creditsLeft": None if self.credits_left is None else amount(self.credits_left),
            "creditsSeenAt": iso(state.credits_seen_at) if state else None,
            "breaker": state.breaker if state else "closed",
            "breakerUntil": iso(state.open_until) if state else None,
            "breakerTrouble": state.trouble if state else None,
            "breakerReason": state.reason if state else None,
            "isSetByHand": state.is_set_by_hand if state else False,
        }


async def rows_of(
    conn: Connection, settings: Settings, sealer: Sealer, workspace_id: str
) -> list[ProviderRow]:
    """Read how every provider stands for a workspace."""
    names = [name for name in sorted(REGISTERED) if name != BUILTIN]
    brought = {
        row.provider_id: row
        for row in await provider_keys.of_workspace(conn, workspace_id=workspace_id)
    }
    credentials = [credential_of(name, workspace_id) if name in brought else name for name in names]
    standings = await provider_standing.standings(conn, credentials)
    used = await credits.use(conn, workspace_id=workspace_id)
    return [
        _row(name, settings, sealer, brought.get(name), credential, standings.get(credential), used)
        for name, credential in zip(names, credentials, strict=True)
    ]


def _row(
    name: str,
    settings: Settings,
    sealer: Sealer,
    brought: ProviderKey | None,
    credential: str,
    standing: Standing | None,
    used: Iterable[Use],
) -> ProviderRow:
    contract = REGISTERED[name].contract
    chosen = settings.provider(name)
    mine = [use for use in used if use.provider_id == name]
    needs_key = contract is None or contract.needs_key
    return ProviderRow(
        provider_id=name,
        credential=credential,
        key=_key_state(sealer, brought, chosen.api_key is not None, needs_key, standing),
        hint=brought.hint if brought else "",
        limits=limits_in_force(chosen, contract),
        calls=sum(use.calls for use in mine),
        answered=sum(use.answered for use in mine),
        no_match=sum(use.no_match for use in mine),
        errors=sum(use.errors for use in mine),
        cache_hits=sum(use.cache_hits for use in mine),
        credits_today=sum((use.credits for use in mine), Decimal(0)),
        standing=standing,
    )


def _key_state(
    sealer: Sealer,
    brought: ProviderKey | None,
    is_set: bool,
    needs_key: bool,
    standing: Standing | None,
) -> str:
    if brought is not None:
        try:
            opened(sealer, brought)
        except Unreadable:
            return "unreadable"
    elif not is_set:
        return "missing" if needs_key else "none needed"
    if standing is not None and standing.breaker != "closed" and standing.trouble == "denied":
        return "refused"
    return "own" if brought is not None else "set"


def limits_text(limits: Mapping[str, Sequence[Window]]) -> str:
    """Return the strictest limits that all operations share: `10/s 100/min 1000/h`."""
    strictest: dict[int, int] = {}
    for window in limits.get(ALL, ()):
        strictest[window.seconds] = min(window.calls, strictest.get(window.seconds, window.calls))
    return " ".join(
        f"{calls}/{UNITS.get(seconds, f'{seconds}s')}"
        for seconds, calls in sorted(strictest.items())
    )
