"""What the gateway knows of its daemon: the supervisor's ticks, and whether it drains."""

from __future__ import annotations

import asyncio

TICK_AGE_S_MAX = 10.0


class Standing:
    """Hears the supervisor; the gateway's own start counts as the first tick."""

    def __init__(self) -> None:
        self.is_draining = False
        self._clock = asyncio.get_running_loop().time
        self._ticked_at = self._clock()

    def hear(self, line: str) -> None:
        """Take a line of the link; unknown ones are for later versions."""
        if line == "tick":
            self._ticked_at = self._clock()
        elif line == "draining":
            self.is_draining = True

    @property
    def tick_age_s(self) -> float:
        """Return the seconds since the supervisor said that it is alive."""
        return self._clock() - self._ticked_at

    @property
    def is_alive(self) -> bool:
        """Say whether the supervisor's loop turns."""
        return self.tick_age_s < TICK_AGE_S_MAX
