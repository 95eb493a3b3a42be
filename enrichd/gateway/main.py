"""The gateway child: HTTP for health and metrics, also while PostgreSQL is away."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable

from aiohttp import web

from enrichd import metrics
from enrichd.errors import InvalidSetting
from enrichd.gateway.api import serving_api
from enrichd.gateway.health import Health
from enrichd.gateway.metrics_page import MetricsPage
from enrichd.gateway.readings import Reading
from enrichd.gateway.server import serving
from enrichd.gateway.standing import Standing
from enrichd.gateway.tls import tls_of
from enrichd.logs import get_logger
from enrichd.processing.children import on_stop_signals, run_child
from enrichd.processing.link import Link
from enrichd.settings import Settings
from enrichd.store import health
from enrichd.store.database import Connection, Database
from enrichd.store.health import QueueFigures, Readiness

CONFIGURATION_ERROR = 78
# An earlier daemon may be about to leave. Shorter than the time after which the supervisor calls
# itself ready all the same.
PORT_PATIENCE_S = 8.0
READINESS_FRESH_S = 2.0
FIGURES_FRESH_S = 5.0

log = get_logger("gateway")


def run_gateway(settings: Settings, link: socket.socket, slot: int) -> int:
    """Be the gateway child; return the exit code, 78 when the port cannot be had."""
    metrics.start(slot)
    metrics.show_all()
    return run_child("gateway", lambda: Gateway(settings, link).run())


class Gateway:
    """Serves until told to stop, or until the supervisor is gone."""

    def __init__(self, settings: Settings, sock: socket.socket) -> None:
        self._settings = settings
        self._sock = sock
        self._stopping = asyncio.Event()
        # A worker polls at least this often; some more is left for jitter and a slow heartbeat.
        self._turn_timeout_s = settings.worker_timeout_s + 2 * settings.poll_interval_s

    async def run(self) -> int:
        """Serve; return the exit code."""
        standing = Standing()
        link = Link(self._sock, on_line=standing.hear, on_parent_death=self._stopping.set)
        on_stop_signals(self._stopping.set, self._stopping.set)
        async with asyncio.TaskGroup() as group:
            beat = group.create_task(link.beat())
            readiness, figures = self._readings(group)
            page = MetricsPage(standing, figures)
            pages = Health(standing, readiness, figures, self._turn_timeout_s)
            routes = [*pages.routes(), *page.routes()]
            serve = group.create_task(self._serve(group, routes, link))
            stopping = group.create_task(self._stopping.wait())
            try:
                await asyncio.wait([serve, stopping], return_when=asyncio.FIRST_COMPLETED)
                return serve.result() if serve.done() else 0
            finally:
                stopping.cancel()
                serve.cancel()
                await asyncio.wait([serve])  # Answers under way may still ask PostgreSQL.
                await readiness.close()
                await figures.close()
                beat.cancel()

    async def _serve(
        self, group: asyncio.TaskGroup, routes: Iterable[web.RouteDef], link: Link
    ) -> int:
        """Serve until cancelled; return 78 if the port or the certificate cannot be had."""
        settings = self._settings
        try:
            tls = tls_of(settings.api_tls_cert_file, settings.api_tls_key_file)
            async with (
                serving_api(settings, group) as transport,
                serving(
                    transport.application(routes),
                    settings.health_check_host,
                    settings.health_check_port,
                    patience_s=PORT_PATIENCE_S,
                    tls=tls,
                ),
            ):
                link.say("ready")
                await asyncio.Event().wait()
        except InvalidSetting as error:
            log.critical("gateway_not_listening", reason=error.message, hint=error.hint)
        return CONFIGURATION_ERROR

    def _readings(
        self, group: asyncio.TaskGroup
    ) -> tuple[Reading[Readiness], Reading[QueueFigures]]:
        """Return what is asked of PostgreSQL, each over a connection of its own."""
        settings = self._settings

        async def ready(conn: Connection) -> Readiness:
            return await health.readiness(
                conn,
                worker_timeout_s=settings.worker_timeout_s,
                turn_timeout_s=self._turn_timeout_s,
            )

        async def count(conn: Connection) -> QueueFigures:
            return await health.queue_figures(conn, worker_timeout_s=settings.worker_timeout_s)

        database = Database(settings.dsn, name="enrichd gateway", is_pooler=settings.is_pooler)
        return (
            Reading(group, database, ready, fresh_s=READINESS_FRESH_S),
            Reading(group, database.sibling("figures"), count, fresh_s=FIGURES_FRESH_S),
        )
