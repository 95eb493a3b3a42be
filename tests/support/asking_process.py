"""Processes that ask the credit server many questions, through the whole of `Calls`.

    python -m tests.support.asking_process '[{"dsn": …, "url": …, "questions": [...], …}, …]'

Forks one for each, and prints a line of JSON for each: its exit code, and what became of its
questions, by kind. With `die_after` one kills itself with SIGKILL when that question was answered
and paid, before anybody wrote it down.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import httpx

from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import LeadInput
from enrichd.providers.base import Asked, Found, Operation, Query, Skipped
from enrichd.providers.calls import Calls
from enrichd.providers.credits import Caps
from tests.support.sharing import CountingProvider, sharing_providers, titled


async def main(said: dict[str, Any]) -> None:
    """Ask, and say how it went."""
    async with httpx.AsyncClient(base_url=said["url"], trust_env=False, timeout=30) as client:

        async def answer(operation: Operation, query: Query) -> Found:
            assert query.domain is not None
            response = await client.get("/", params={"q": query.domain})
            response.raise_for_status()
            if query.domain == said.get("die_after"):
                os.kill(os.getpid(), signal.SIGKILL)
            return titled(response.json()["title"])

        caps = Caps(**{name: Decimal(most) for name, most in said.get("caps", {}).items()})
        source = CountingProvider(answer=answer)
        async with sharing_providers(said["dsn"], source, caps=caps) as providers:
            max_credits = said.get("max_credits")
            job_id = said.get("job_id")
            calls = Calls(
                providers,
                workspace_id=said.get("workspace_id", "acme"),
                job_id=UUID(job_id) if job_id else uuid4(),
                max_credits=Decimal(max_credits) if max_credits is not None else None,
            )
            room = asyncio.Semaphore(said.get("at_once", 20))

            async def ask(domain: str) -> Asked:
                async with room:
                    lead = lead_from(LeadInput(domain=domain))
                    return await calls.ask("counting", Operation.ENRICH_COMPANY, lead)

            answers = await asyncio.gather(*map(ask, said["questions"]))
    os.write(said["pipe"], json.dumps(Counter(map(kind_of, answers))).encode())


def kind_of(asked: Asked) -> str:
    """Return what became of a question, in a word."""
    match asked:
        case Found():
            return "cached" if asked.cached else "paid"
        case Skipped():
            return asked.reason
        case _:
            return type(asked).__name__


def fork(said: dict[str, Any]) -> tuple[int, int]:
    """Start one; return its id and the pipe that it tells its end on."""
    out, into = os.pipe()
    if pid := os.fork():
        os.close(into)
        return pid, out
    os.close(out)
    asyncio.run(main({**said, "pipe": into}))
    os._exit(0)


def end(pid: int, pipe: int) -> str:
    """Wait for one; return its line."""
    with os.fdopen(pipe, "rb") as opened:
        kinds = json.loads(opened.read() or b"{}")
    _, status = os.waitpid(pid, 0)
    return json.dumps([os.waitstatus_to_exitcode(status), kinds])


if __name__ == "__main__":
    children = [fork(said) for said in json.loads(sys.argv[1])]
    for child in children:
        print(end(*child), flush=True)
