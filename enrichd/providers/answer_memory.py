"""A process's memory of answers, in front of the database."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID

from enrichd.providers.call_ends import CallEnd
from enrichd.providers.questions import Question

Place: TypeAlias = tuple[str, bytes]
"""A workspace and a question's key."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """An answer as text."""

    outcome: str
    text: str
    fetched_at: str | None
    until: float
    buyer: UUID | None
    """Whom it was bought for, if that is known here."""
    cost: Decimal


class AnswerMemory:
    """Answers as text, the longest unused out first; nobody gets another's lists to change."""

    def __init__(self, bytes_max: int, keep_s: float) -> None:
        self._bytes_max = bytes_max
        self._keep_s = keep_s
        self._bytes = 0
        self._kept: OrderedDict[Place, Remembered] = OrderedDict()

    def get(self, question: Question, now: float) -> Remembered | None:
        """Return a question's answer, or None."""
        place = (question.workspace_id, question.key)
        kept = self._kept.get(place)
        if kept is None:
            return None
        if kept.until <= now:
            self._drop(place)
            return None
        self._kept.move_to_end(place)
        return kept

    def put(
        self,
        question: Question,
        ended: CallEnd,
        now: float,
        fetched_at: str | None,
        *,
        is_bought: bool,
    ) -> None:
        """Keep an answer for a moment, or for as long as it holds if that is shorter.

        `is_bought`: whether it was bought for who asks.
        """
        assert ended.answer is not None
        place = (question.workspace_id, question.key)
        self._drop(place)
        keep_s = self._keep_s if ended.keep_s is None else min(self._keep_s, ended.keep_s)
        if len(ended.answer) > self._bytes_max or keep_s <= 0:
            return
        self._kept[place] = Remembered(
            ended.outcome,
            ended.answer,
            fetched_at,
            now + keep_s,
            question.buyer if is_bought else None,
            ended.cost or Decimal(0),
        )
        self._bytes += len(ended.answer)
        while self._bytes > self._bytes_max:
            self._drop(next(iter(self._kept)))

    def _drop(self, place: Place) -> None:
        if (kept := self._kept.pop(place, None)) is not None:
            self._bytes -= len(kept.text)
