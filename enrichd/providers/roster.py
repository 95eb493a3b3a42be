"""The providers of one process: which there are, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from enrichd.domain.addresses import Network
from enrichd.providers.adapters import builtin as _builtin  # noqa: F401 - registers itself
from enrichd.providers.base import REGISTERED, Provider
from enrichd.providers.client import Connections, common_limits
from enrichd.providers.dns import Resolver
from enrichd.providers.smtp_probe import SmtpProbe, SmtpProber
from enrichd.providers.web import WebFetcher
from enrichd.settings.providers import ProviderSettings

BUILTIN: Final = "builtin"


class Providers:
    """The adapters of one process and one event loop, each made when it is first needed."""

    def __init__(
        self,
        connections: Connections,
        *,
        adapters: Mapping[str, Provider] | None = None,
    ) -> None:
        self.connections = connections
        self._adapters = dict(adapters or {})

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

    def find(self, provider_id: str) -> Provider | None:
        """Return the adapter with that id, or None if nobody registered one."""
        adapter = self._adapters.get(provider_id)
        if adapter is None and provider_id in REGISTERED:
            factory = REGISTERED[provider_id].factory
            adapter = factory(self.connections, self.connections.settings_of(provider_id))
            self._adapters[provider_id] = adapter
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
) -> Providers:
    """Return a process's providers; nothing is connected yet.

    `nameservers` are `ip` or `ip:port`, none means the system's own. `settings_of` is
    `Settings.provider`.
    """
    resolver = Resolver(nameservers)
    connections = Connections(
        resolver=resolver,
        fetcher=WebFetcher(nameservers=nameservers, allowed_networks=allowed_networks),
        prober=SmtpProber(smtp_probe, resolver=resolver) if smtp_probe else None,
        settings_of=settings_of,
    )
    return Providers(connections)
