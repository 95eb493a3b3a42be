"""Many pieces of work, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from enrichd.errors import ProviderThrottled, Unavailable

PUT_OFF = (ProviderThrottled, Unavailable)
"""Everybody's trouble: no piece is begun after it, but what is under way may have been paid."""

Piece = TypeVar("Piece")


async def for_each(
    pieces: Iterable[Piece], work: Callable[[Piece], Awaitable[None]], *, at_once: int
) -> None:
    """Do the work for every piece, at most `at_once` at a time.

    The first error stops all others and is raised as itself; one of PUT_OFF lets them end first.
    Pieces are taken one by one: ten thousand leads are `at_once` tasks, not ten thousand.
    """
    waiting = iter(pieces)
    put_off: list[Exception] = []

    async def take_turns() -> None:
        for piece in waiting:
            try:
                await work(piece)
            except PUT_OFF as error:
                put_off.append(error)
            if put_off:
                return

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(take_turns())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    if put_off:
        raise put_off[0]
