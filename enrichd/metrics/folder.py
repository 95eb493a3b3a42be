"""The folder of a daemon's metric files: in memory, of this user alone, wiped at its start."""

from __future__ import annotations

import logging
import os
import stat
import sys
import tempfile
from pathlib import Path

from enrichd.errors import InvalidSetting
from enrichd.metrics import series

if sys.platform != "win32":
    import fcntl

FREE_BYTES_MIN = 8 << 20
FOLDERS_MAX = 32
LOCK_NAME = "in-use.lock"

log = logging.getLogger("enrichd.metrics")


def default_folder(runtime_directory: str | None = None) -> Path:
    """Return where metrics go: systemd's RUNTIME_DIRECTORY, else shared memory, else /tmp.

    Memory, because a worker must never wait for a disk to count a job.
    """
    if runtime_directory:
        return Path(runtime_directory.partition(":")[0]) / "metrics"
    shared = Path("/dev/shm")
    parent = shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
    return parent / f"enrichd-metrics-{os.geteuid()}"


def prepare(wanted: Path) -> Path | None:
    """Take and wipe the metrics folder, and write under the slot `supervisor`; return the folder.

    Called once by the supervisor, before plug-ins are imported and before the first fork. While
    another daemon, or a child that an earlier one left behind, uses the folder, the next of
    `wanted-2`, `wanted-3` … is taken. With less than 8 MiB of room no metrics are kept, and None
    is returned: writing to a mapped page that finds no room kills the process. Raises
    InvalidSetting when the folder cannot be made or is somebody else's.
    """
    for number in range(1, FOLDERS_MAX + 1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        _make(folder)
        if _take(folder):
            break
    else:
        raise InvalidSetting(f"{wanted} and {FOLDERS_MAX - 1} folders beside it are in use")
    for leftover in (*folder.glob("*.db"), *folder.glob("*.new")):
        leftover.unlink(missing_ok=True)
    if (free := series.free_bytes(folder)) < FREE_BYTES_MIN:
        log.error("no metrics are kept: %s has %d bytes free of %d", folder, free, FREE_BYTES_MIN)
        return None
    series.use(folder)
    return folder


def _make(folder: Path) -> None:
    """Make the folder, or check that an earlier one is a folder of this user alone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise InvalidSetting(f"the metrics folder {folder} cannot be made: {error}") from error
    # In a folder that everybody may write to, somebody may have been there first.
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not is_ours or found.st_mode & 0o022:
        raise InvalidSetting(
            f"the metrics folder {folder} is not a folder that this user alone may write to"
        )


def _take(folder: Path) -> bool:
    """Lock the folder for this daemon; children inherit the lock, so it lasts as long as they."""
    lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    _locks.append(lock)
    return True


_locks: list[int] = []
