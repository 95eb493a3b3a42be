"""`/livez`, `/readyz` and `/health`: for a kubelet, a load balancer and a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from enrichd.gateway import checks
from enrichd.gateway.checks import Check
from enrichd.gateway.readings import Reading
from enrichd.gateway.standing import Standing
from enrichd.store.health import QueueFigures, Readiness

HTTP_STATUS = {"pass": 200, "warn": 200, "fail": 503}


@dataclass(frozen=True, slots=True)
class Health:
    """The three routes and what they look at."""

    standing: Standing
    readiness: Reading[Readiness]
    figures: Reading[QueueFigures]
    turn_timeout_s: float

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of health."""
        return [
            web.get("/livez", self.livez),
            web.get("/readyz", self.readyz),
            web.get("/health", self.health),
        ]

    async def livez(self, _: web.Request) -> web.Response:
        """Say whether the daemon turns; asks nobody else."""
        found = [checks.supervisor(self.standing)]
        return answer(found, {"status": "alive" if is_good(found) else "not alive"})

    async def readyz(self, _: web.Request) -> web.Response:
        """Say whether a job put on the queue now would be worked on."""
        if self.standing.is_draining:
            reasons = [checks.draining(self.standing).output]
        else:
            found = await self._readiness()
            reasons = [check.output for check in found if check.status == "fail"]
        body = {"status": "not ready" if reasons else "ready", "reasons": reasons}
        return web.json_response(body, status=503 if reasons else 200)

    async def health(self, _: web.Request) -> web.Response:
        """Say how all is, in words and numbers."""
        found = [checks.supervisor(self.standing), checks.draining(self.standing)]
        ready = await self._readiness()
        found += ready
        if is_good(ready[:2]):
            # With the database away or its tables missing the queue is not asked as well.
            read = await self.figures.get()
            found += checks.queue(read, self.figures.age_s(read))
        found.append(checks.metrics_kept())
        now = datetime.now(UTC)  # noqa: TID251 - a stamp for readers; nothing is timed by it
        body = {"status": checks.worst(found), "checks": {c.name: shape(c, now) for c in found}}
        return answer(found, body)

    async def _readiness(self) -> list[Check]:
        read = await self.readiness.get()
        return checks.readiness(read, self.readiness.age_s(read), self.turn_timeout_s)


def is_good(found: list[Check]) -> bool:
    """Say whether no check failed."""
    return checks.worst(found) != "fail"


def answer(found: list[Check], body: dict[str, Any]) -> web.Response:
    """Return the response: the body, and what is wrong in one sentence each."""
    wrong = [check.output for check in found if check.status != "pass"]
    body["output"] = "; ".join(wrong) or "all is well"
    return web.json_response(body, status=HTTP_STATUS[checks.worst(found)])


def shape(check: Check, now: datetime) -> dict[str, Any]:
    """Return a check as `/health` shows it: the fields of the health+json draft."""
    return {
        "status": check.status,
        "observedValue": check.observed,
        "observedUnit": check.unit,
        "time": (now - timedelta(seconds=check.age_s)).isoformat(timespec="seconds"),
        "output": check.output,
    }
