"""The PostgreSQL server that enrichd brings along for when there is no DATABASE_URL.

Any number of processes share the server of a data folder, and the last one to leave stops it. Who
uses it is known to the kernel alone: each user holds a shared lock on `users.lock` in the data
folder, and the lock of a process that dies, however it dies, is gone. A caretaker process waits
for the exclusive lock and stops the server if nobody lived to do so.

Forks: a forked child shares its parent's lock (one lock on one open file, held until the last copy
is closed), so the server outlives the parent as long as a child lives. Nobody ever unlocks
explicitly, which would unlock for the children too: a user leaves by closing its copy and then
trying for the exclusive lock through a new one.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self
from urllib.parse import quote

from enrichd.errors import Unavailable
from enrichd.store import server_cluster, server_process
from enrichd.store.server_account import (
    OWN_SERVER,
    account_for,
    environment,
    make_folders,
    place_for,
)
from enrichd.store.server_binaries import find_binaries, readable_binaries
from enrichd.store.server_cluster import DATABASE, Cluster
from enrichd.store.server_process import PORT

if sys.platform != "win32":
    import fcntl

LOCK_WAIT_S = 180.0
CARETAKER_START_S = 20.0
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})

# Its standard input is an open users.lock; its arguments are uid, gid and the command that stops
# the server, which inherits the lock. It compares the file with the one in place, since somebody
# may have removed the data folder and made a new one; and it makes sure that the number in
# postmaster.pid is still PostgreSQL's, since pg_ctl would signal whoever has it now. Forking once
# more gives it to init, so that it is never an unexpected child of the program that uses enrichd.
CARETAKER = """
import fcntl, os, sys
if os.fork():
    os._exit(0)
uid, gid, *command = sys.argv[1:]
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
fcntl.flock(0, fcntl.LOCK_EX)
data = os.environ["PGDATA"]
if not os.path.samestat(os.fstat(0), os.stat(data + "/users.lock")):
    sys.exit()
with open(data + "/postmaster.pid") as file:
    process = "/proc/" + file.readline().strip()
if os.path.exists("/proc/self/cmdline"):
    with open(process + "/cmdline", "rb") as file:
        if not os.path.basename(file.read().split(b"\\0")[0]).startswith(b"postgres"):
            sys.exit()
if os.spawnv(os.P_WAIT, command[0], command):
    os.execv(command[0], [*command, "--mode=immediate"])
