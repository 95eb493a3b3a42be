"""`/livez`, `/readyz` and `/health` where there is no daemon: the process, the database, no more.

Whether jobs get done is the cron's matter here, so nobody asks after workers.
"""

from __future__ import annotations

import asyncio

from enrichd.api.application import Api
from enrichd.api.messages import Response, json_response
from enrichd.domain.facts import Json
from enrichd.errors import NotMigrated, Unavailable
from enrichd.store import migrate

PATHS = ("/livez", "/readyz", "/health")
FRESH_S = 2.0
WAIT_S = 2.0
ALLOW = "GET, HEAD"


class SmallHealth:
    """What is known of the database, asked again when it is older than FRESH_S."""

    def __init__(self) -> None:
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self._problem: str | None = None

    async def answer(self, path: str, method: str, api: Api) -> Response:
        """Return the answer of one of PATHS."""
        if method not in ("GET", "HEAD"):
            return json_response({"status": "error"}, 405, Allow=ALLOW)
        if path == "/livez":
            return json_response({"status": "alive", "output": "all is well"})
        problem = await self._known(api)
        status = 200 if problem is None else 503
        body: Json
        if path == "/readyz":
            word = "not ready" if problem else "ready"
            body = {"status": word, "reasons": [problem] if problem else []}
        else:
            verdict = "fail" if problem else "pass"
            said = problem or "PostgreSQL answers, the schema is up to date"
            body = {
                "status": verdict,
                "checks": {"database": {"status": verdict, "output": said}},
                "output": problem or "all is well",
            }
        return json_response(body, status)

    async def _known(self, api: Api) -> str | None:
        clock = asyncio.get_running_loop().time
        async with self._asking:
            if clock() - self._asked_at >= FRESH_S:
                self._problem = await problem_of(api)
                self._asked_at = clock()
            return self._problem


async def problem_of(api: Api) -> str | None:
    """Return in words what is wrong with the database, None if nothing is."""
    try:
        async with asyncio.timeout(WAIT_S), api.tenants.of_nobody() as conn:
            missing = len(await migrate.pending(conn))
    except NotMigrated:
        return "the database lacks enrichd's tables: run enrichctl db migrate"
    except Unavailable:
        return "PostgreSQL cannot be reached"
    except TimeoutError:
        return f"PostgreSQL did not answer within {WAIT_S:g} seconds"
    return f"{missing} migrations are missing: run enrichctl db migrate" if missing else None
