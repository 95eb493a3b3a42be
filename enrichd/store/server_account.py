"""The account the embedded PostgreSQL runs as, and where that account can keep the data.

PostgreSQL refuses to run as root, so a start by root runs it as an unprivileged account: the owner
of existing data, else `enrichd`, else `postgres`. No folder that was there before is ever opened
for it: what the account cannot reach lives under `/var/lib/enrichd` instead, with a link at the
wanted place. A start by anybody else uses their own account.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from enrichd.errors import InvalidSetting, Unavailable

if sys.platform != "win32":
    import pwd

STATE = Path("/var/lib/enrichd")
OWN_SERVER = "Set DATABASE_URL to use a PostgreSQL server of your own."
READ, SEARCH = 4, 1
COMMAND_TIMEOUT_S = 120.0
PLACES_MAX = 1000


@dataclass(frozen=True, slots=True)
class Account:
    """A system account by its numbers; `is_own` when it is the one this process runs as."""

    name: str
    uid: int
    gid: int

    @property
    def is_own(self) -> bool:
        return self.uid == os.geteuid()

    def may(self, status: os.stat_result, wanted: int) -> bool:
        """Say whether the permission bits grant READ, SEARCH or their sum to the account."""
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
        return (status.st_mode >> shift) & wanted == wanted

    def reaches(self, folder: Path) -> bool:
        """Say whether the account can walk to `folder`, a resolved path, and into it."""
        return self.is_own or all(
            self.may(place.stat(), SEARCH) for place in (folder, *folder.parents)
        )


def account_for(data_dir: Path) -> Account:
    """Choose the account: ourselves, or for root the data's owner or an unprivileged account.

    Creates the system account `enrichd` when root has none to use.
    """
    if os.geteuid() != 0:
        return _account_of(os.geteuid(), os.getegid())
    if not (data_dir / "PG_VERSION").exists():
        return _system_account()
    owner = data_dir.stat()
    if owner.st_uid == 0:
        raise InvalidSetting(
            f"the data folder {data_dir} belongs to root, but PostgreSQL refuses to run as root",
            hint=f"Give it to an unprivileged account, as in: chown -R enrichd {data_dir}",
        )
    return _account_of(owner.st_uid, owner.st_gid)


def _account_of(uid: int, gid: int) -> Account:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(str(uid), uid, gid)
    return Account(entry.pw_name, uid, entry.pw_gid)


def _system_account() -> Account:
    for name in ("enrichd", "enrichd", "postgres"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            if entry.pw_uid != 0:
                return Account(name, entry.pw_uid, entry.pw_gid)
        if name == "enrichd":
            _create_account(name)  # the second turn finds it, whoever of several processes won
    raise Unavailable(
        "PostgreSQL refuses to run as root, and no unprivileged account could be made for it",
        hint="Run as another user, or create the account: useradd --system enrichd. " + OWN_SERVER,
    )


def _create_account(name: str) -> None:
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if useradd is None:
        return
    shell = shutil.which("nologin", path="/usr/sbin:/sbin") or "/bin/false"
    options = ["--system", "--user-group", "--no-create-home", "--home-dir", str(STATE)]
    subprocess.run(
        [useradd, *options, "--shell", shell, name],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=COMMAND_TIMEOUT_S,
    )


def make_folders(folder: Path) -> None:
    """Create the missing folders on the way: root's can be walked through, others' are private."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)


def make_state_folder() -> Path:
    """Create `/var/lib/enrichd`, open to walk through whatever the umask, and return it."""
    with contextlib.suppress(FileExistsError):
        STATE.mkdir(parents=True)
        STATE.chmod(0o755)
    return STATE


def place_for(data_dir: Path, account: Account) -> Path:
    """Return the real path of the data and leave a link at `data_dir` when that is elsewhere.

    To be called under the start lock. When the link was removed, the old data is left alone under
    `/var/lib/enrichd` and a fresh place is used: to remove the data folder is to start anew.
    """
    wanted = data_dir.parent.resolve() / data_dir.name
    if not wanted.is_symlink():
        if account.reaches(wanted.parent):
            return wanted
        if wanted.exists():
            _clear_empty(wanted, account)
        wanted.symlink_to(_free_place(wanted))
    place = wanted.resolve()
    if place.parent == STATE.resolve():
        make_state_folder()
    if not account.reaches(place.parent):
        raise Unavailable(
            f"the account {account.name}, which runs PostgreSQL for root, cannot reach {place}",
            hint=f"Let it walk through the folders above, or choose another. {OWN_SERVER}",
        )
    return place


def _clear_empty(wanted: Path, account: Account) -> None:
    try:
        wanted.rmdir()
    except OSError as error:
        raise Unavailable(
            f"the account {account.name}, which runs PostgreSQL for root, cannot reach {wanted}",
            hint=f"Move that folder away, or choose another. {OWN_SERVER}",
        ) from error


def _free_place(wanted: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:10]
    names = [digest, *(f"{digest}-{count}" for count in range(2, PLACES_MAX))]
    return next(STATE / name for name in names if not os.path.lexists(STATE / name))


def private_folder(folder: Path, account: Account) -> Path:
    """Create a folder only the account (and root) can enter; refuse one that somebody else made."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() != account.uid:
        os.chown(folder, account.uid, account.gid, follow_symlinks=False)
        status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != account.uid or status.st_mode & 0o077:
        raise Unavailable(
            f"{folder} should be a private folder of {account.name}, but somebody else made it",
            hint="Remove it, or set TMPDIR to a folder of your own.",
        )
    return folder


def run(
    command: Sequence[str | Path],
    account: Account,
    *,
    place: Path,
    stdin: str = "",
    log: int | None = None,
    keep: Sequence[int] = (),
) -> tuple[int, str]:
    """Run a PostgreSQL program on the data at `place` as the account; return exit code and output.

    The output goes to the descriptor `log` instead if one is given, as it must when the program
    leaves a server behind. The program has a session of its own, so that Ctrl-C in the terminal
    reaches only us; we pass it on as SIGINT, upon which pg_ctl and initdb undo what they began.
    `keep` are descriptors it inherits, so that locks last as long as it does, even if we die.
    """
    process = subprocess.Popen(
        [os.fspath(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE if log is None else log,
        stderr=subprocess.STDOUT,
        pass_fds=keep,
        cwd="/",
        env=environment(place),
        umask=0o077,
        start_new_session=True,
        text=True,
        errors="replace",
        user=None if account.is_own else account.uid,
        group=None if account.is_own else account.gid,
        extra_groups=None if account.is_own else [],
    )
    with process:
        try:
            output, _ = process.communicate(stdin, timeout=COMMAND_TIMEOUT_S)
        except BaseException:
            _interrupt(process)
            raise
    return process.returncode, output or ""


def environment(place: Path) -> Mapping[str, str]:
    """Return the clean environment of PostgreSQL's programs: no PG variables but the data's."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/",
        "LC_ALL": "C",
        "TZ": "UTC",
        "PGDATA": os.fspath(place),
    }


def _interrupt(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
            return
