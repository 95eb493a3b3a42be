"""The data of the embedded PostgreSQL: made once as a whole, started and stopped.

The new data folder is made under another name, database included, and appears by one rename: a
folder with that other name is what a crash left behind, and is replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from enrichd.errors import InvalidSetting, Unavailable
from enrichd.store.server_account import (
    OWN_SERVER,
    Account,
    make_state_folder,
    private_folder,
    run,
)
from enrichd.store.server_binaries import Binaries

DATABASE = "enrichd"
PORT = 5432  # part of the socket's file name; nothing listens on a port
SOCKET = f".s.PGSQL.{PORT}"
SOCKET_PATH_BYTES_MAX = 103  # sun_path of macOS, the smallest, with its closing zero byte
START_WAIT_S = 60.0
LOG_BYTES_MAX = 10_000_000
LOG_BYTES_READ = 20_000
LOG_LINES_SHOWN = 8
FULL_BELOW_BYTES = 65_536
STARTING = "LOG:  starting PostgreSQL"
READY = "ready to accept connections"
PATIENCE_S = 3  # then we look ourselves why it is not ready

CONFIGURATION = """
# From here on: set by enrichd when it made this server. Changes count from the next start.
listen_addresses = ''
max_connections = 100
shared_buffers = '128MB'
max_wal_size = '512MB'
fsync = on
full_page_writes = on
synchronous_commit = on
autovacuum = on
timezone = 'UTC'
log_timezone = 'UTC'
lc_messages = 'C'
log_checkpoints = off
log_line_prefix = '%m [%p] '
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A data folder (a resolved path) with the account and the programs that run it."""

    place: Path
    account: Account
    binaries: Binaries


def create(cluster: Cluster, *, is_durable: bool, lock: int) -> None:
    """Make the data folder with the database in it, or do nothing when it is there.

    To be called under the start lock, whose descriptor initdb inherits: should we die meanwhile,
    the next start waits until initdb has ended before it removes what that has left.
    """
    place = cluster.place
    if (place / "PG_VERSION").exists():
        return
    if place.exists() and any(place.iterdir()):
        raise InvalidSetting(
            f"{place} holds files but no PostgreSQL data, so no server is made there",
            hint=f"Name an empty or a new folder. {OWN_SERVER}",
        )
    fresh = place.with_name(f".{place.name}.new")
    if fresh.exists():
        shutil.rmtree(fresh)
    try:
        private_folder(fresh, cluster.account)
        _initdb(cluster, fresh, is_durable=is_durable, lock=lock)
        _configure(fresh)
        _create_database(cluster, fresh, lock=lock)
        fresh.rename(place)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _sync_folder(place.parent)


def _initdb(cluster: Cluster, fresh: Path, *, is_durable: bool, lock: int) -> None:
    program = cluster.binaries.program("initdb")
    # The socket's folder is private to the account, so whoever can connect may: the kernel has
    # checked already. There is no other way in.
    options = ["--username=enrichd", "--auth-local=trust", "--auth-host=reject"]
    options += ["--encoding=UTF8", "--data-checksums"]
    options += [] if is_durable else ["--no-sync"]
    code, output = 1, ""
    for locale in _locales(cluster.binaries.major):
        code, output = run([program, *options, *locale], cluster.account, place=fresh, keep=(lock,))
        if code == 0 or "locale" not in output:
            break
    if code != 0:
        raise failure("the embedded PostgreSQL could not be set up", output, cluster.place)


def _locales(major: int) -> list[list[str]]:
    if major >= 17:  # built in: the same order and case rules on every system, no ICU
        return [["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]]
    return [["--locale=C.UTF-8"], ["--locale=C"]]


def _configure(fresh: Path) -> None:
    with open(fresh / "postgresql.conf", "a", encoding="utf-8") as file:
        file.write(CONFIGURATION)
        file.flush()
        os.fsync(file.fileno())


def _create_database(cluster: Cluster, fresh: Path, *, lock: int) -> None:
    # The single-user mode answers 0 whatever the statement did, but it says ERROR.
    code, output = run(
        [
            cluster.binaries.program("postgres"),
            "--single",
            "-c",
            "log_min_messages=error",
            "postgres",
        ],
        cluster.account,
        place=fresh,
        stdin=f"create database {DATABASE}\n",
        keep=(lock,),
    )
    if code != 0 or any(word in output for word in ("ERROR:", "FATAL:", "PANIC:")):
        raise failure("the embedded PostgreSQL could not be set up", output, cluster.place)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
        if since.count("PANIC:") > 1 or _is_disk_full(cluster.place):
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


def open_in(cluster: Cluster, name: str, flags: int) -> int:
    """Open a file of ours in the data folder, created as the account's; never through a link."""
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(cluster.place / name, flags, 0o600)
    if not cluster.account.is_own:
        os.fchown(descriptor, cluster.account.uid, cluster.account.gid)
    return descriptor


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


def _is_disk_full(place: Path) -> bool:
    disk = os.statvfs(place.parent)
    return disk.f_bavail * disk.f_frsize < FULL_BELOW_BYTES


def failure(what: str, output: str, place: Path) -> Unavailable:
    """Explain a failed program by the last lines it wrote."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    shown = "\n".join(lines[-LOG_LINES_SHOWN:])
    if "No space left on device" in output or _is_disk_full(place):
        return Unavailable(
            f"{what}: the disk that holds {place} is full\n{shown}",
            hint="Free some space there, or keep the data on another disk.",
        )
    return Unavailable(f"{what} in {place}:\n{shown or 'it said nothing'}", hint=OWN_SERVER)
