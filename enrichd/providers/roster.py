"""The providers of one process: which there are, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from enrichd.domain.addresses import Network
from enrichd.providers.adapters import (  # noqa: F401 - they register themselves
    apollo,
    builtin,
    clearbit,
    hunter,
    pdl,
)
from enrichd.providers.base import REGISTERED, Provider
from enrichd.providers.client import Connections, common_limits
from enrichd.providers.dns import Resolver
from enrichd.providers.smtp_probe import SmtpProbe, SmtpProber
from enrichd.providers.web import WebFetcher
from enrichd.settings.providers import ProviderSettings

if TYPE_CHECKING:
    from enrichd.providers.answers import Answers
    from enrichd.providers.breakers import Breakers
    from enrichd.providers.callbacks import Callbacks
    from enrichd.providers.credits import Caps
    from enrichd.providers.credits_left import CreditsLeft
    from enrichd.providers.keyring import Keyring
    from enrichd.providers.limiter import RateLimiter
    from enrichd.providers.suppressions import Suppressions
    from enrichd.store.database import Database

BUILTIN: Final = "builtin"


@dataclass(frozen=True, slots=True)
class Shared:
    """What all processes know together, by way of PostgreSQL."""

    database: Database
    answers: Answers
    limiter: RateLimiter
    breakers: Breakers
    keyring: Keyring
    suppressions: Suppressions
    callbacks: Callbacks
    caps: Caps
    credits_left: CreditsLeft
    wait_s_max: float = 5.0
    """How long a run may wait for a permit before it is put off."""

    async def aclose(self) -> None:
        """Write what is still to be written, then close the connection."""
        await self.credits_left.aclose()
        await self.suppressions.aclose()
        await self.limiter.aclose()
        await self.answers.aclose()
        await self.database.close()


class Providers:
    """The adapters of one process and one event loop, each made when it is first needed."""

    def __init__(
        self,
        connections: Connections,
        *,
        adapters: Mapping[str, Provider] | None = None,
        shared: Shared | None = None,
    ) -> None:
        self.connections = connections
        self.shared = shared
        """None: no cache, no limits, no money; a library or a test asks providers directly."""
        self._adapters = dict(adapters or {})
        self._of_workspaces: dict[str, tuple[ProviderSettings, Provider]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection that was opened."""
        await self.connections.aclose()
        if self.shared is not None:
            await self.shared.aclose()

    def find(self, provider_id: str) -> Provider | None:
        """Return the adapter with that id, or None if nobody registered one."""
        adapter = self._adapters.get(provider_id)
        if adapter is None and provider_id in REGISTERED:
            factory = REGISTERED[provider_id].factory
            adapter = factory(self.connections, self.connections.settings_of(provider_id))
            self._adapters[provider_id] = adapter
        return adapter

    def with_key(
        self, provider_id: str, credential: str, settings: ProviderSettings
    ) -> Provider | None:
        """Return the adapter that works with a workspace's own key, made anew when that changed."""
        if credential == provider_id or provider_id not in REGISTERED:
            return self.find(provider_id)
        known = self._of_workspaces.get(credential)
        if known is not None and known[0] == settings:
            return known[1]
        adapter = REGISTERED[provider_id].factory(self.connections, settings)
        self._of_workspaces[credential] = settings, adapter
        return adapter

    @property
    def builtin(self) -> Provider:
        """The sources that need no key."""
        adapter = self.find(BUILTIN)
        assert adapter is not None
        return adapter


def build_providers(
    *,
    nameservers: Sequence[str] = (),
    allowed_networks: Sequence[Network] = (),
    settings_of: Callable[[str], ProviderSettings] = common_limits,
    smtp_probe: SmtpProbe | None = None,
    share: Callable[[], Shared] | None = None,
) -> Providers:
    """Return a process's providers; nothing is connected yet.

    `nameservers` are `ip` or `ip:port`, none means the system's own. `settings_of` is
    `Settings.provider`; `share` makes what all processes know together.
    """
    resolver = Resolver(nameservers)
    connections = Connections(
        resolver=resolver,
        fetcher=WebFetcher(nameservers=nameservers, allowed_networks=allowed_networks),
        prober=SmtpProber(smtp_probe, resolver=resolver) if smtp_probe else None,
        settings_of=settings_of,
    )
    return Providers(connections, shared=share() if share else None)
