"""From settings to a JobProcessor with its data providers; the three callers share it."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from enrichd.domain.retries import RetryRule
from enrichd.processing.processor import JobProcessor
from enrichd.settings import Settings
from enrichd.store.database import Database

if TYPE_CHECKING:
    from enrichd.providers.roster import Providers
    from enrichd.providers.smtp_probe import SmtpProbe


class Runtime:
    """What one process needs to run jobs; the providers are opened when a job first asks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._providers: Providers | None = None
        self._database: Database | None = None
        """Where the providers' limits, answers and credits are; known with the first processor."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._providers is not None:
            await self._providers.aclose()

    def open_providers(self) -> Providers:
        """Return this process's data providers."""
        if self._providers is None:
            # Imported when a job first needs it: HTTP clients and parsers are half of the memory.
            from enrichd.providers.roster import build_providers
            from enrichd.providers.sharing import share

            settings, database = self._settings, self._database
            assert database is not None
            self._providers = build_providers(
                nameservers=[
                    f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
                    for ip, port in settings.dns_servers
                ],
                allowed_networks=settings.webhook_allowed_networks,
                settings_of=settings.provider,
                smtp_probe=probe_of(settings),
                share=lambda: share(settings, database),
            )
        return self._providers

    def processor(self, *, hot: Database, control: Database, **options: Any) -> JobProcessor:
        """Return a JobProcessor as the settings have it; `options` override its arguments."""
        settings, self._database = self._settings, control
        chosen: dict[str, Any] = {
            "concurrency": settings.max_concurrent_jobs,
            "job_timeout_s": settings.job_timeout_s,
            "poll_interval_s": settings.poll_interval_s,
            "heartbeat_interval_s": settings.heartbeat_interval_s,
            "worker_timeout_s": settings.worker_timeout_s,
            "grace_s": settings.graceful_shutdown_timeout_s,
            "retry_rule": RetryRule(
                base_delay_s=settings.retry_base_delay_s,
                max_delay_s=settings.retry_max_delay_s,
                multiplier=settings.retry_backoff_multiplier,
            ),
            "open_providers": self.open_providers,
        }
        return JobProcessor(hot=hot, control=control, **{**chosen, **options})


def probe_of(settings: Settings) -> SmtpProbe | None:
    """Return the SMTP probe as the settings have it; None while it is off."""
    if not settings.smtp_probe:
        return None
    from enrichd.providers.smtp_probe import SmtpProbe

    return SmtpProbe(
        helo_name=settings.smtp_probe_helo or socket.getfqdn(),
        mail_from=settings.smtp_probe_from or "",
    )
