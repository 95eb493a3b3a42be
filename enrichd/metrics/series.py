"""The series a process writes: numbers in its slot's memory-mapped files.

prometheus_client reads these files and names them after the process id by default, which leaves a
file for every process there ever was; here they are named after the slot.
"""

from __future__ import annotations

import logging
import os
import shutil
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from enrichd.metrics.declared import FILED, Kind, Metric
from enrichd.metrics.files import is_readable
from enrichd.metrics.labels import combinations

SUPERVISOR_SLOT = "supervisor"
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
# Room in each file for metrics that plug-ins make themselves.
SPARE_BYTES = 16384
PAGE_BYTES = 4096

log = logging.getLogger("enrichd.metrics")


class Value(Protocol):
    """One number in a file, as prometheus_client keeps it."""

    def inc(self, amount: float) -> None:
        """Add to the number."""


class Book:
    """Where this process writes; off until `use` and `start`."""

    def __init__(self) -> None:
        self.is_on = False
        self.folder: Path | None = None
        self.slot = SUPERVISOR_SLOT
        self._series: dict[tuple[str, tuple[str, ...]], list[Value]] = {}

    def add(self, metric: Metric, labels: tuple[str, ...], amount: float = 1.0) -> None:
        """Add to a counter."""
        if self.is_on and (series := self._find(metric, labels)):
            self._increase(series[0], amount)

    def observe(self, metric: Metric, labels: tuple[str, ...], values: Iterable[float]) -> None:
        """Put values into a histogram, each bucket written once."""
        if not self.is_on or not (series := self._find(metric, labels)):
            return
        counts: dict[int, int] = {}
        total = 0.0
        for value in values:
            place = bisect_left(metric.buckets, value)
            counts[place] = counts.get(place, 0) + 1
            total += value
        for place, count in counts.items():
            self._increase(series[place], count)
        self._increase(series[-1], total)

    def touch(self, metric: Metric, labels: tuple[str, ...]) -> None:
        """Have a series on the page, at zero unless it has counted already."""
        if self.is_on:
            self._find(metric, labels)

    def forget_series(self) -> None:
        """Look every series up again, in the files of the slot as it is now."""
        self._series.clear()

    def _find(self, metric: Metric, labels: tuple[str, ...]) -> list[Value]:
        """Return a counter's one value, or a histogram's buckets and, last, its sum."""
        key = (metric.name, labels)
        series = self._series.get(key)
        if series is None:
            try:
                series = self._series[key] = _open(metric, labels)
            except (OSError, ValueError, RuntimeError) as error:
                self._give_up(error)
                return []
        return series

    def _increase(self, value: Value, amount: float) -> None:
        try:
            value.inc(amount)
        except (OSError, ValueError, RuntimeError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Count no more in this process: a number is never worth a job."""
        if self.is_on:
            self.is_on = False
            log.error("slot %s counts no more: %s", self.slot, error)


def _open(metric: Metric, labels: tuple[str, ...]) -> list[Value]:
    from prometheus_client import values

    library: Any = values
    return [
        library.ValueClass(metric.kind, metric.family, name, names, labelled, metric.help)
        for name, names, labelled in samples(metric, labels)
    ]


def samples(
    metric: Metric, labels: tuple[str, ...]
) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Return (name, label names, label values) of each number that a series consists of."""
    if metric.kind == "counter":
        return [(metric.name, metric.labels, labels)]
    return [
        *(
            (f"{metric.name}_bucket", (*metric.labels, "le"), (*labels, edge))
            for edge in (*(str(bucket) for bucket in metric.buckets), "+Inf")
        ),
        (f"{metric.name}_sum", metric.labels, labels),
    ]


def use(folder: Path) -> None:
    """Write into this folder from now on, under the supervisor's slot."""
    os.environ[FOLDER_VARIABLE] = str(folder)
    # Not at the top: enrichctl keeps no metrics and need not load it.
    from prometheus_client import values

    book.folder = folder
    # In place of the class chosen at its import, when the variable may not have been set yet. The
    # function is asked at each write, so a value made before a fork moves to the child's files.
    library: Any = values
    library.ValueClass = library.MultiProcessValue(lambda: book.slot)
    start(SUPERVISOR_SLOT)


def start(slot: int | str) -> None:
    """Write under a slot from now on; nothing happens in a process without `prepare`.

    Two living processes must never have the same slot. Counters go on where the slot's last process
    left them. When there is no room for the slot's files, this process keeps no metrics.
    """
    if book.folder is None:
        return
    book.slot = str(slot)
    book.forget_series()
    try:
        for kind in ("counter", "histogram"):
            reserve(book.folder / f"{kind}_{slot}.db", needed_bytes(kind))
    except OSError as error:
        book.is_on = False
        log.error("slot %s keeps no metrics: %s", slot, error)
    else:
        book.is_on = True


def stop() -> None:
    """Write no more in this process; its numbers stay on the page."""
    from prometheus_client import values

    book.is_on = False
    book.forget_series()
    if (close := getattr(values.ValueClass, "close_all_files", None)) is not None:
        close()


def reserve(file: Path, size: int) -> None:
    """Have a file whose every byte has its place in memory or on disk. Raises OSError.

    prometheus_client makes files with holes, and writing into a hole that finds no room is a SIGBUS
    that kills the worker. A file that cannot be read is begun anew.
    """
    if file.exists():
        if is_readable(file):
            return
        log.warning("%s is no metrics file any more: begun anew", file.name)
    new = file.with_suffix(".new")
    try:
        new.write_bytes(bytes(size))
        new.replace(file)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def needed_bytes(kind: Kind) -> int:
    """Return what the file of a kind may grow to with all the label values allowed now."""
    from prometheus_client.mmap_dict import mmap_key

    size = 8 + SPARE_BYTES
    for metric in FILED:
        if metric.kind == kind:
            for labels in combinations(metric):
                for name, names, labelled in samples(metric, labels):
                    key = mmap_key(metric.family, name, list(names), list(labelled), metric.help)
                    size += len(key.encode()) + 32  # its length, padding and two doubles
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def show_all() -> None:
    """Put every series that may exist on the page, so that its first increase is seen as one.

    One process is enough: the gateway.
    """
    for metric in FILED:
        for labels in combinations(metric):
            book.touch(metric, labels)


def is_on() -> bool:
    """Say whether this process keeps metrics."""
    return book.is_on


def folder() -> Path | None:
    """Return the folder of this daemon's metric files; None when none are kept."""
    return book.folder


def free_bytes(folder: Path) -> int:
    """Return the room left in a folder's file system."""
    return shutil.disk_usage(folder).free


book = Book()