"""


class EmbeddedServer:
    """One use of the running server: `dsn` connects to its database as its superuser."""

    def __init__(self, cluster: Cluster, users: int, sockets: Path) -> None:
        self.data_dir = cluster.place
        """The real folder of the data; a start by root may have put it under `/var/lib/enrichd`."""
        self.dsn = (
            f"postgresql://enrichd@/{DATABASE}?host={quote(str(sockets), safe='')}&port={PORT}"
        )
        self._cluster = cluster
        self._sockets = sockets
        self._users: int | None = users

    def stop(self) -> bool:
        """Leave, and stop the server if nobody else uses it; say whether it was stopped.

        Runs by itself when the interpreter ends. A second call does nothing.
        """
        users, self._users = self._users, None
        if users is None:
            return False
        atexit.unregister(self.stop)
        os.close(users)
        was_stopped = _stop_if_unused(self._cluster)
        if was_stopped and self._sockets != self.data_dir:
            with contextlib.suppress(OSError):
                self._sockets.rmdir()
        return was_stopped

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def start(
    data_dir: Path, *, settings: Mapping[str, str] = NO_SETTINGS, binaries: Path | None = None
) -> EmbeddedServer:
    """Start the server of a data folder, made if missing, or join it if it runs.

    `settings` are PostgreSQL settings for the case that this call starts it; `binaries` is a folder
    of programs to use in place of the extra's. Raises Unavailable and InvalidSetting.
    """
    if sys.platform == "win32":
        raise Unavailable("there is no embedded PostgreSQL on Windows", hint=OWN_SERVER)
    data_dir = Path(os.path.abspath(data_dir))
    try:
        make_folders(data_dir.parent)
        # Resolved, so that two spellings of a folder wait for each other.
        lock_path = data_dir.parent.resolve() / f"{data_dir.name}.lock"
        with _start_lock(lock_path) as lock:
            return _start(data_dir, settings, binaries, lock)
    except OSError as error:
        raise Unavailable(
            f"the embedded PostgreSQL cannot be used in {data_dir}: {error}", hint=OWN_SERVER
        ) from error


def _start(
    data_dir: Path, settings: Mapping[str, str], folder: Path | None, lock: int
) -> EmbeddedServer:
    account = account_for(data_dir)
    found = find_binaries(data_dir, folder)
    place = place_for(data_dir, account)
    cluster = Cluster(place, account, readable_binaries(found, account))
    server_cluster.create(cluster, is_durable=settings.get("fsync") != "off", lock=lock)
    users = server_cluster.open_in(cluster, "users.lock", os.O_RDWR)
    try:
        _lock(users, fcntl.LOCK_SH, wait_s=LOCK_WAIT_S)
        if not server_process.is_running(cluster):
            _leave_caretaker(cluster)
        sockets = server_process.ensure_running(cluster, settings)
    except BaseException:
        os.close(users)
        with contextlib.suppress(Unavailable):
            _stop_if_unused(cluster)
        raise
    server = EmbeddedServer(cluster, users, sockets)
    atexit.register(server.stop)
    return server


def _leave_caretaker(cluster: Cluster) -> None:
    if not sys.executable:  # an interpreter inside another program; users still stop it in turn
        return
    account = cluster.account
    command = [sys.executable, "-I", "-S", "-c", CARETAKER, str(account.uid), str(account.gid)]
    users = server_cluster.open_in(cluster, "users.lock", os.O_RDWR)
    with contextlib.suppress(PermissionError):  # no caretaker where Python itself cannot be run
        subprocess.run(
            [*command, *server_process.stop_command(cluster)],
            stdin=users,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment(cluster.place),
            start_new_session=True,
            check=False,
            timeout=CARETAKER_START_S,
        )
    os.close(users)


def _stop_if_unused(cluster: Cluster) -> bool:
    try:
        users = server_cluster.open_in(cluster, "users.lock", os.O_RDWR)
    except FileNotFoundError:  # the data folder was removed: PostgreSQL sees that and ends itself
        return False
    try:
        if not _is_last(users):
            return False
        server_process.stop(cluster, lock=users)
    finally:
        os.close(users)
    return True


def _is_last(users: int) -> bool:
    """Take the exclusive lock and return True, unless other users hold the shared one.

    Whoever holds the exclusive one, the caretaker or another who left, is stopping the server: that
    is waited for, so that after the last `stop` the server is really gone.
    """
    deadline = time.monotonic() + LOCK_WAIT_S
    shared_seen = 0
    while time.monotonic() < deadline:
        if _try_lock(users, fcntl.LOCK_EX):
            return True
        if _try_lock(users, fcntl.LOCK_SH):
            fcntl.flock(users, fcntl.LOCK_UN)
            shared_seen += 1  # once may mean that the exclusive lock was just given back
            if shared_seen == 2:
                return False
            continue
        time.sleep(0.02)
    return False


@contextlib.contextmanager
def _start_lock(path: Path) -> Iterator[int]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(path, flags, 0o600)
    try:
        _lock(lock, fcntl.LOCK_EX, wait_s=LOCK_WAIT_S)
        yield lock
    finally:
        os.close(lock)


def _lock(descriptor: int, kind: int, *, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while not _try_lock(descriptor, kind):
        if time.monotonic() > deadline:
            raise Unavailable(
                f"another process has been starting or stopping the server for {wait_s:.0f} s",
                hint=f"See what it is doing and end it. {OWN_SERVER}",
            )
        time.sleep(0.02)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
