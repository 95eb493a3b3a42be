"""What a job may still spend."""

from __future__ import annotations

from decimal import Decimal


class Budget:
    """Credits of one job: reserved before a call, settled after it.

    All leads of a job share it, so that ten calls at the same time cannot spend the last credit ten
    times.
    """

    def __init__(self, max_credits: Decimal | None = None, *, spent: Decimal = Decimal(0)) -> None:
        self._max_credits = max_credits
        """None: no limit."""
        self._spent = spent
        """What is spent or promised."""

    def reserve(self, cost: Decimal) -> bool:
        """Set credits aside and return True, or False if they are not there; zero always is."""
        if self._max_credits is not None and cost > 0 and self._spent + cost > self._max_credits:
            return False
        self._spent += cost
        return True

    def settle(self, reserved: Decimal, cost: Decimal) -> None:
        """Book what a call did cost in place of what was set aside for it."""
        self._spent += cost - reserved
