"""Many pieces of work, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

Piece = TypeVar("Piece")


async def for_each(
    pieces: Iterable[Piece], work: Callable[[Piece], Awaitable[None]], *, at_once: int
) -> None:
    """Do the work for every piece, at most `at_once` at a time.

    The first error stops all others and is raised as itself. Pieces are taken one by one: ten
    thousand leads are `at_once` tasks, not ten thousand.
    """
    waiting = iter(pieces)

    async def take_turns() -> None:
        for piece in waiting:
            await work(piece)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(take_turns())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
