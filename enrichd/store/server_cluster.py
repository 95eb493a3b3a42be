"""The data of the embedded PostgreSQL: made once, as a whole.

The new data folder is made under another name, database included, and appears by one rename: a
folder with that other name is what a crash left behind, and is replaced.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from enrichd.errors import InvalidSetting, Unavailable
from enrichd.store.server_account import (
    OWN_SERVER,
    Account,
    private_folder,
    run,
)
from enrichd.store.server_binaries import Binaries

DATABASE = "enrichd"
LOG_LINES_SHOWN = 8
FULL_BELOW_BYTES = 65_536

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


def open_in(cluster: Cluster, name: str, flags: int) -> int:
    """Open a file of ours in the data folder, created as the account's; never through a link."""
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(cluster.place / name, flags, 0o600)
    if not cluster.account.is_own:
        os.fchown(descriptor, cluster.account.uid, cluster.account.gid)
    return descriptor


def is_disk_full(place: Path) -> bool:
    """Say whether the disk that holds `place` has practically no room left."""
    disk = os.statvfs(place.parent)
    return disk.f_bavail * disk.f_frsize < FULL_BELOW_BYTES


def failure(what: str, output: str, place: Path) -> Unavailable:
    """Explain a failed program by the last lines it wrote."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    shown = "\n".join(lines[-LOG_LINES_SHOWN:])
    if "No space left on device" in output or is_disk_full(place):
        return Unavailable(
            f"{what}: the disk that holds {place} is full\n{shown}",
            hint="Free some space there, or keep the data on another disk.",
        )
    return Unavailable(f"{what} in {place}:\n{shown or 'it said nothing'}", hint=OWN_SERVER)
