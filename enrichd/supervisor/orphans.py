"""Processes that the kernel gives to us when their own parent dies.

It does so for process 1 of a container without an init, and for a process that asked for it
(PR_SET_CHILD_SUBREAPER). Nobody else would collect them, and they would stay as zombies. To anybody
else none is given, and there is nothing to do.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path


class Orphans:
    """Collects adopted processes by their ids, never our own children's by accident."""

    def __init__(self) -> None:
        self._known = children_of_this_process()
        """Who was there before the first fork is somebody else's here: the embedded server."""

    def reap(self, own: Collection[int]) -> list[int]:
        """Collect those that have ended; `own` are the children that we collect elsewhere."""
        ended = []
        for pid in children_of_this_process() - self._known - set(own):
            try:
                found, _ = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue
            if found:
                ended.append(pid)
        return ended


def children_of_this_process() -> set[int]:
    """Return the process ids of our children; none where the system does not list them."""
    # By our own number: where /proc is of another process namespace, there is no such file, and
    # the numbers in it would not be ours.
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return set()
    return {int(pid) for pid in text.split()}
