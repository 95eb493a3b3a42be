"""Duty: which worker of a host hears hints itself.

All children of a supervisor inherit one file, and who holds the lock on it is on duty. The system
takes the lock away with the process, so a worker that dies leaves nothing to clean up.
"""

from __future__ import annotations

import fcntl
import tempfile
from typing import BinaryIO


class Duty:
    """A lock that one process of a host holds at a time; made before the processes are forked."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    @classmethod
    def new(cls) -> Duty:
        """Return one over a file without a name, which goes with the last process."""
        return cls(tempfile.TemporaryFile())

    def fileno(self) -> int:
        """Return the file's descriptor."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the file; the duty is given up with it."""
        self._file.close()

    def take(self) -> bool:
        """Be on duty, or stay so; False while another process is."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def give_up(self) -> None:
        """Leave it to another process."""
        fcntl.lockf(self._file, fcntl.LOCK_UN)

    def is_taken(self) -> bool:
        """Say whether another process is on duty; ask only where `take` is never called."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.lockf(self._file, fcntl.LOCK_UN)
        return False
