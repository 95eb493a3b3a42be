"""Work done a few pieces at a time."""

from __future__ import annotations

import asyncio

import pytest

from enrichd.errors import Unavailable
from enrichd.handlers.bounded import for_each


async def test_every_piece_is_done_once():
    done: list[int] = []

    async def work(piece: int) -> None:
        await asyncio.sleep(0)
        done.append(piece)

    await for_each(range(50), work, at_once=7)

    assert sorted(done) == list(range(50))


async def test_the_first_error_stops_the_others_and_is_raised_as_itself():
    started: list[int] = []

    async def work(piece: int) -> None:
        started.append(piece)
        await asyncio.sleep(0)
        if piece == 3:
            raise LookupError(piece)

    with pytest.raises(LookupError):
        await for_each(range(1_000), work, at_once=5)

    assert len(started) < 50


async def test_what_is_under_way_ends_when_the_rest_is_put_off():
    done: list[int] = []

    async def work(piece: int) -> None:
        await asyncio.sleep(0)
        if piece == 3:
            raise Unavailable("away")
        await asyncio.sleep(0)
        done.append(piece)

    with pytest.raises(Unavailable):
        await for_each(range(1_000), work, at_once=5)

    assert sorted(done) == [0, 1, 2, 4]
