"""The rows of a sheet, taken in portions that fit the memory.

A pipe may be silent for minutes. Its rows are read by a thread of their own, so that the event loop
goes on meanwhile: jobs run, heartbeats are sent, Ctrl-C is heard.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress

from enrichd.ctl.sheet_reading import Row

AHEAD_ROWS = 100
PUT_S = 0.2


class RowFeed:
    """Rows as they come; `is_over` after the last one was taken."""

    def __init__(self, rows: Iterator[Row], *, may_block: bool = False) -> None:
        self.is_over = False
        self._rows = rows
        self._ready: queue.Queue[Row | BaseException | None] | None = None
        self._is_stopped = False
        if may_block:
            self._ready = queue.Queue(AHEAD_ROWS)
            # A daemon, because nothing can interrupt a thread that waits for a silent pipe.
            threading.Thread(target=self._read, name="row feed", daemon=True).start()

    def take(self, rows_max: int, chars_max: int) -> list[Row]:
        """Return the next rows that are there, until one of the bounds is passed.

        Raises what reading raised: InvalidFile if the file broke off.
        """
        rows: list[Row] = []
        chars = 0
        while len(rows) < rows_max and chars < chars_max:
            row = self._next()
            if row is None:
                break
            rows.append(row)
            chars += size_of(row)
        return rows

    def stop(self) -> None:
        """Let the reading thread end, if it does not wait for the pipe."""
        self._is_stopped = True

    def _next(self) -> Row | None:
        if self._ready is None:
            row = next(self._rows, None)
            self.is_over = row is None
            return row
        if self.is_over:
            return None
        try:
            found = self._ready.get_nowait()
        except queue.Empty:
            return None
        self.is_over = found is None
        if isinstance(found, BaseException):
            raise found
        return found

    def _read(self) -> None:
        try:
            for row in self._rows:
                self._put(row)
                if self._is_stopped:
                    return
        except Exception as error:  # noqa: BLE001 - raised again by whoever takes the rows
            self._put(error)
        else:
            self._put(None)

    def _put(self, found: Row | BaseException | None) -> None:
        assert self._ready is not None
        is_in = False
        while not (is_in or self._is_stopped):
            with suppress(queue.Full):
                self._ready.put(found, timeout=PUT_S)
                is_in = True


def size_of(row: Row) -> int:
    """Return about how many characters a row holds."""
    if row.text is not None:
        return len(row.text)
    return sum(map(len, row.cells)) if isinstance(row.cells, list) else 0
