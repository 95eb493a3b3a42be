"""Looking up receivers' hosts without holding up anybody else's look-up.

The system's own resolver is asked, so that names inside a company's network work. It occupies a
thread while it waits, so there are many of them: a name whose server hangs holds its own.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor

from aiohttp.abc import AbstractResolver, ResolveResult

THREADS = 64
ADDRESSES_MAX = 8


class Names(AbstractResolver):
    """Resolves hosts with the C library, in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="webhook names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return a host's addresses; raise OSError."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lookup, host, port, family
        )
        return [
            ResolveResult(
                hostname=host,
                host=ip,
                port=port,
                family=number,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for number, ip in found
        ]

    async def close(self) -> None:
        """Let the threads go; one that still waits ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def lookup(host: str, port: int, family: int) -> list[tuple[int, str]]:
    """Return the family and text of each address of a host, the resolver's preferred one first."""
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    unique = dict.fromkeys((int(one[0]), str(one[4][0])) for one in found)
    return list(unique)[:ADDRESSES_MAX]
