"""The server process of the embedded PostgreSQL: whether it runs, starting it, stopping it.

PostgreSQL's own `postmaster.pid` says which process it is; the number is believed only when that
process is a PostgreSQL, since numbers come round again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from enrichd.errors import Unavailable
from enrichd.store.server_account import (
    OWN_SERVER,
    make_state_folder,
    private_folder,
    run,
)
from enrichd.store.server_cluster import Cluster, failure, is_disk_full, open_in

PORT = 5432  # part of the socket's file name; nothing listens on a port
SOCKET = f".s.PGSQL.{PORT}"
SOCKET_PATH_BYTES_MAX = 103  # sun_path of macOS, the smallest, with its closing zero byte
START_WAIT_S = 60.0
LOG_BYTES_MAX = 10_000_000
LOG_BYTES_READ = 20_000
STARTING = "LOG:  starting PostgreSQL"
READY = "ready to accept connections"
PATIENCE_S = 3  # then we look ourselves why it is not ready


def is_running(cluster: Cluster) -> bool:
    """Say whether the server is ready for connections."""
    state = _read_state(cluster.place)
    return state is not None and state.is_ready and _answers(state.sockets)


def ensure_running(cluster: Cluster, settings: Mapping[str, str]) -> Path:
    """Start the server unless it runs, and return the folder of its socket.

    `settings` count only when this call starts it. To be called under the start lock.
    """
    deadline = time.monotonic() + START_WAIT_S
    while time.monotonic() < deadline:
        state = _read_state(cluster.place)
        if state and is_running(cluster):
            return state.sockets
        if state and _is_postgres(state.pid):
            _end_if_it_panics(cluster, state)
            time.sleep(0.05)  # it recovers, or who began to start or stop it died meanwhile
            continue
        _clear_stale(cluster.place / "postmaster.pid")
        if state:
            _clear_stale(state.sockets / f"{SOCKET}.lock")
        if sockets := _start(cluster, settings):
            return sockets
        time.sleep(0.1)
    raise Unavailable(
        f"the PostgreSQL server in {cluster.place} did not get ready in {START_WAIT_S:.0f} seconds",
        hint=f"Look into {cluster.place / 'server.log'}. {OWN_SERVER}",
    )


@dataclass(frozen=True, slots=True)
class _State:
    """What PostgreSQL's own `postmaster.pid` says."""

    pid: int
    sockets: Path
    is_ready: bool


def _read_state(place: Path) -> _State | None:
    try:
        lines = (place / "postmaster.pid").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    lines += [""] * (8 - len(lines))  # it is written line by line while the server starts
    pid = abs(int(lines[0])) if lines[0].lstrip("-").isdecimal() else 0
    return _State(pid, Path(lines[4]), lines[7].strip() == "ready")


def _answers(sockets: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(os.fspath(sockets / SOCKET))
        except OSError:
            return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return pid != 0


def _is_postgres(pid: int) -> bool:
    if not _is_alive(pid):
        return False
    if os.path.exists("/proc/self/cmdline"):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
            return os.path.basename(command).startswith(b"postgres")
        return False
    answer = subprocess.run(
        ["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return os.path.basename(answer.stdout.strip()).startswith("postgres")


def _clear_stale(lock_file: Path) -> None:
    """Remove a lock file of a killed server whose number is now another program's, or a zombie's.

    That happens after each restart of a container. PostgreSQL cannot tell and would not start.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):
        pid = abs(int(lock_file.read_text(errors="replace").splitlines()[0] or 0))
        if _is_alive(pid) and not _is_postgres(pid):
            lock_file.unlink()


def _end_if_it_panics(cluster: Cluster, state: _State) -> None:
    # On a full disk the server starts again and again by itself, without ever getting ready, and
    # may find no room to say so in its log.
    with contextlib.suppress(FileNotFoundError), open(cluster.place / "server.log", "rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_BYTES_READ))
        output = log.read().decode(errors="replace")
        since = output.rpartition(STARTING)[2].rpartition(READY)[2]
        if since.count("PANIC:") > 1 or is_disk_full(cluster.place):
            _stop_immediately(state.pid)
            raise failure("the embedded PostgreSQL did not start", since, cluster.place)


def _start(cluster: Cluster, settings: Mapping[str, str]) -> Path | None:
    sockets = _socket_folder(cluster)
    options = {"listen_addresses": "", "port": str(PORT), "unix_socket_permissions": "0700"}
    options |= {"unix_socket_directories": os.fspath(sockets), **settings}
    words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    command = [os.fspath(cluster.binaries.program("pg_ctl")), "start", "--silent", "--wait"]
    command += ["--timeout", str(PATIENCE_S), "--options", shlex.join(words)]
    log = _open_log(cluster)
    try:
        begin = os.fstat(log).st_size
        code, _ = run(command, cluster.account, place=cluster.place, log=log)
        output = os.pread(log, LOG_BYTES_READ, begin).decode(errors="replace")
    finally:
        os.close(log)
    if code == 0:
        return sockets
    if "pre-existing shared memory block" in output:
        return None  # the server was killed and its last children are just ending
    state = _read_state(cluster.place)
    if state and _is_postgres(state.pid):
        return None  # it is not ready in time; it recovers, for instance
    raise failure("the embedded PostgreSQL did not start", output, cluster.place)


def _socket_folder(cluster: Cluster) -> Path:
    place, account = cluster.place, cluster.account
    if _fits(place) and not set(os.fspath(place)) & set('",'):
        return place
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()[:10]
    if not account.is_own:
        return private_folder(make_state_folder() / f"socket-{digest}", account)
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    roots = [runtime] if os.access(runtime, os.W_OK) else []
    for root in (*roots, tempfile.gettempdir(), "/tmp"):
        folder = Path(root) / f"enrichd-{account.uid}-{digest}"
        if _fits(folder):
            return private_folder(folder, account)
    raise Unavailable("no folder is short enough for a socket", hint="Set TMPDIR to /tmp.")


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / SOCKET)) <= SOCKET_PATH_BYTES_MAX


def _open_log(cluster: Cluster) -> int:
    path = cluster.place / "server.log"
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
    return open_in(cluster, path.name, os.O_RDWR | os.O_APPEND)


def stop_command(cluster: Cluster) -> list[str]:
    """Return the command that stops the server: its clients are cut off, its data is written."""
    program = os.fspath(cluster.binaries.program("pg_ctl"))
    return [program, "stop", "--silent", "--wait", "--mode=fast", "--timeout=30"]


def stop(cluster: Cluster, *, lock: int) -> None:
    """Stop the server if it runs; pg_ctl inherits the lock, so nobody joins a server that ends."""
    state = _read_state(cluster.place)
    if state is None or not _is_postgres(state.pid):  # pg_ctl would signal whoever has the number
        return
    fast = stop_command(cluster)
    code, _ = run(fast, cluster.account, place=cluster.place, keep=(lock,))
    if code != 0 and _is_postgres(state.pid):  # a full disk, or one too slow: no data is lost
        _stop_immediately(state.pid)


def _stop_immediately(pid: int) -> None:
    # A server that panics again and again on a full disk may not heed the first signal. When it
    # is killed its children end by themselves; the next start recovers in either case.
    for number, wait_s in ((signal.SIGQUIT, 5.0), (signal.SIGKILL, 1.0)):
        deadline = time.monotonic() + wait_s
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        while _is_postgres(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not _is_postgres(pid):
            return
