"""`/metrics`: the sum of all processes' files, and the queue as it stands.

Each page is made from nothing: a new registry with one collector for the files and one for the
figures. What cannot be read is left out and counted in `enrichd_scrape_error`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from enrichd import metrics
from enrichd.gateway.readings import Failure, Reading
from enrichd.gateway.standing import Standing
from enrichd.logs import get_logger
from enrichd.metrics import Metric, declared
from enrichd.metrics.files import is_readable
from enrichd.metrics.series import free_bytes
from enrichd.store.health import QueueFigures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BREAKER_VALUES = {"closed": 0.0, "half_open": 1.0, "open": 2.0}

log = get_logger("gateway")


@dataclass(slots=True)
class MetricsPage:
    """The route `/metrics`; one page is made at a time."""

    standing: Standing
    figures: Reading[QueueFigures]
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)

    def routes(self) -> list[web.RouteDef]:
        """Return the route of the metrics."""
        return [web.get("/metrics", self.page)]

    async def page(self, _: web.Request) -> web.Response:
        """Return the page in Prometheus' text format."""
        async with self._making:
            read = await self.figures.get()
            figures = None if isinstance(read.value, Failure) else read.value
            # In a thread: with hundreds of workers it takes longer than the loop may stand still.
            text = await asyncio.to_thread(render, figures, self.standing.is_draining)
        response = web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})
        response.enable_compression()
        return response


def render(figures: QueueFigures | None, is_draining: bool) -> bytes:
    """Return the whole page."""
    registry = CollectorRegistry()
    kept = KeptCollector(metrics.folder())
    registry.register(kept)
    registry.register(AskedCollector(figures, is_draining, kept))
    return generate_latest(registry)


class KeptCollector(Collector):
    """Adds up the processes' files; those that cannot be read are only counted."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.unreadable = 0

    def collect(self) -> Iterable[Family]:
        """Return what all processes counted."""
        if self.folder is None:
            return []
        files = sorted(self.folder.glob("*.db"))
        readable = [str(file) for file in files if is_readable(file)]
        self.unreadable = len(files) - len(readable)
        try:
            return list(MultiProcessCollector.merge(readable))  # type: ignore[no-untyped-call]
        except Exception as error:  # Whatever is wrong, the queue's figures are still shown.
            log.error("metrics_unreadable", exc_info=error)
            self.unreadable = max(len(files), 1)
            return []


class AskedCollector(Collector):
    """Shows the queue as PostgreSQL answered, this host, and what is missing on the page."""

    def __init__(
        self, figures: QueueFigures | None, is_draining: bool, kept: KeptCollector
    ) -> None:
        self._figures = figures
        self._is_draining = is_draining
        self._kept = kept

    def collect(self) -> Iterator[Family]:
        """Yield the figures; comes after the files have been read."""
        if self._figures is not None:
            yield from queue_families(self._figures)
        yield family(declared.DRAINING, {(): self._is_draining})
        errors: dict[tuple[str, ...], float] = {
            ("database",): float(self._figures is None),
            ("files",): float(self._kept.unreadable),
            ("metrics",): float(not metrics.is_on()),
        }
        if self._kept.folder is not None:
            try:
                free = free_bytes(self._kept.folder)
            except OSError:
                errors["metrics",] = 1.0
            else:
                yield family(declared.METRICS_FREE_BYTES, {(): free})
        yield family(declared.SCRAPE_ERROR, errors)


def queue_families(figures: QueueFigures) -> Iterator[Family]:
    """Yield the gauges of the queue; lanes that are not known providers are added up as `other`."""
    depths: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for depth in figures.depths:
        depths[metrics.bounded("lane", depth.lane), depth.status] += depth.jobs
    ages: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for lane, age_s in figures.oldest_ready_s:
        name = (metrics.bounded("lane", lane),)
        ages[name] = max(ages[name], age_s)
    blocked: dict[tuple[str, ...], float] = dict.fromkeys(ages, 0.0)
    blocked |= {(metrics.bounded("lane", lane),): 1.0 for lane in figures.blocked_lanes}
    breakers: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for credential, breaker in figures.breakers:
        name = (metrics.bounded("provider", credential.partition("#")[0]),)
        breakers[name] = max(breakers[name], BREAKER_VALUES[breaker])
    live = [count for count in figures.workers if count.state not in ("dead", "silent")]
    yield family(declared.QUEUE_DEPTH, depths)
    yield family(declared.OLDEST_READY_AGE, ages)
    yield family(declared.OLDEST_DUE_AGE, {(): figures.oldest_due_s})
    yield family(declared.LANE_BLOCKED, blocked)
    yield family(declared.PROVIDER_BREAKER, breakers)
    yield family(declared.WORKERS, {(c.state,): c.workers for c in figures.workers})
    yield family(declared.WORKER_SLOTS, {(): sum(count.slots for count in live)})
    yield family(declared.WORKER_SLOTS_USED, {(): sum(count.running for count in live)})


def family(metric: Metric, values: dict[tuple[str, ...], float]) -> Family:
    """Return a gauge with a sample for each combination of label values."""
    found = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in sorted(values.items()):
        found.add_metric(labels, value)
    return found
