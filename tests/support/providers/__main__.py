"""All fake providers on loopback until interrupted, and the variables that lead to them.

    python -m tests.support.providers --port 9100 --limit-per-second 10 --latency-ms 120

Paste what it prints into a shell, or `eval` it. `GET /_fake` of each shows what was
asked and paid; the same comes out for all of them at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import importlib.util
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from typing import Any, Final

from tests.support.providers.server import FakeProvider
from tests.support.providers.windows import Kind, Limit

FAKES: Final[Mapping[str, str]] = {
    "hunter": "FakeHunter",
    "apollo": "FakeApollo",
    "pdl": "FakePdl",
    "clearbit": "FakeClearbit",
}
"""By module, the class in it."""


async def serve(arguments: argparse.Namespace) -> None:
    """Put up the providers, print where they are, and stay."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # Windows; there Ctrl-C ends the loop
            loop.add_signal_handler(number, ended.set)
    async with AsyncExitStack() as stack:
        fakes: list[FakeProvider] = []
        for index, name in enumerate(arguments.providers):
            port = arguments.port + index if arguments.port else 0
            fakes.append(await stack.enter_async_context(make(name, port, arguments)))
        for fake in fakes:
            print(f"export {fake.name.upper()}_BASE_URL={fake.url}")
            print(f"export {fake.name.upper()}_API_KEY={fake.key}")
        sys.stdout.flush()
        await ended.wait()
        for fake in fakes:
            print(json.dumps(fake.stats(), indent=2), file=sys.stderr)


def make(name: str, port: int, arguments: argparse.Namespace) -> FakeProvider:
    """Return one provider as the arguments want it; not started yet."""
    module = importlib.import_module(f"tests.support.providers.{name}")
    limits = [
        Limit(calls, seconds, Kind(arguments.window))
        for calls, seconds in (
            (arguments.limit_per_second, 1.0),
            (arguments.limit_per_minute, 60.0),
        )
        if calls
    ]
    options: dict[str, Any] = {
        "port": port,
        "balance": arguments.credits,
        "latency_s": arguments.latency_ms / 1000,
    }
    if limits:
        options["limits"] = {"*": limits}
    fake: FakeProvider = getattr(module, FAKES[name])(**options)
    return fake


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    there = [name for name in FAKES if importlib.util.find_spec(f"{__package__}.{name}")]
    parser = argparse.ArgumentParser(prog="python -m tests.support.providers", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("providers", nargs="*", default=there, metavar="PROVIDER", help=str(there))
    parser.add_argument("--port", type=int, default=0, help="of the first; the others follow")
    parser.add_argument("--limit-per-second", type=int, default=0, help="instead of the documented")
    parser.add_argument("--limit-per-minute", type=int, default=0, help="instead of the documented")
    parser.add_argument("--window", choices=[*Kind], default=Kind.FIXED, help="of those limits")
    parser.add_argument("--credits", type=Decimal, default=None, help="of each key; else no end")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.providers) - set(there):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    return chosen


if __name__ == "__main__":
    asyncio.run(serve(parse()))
