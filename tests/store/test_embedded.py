"""The embedded server: made once, shared by processes, gone after the last, safe under root."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from enrichd.errors import EnrichdError, InvalidSetting, Unavailable
from enrichd.store import embedded, server_account, server_binaries, server_cluster
from enrichd.store.server_binaries import find_binaries, package_folders
from tests.support import postgres

ROOT = Path(__file__).parents[2]
FAST = {"fsync": "off"}
PRELUDE = """
import os, signal, sys, time
from pathlib import Path
import psycopg
from enrichd.store import embedded
def run(server, statement):
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        cursor = conn.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None
def wait():  # in turns: a signal that comes just before a single wait would not end it
    for _ in range(300):
        time.sleep(0.1)
data = Path(sys.argv[1])
"""
NOBODY = {
    "user": 65534,
    "group": 65534,
    "extra_groups": [],
    "env": {"PYTHONPATH": str(Path(psycopg.__file__).parents[1])},
}
HOLD = "server = embedded.start(data); print('ready', flush=True);"

is_root = os.geteuid() == 0
as_root = pytest.mark.skipif(not is_root, reason="only root can become another account")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder everybody may walk through, so that root's server keeps its data right there."""
    path = Path(tempfile.mkdtemp(prefix="enrichd-embedded-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A data folder that was set up already, with no server running."""
    path = Path(tempfile.mkdtemp(prefix="enrichd-embedded-"))
    path.chmod(0o755)
    embedded.start(path / "data", settings=FAST).stop()
    yield path / "data"
    shutil.rmtree(path)


@pytest.fixture
def state(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for /var/lib/enrichd."""
    monkeypatch.setattr(server_account, "STATE", folder / "state")
    return folder / "state"


def query(server: embedded.EmbeddedServer, statement: str) -> object:
    with psycopg.connect(server.dsn, autocommit=True) as conn:
        cursor = conn.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def spawn(
    script: str, data: Path, python: str = sys.executable, **options: object
) -> subprocess.Popen[str]:
    process: subprocess.Popen[str] = subprocess.Popen(
        [python, "-W", "error", "-c", PRELUDE + script, str(data)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,  # type: ignore[call-overload]
    )
    return process


def python_for_all() -> str:
    """Find a Python that an unprivileged account can run; root's own may be in its home."""
    program = "import sys, psycopg; assert sys.version_info >= (3, 11)"
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            answer = subprocess.run([python, "-c", program], check=False, **NOBODY)  # type: ignore[call-overload]
        except PermissionError:
            continue
        if answer.returncode == 0:
            return python
    pytest.skip("no Python here that an unprivileged account can run")


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def eventually(condition: Callable[[], bool], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def postmaster(data: Path) -> int:
    return int((data / "postmaster.pid").read_text().splitlines()[0])


def is_gone(data: Path) -> bool:
    return not (data / "postmaster.pid").exists()


def modes(folder: Path) -> dict[Path, tuple[int, int]]:
    places = [folder, *folder.parents, *package_folders()]
    places += [parent for path in package_folders() for parent in path.parents]
    return {path: (path.stat().st_mode, path.stat().st_uid) for path in places}


def test_a_new_server_is_private_durable_and_has_its_database(folder: Path) -> None:
    with embedded.start(folder / "data") as server:
        answers = {
            name: query(server, f"select current_setting('{name}')")
            for name in ("fsync", "full_page_writes", "listen_addresses", "timezone", "autovacuum")
        }
        assert answers == {
            "fsync": "on",
            "full_page_writes": "on",
            "listen_addresses": "",
            "timezone": "UTC",
            "autovacuum": "on",
        }
        assert query(server, "select current_database()") == "enrichd"
        assert query(server, "select lower('ÄÖ') || current_setting('server_encoding')") == "äöUTF8"
        assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700
    assert is_gone(folder / "data")


def test_the_last_user_to_leave_stops_the_server(made: Path) -> None:
    first, second = embedded.start(made), embedded.start(made)
    assert first.stop() is False
    assert query(second, "select 1") == 1
    assert second.stop() is True
    assert second.stop() is False
    assert is_gone(made)


def test_processes_starting_at_once_make_one_server(folder: Path) -> None:
    script = "with embedded.start(data) as server: print(run(server, 'select 41 + 1'))"
    starters = [spawn(script, folder / "data") for _ in range(4)]
    assert [starter.communicate(timeout=60)[0] for starter in starters] == ["42\n"] * 4
    assert [starter.returncode for starter in starters] == [0] * 4
    eventually(lambda: is_gone(folder / "data"))


def test_a_setup_cut_off_by_kill_is_done_again(folder: Path) -> None:
    with spawn(HOLD, folder / "data") as starter:
        eventually((folder / ".data.new" / "base").exists)
        starter.kill()
    assert (folder / ".data.new").exists()
    assert not (folder / "data").exists()

    with embedded.start(folder / "data", settings=FAST) as server:
        assert query(server, "select 1") == 1
    assert not (folder / ".data.new").exists()


def test_data_survives_a_killed_server(made: Path) -> None:
    with embedded.start(made) as server:
        query(server, "create table kept as select 42 as answer")
        os.kill(postmaster(made), signal.SIGKILL)
        with embedded.start(made) as again:
            assert query(again, "select answer from kept") == 42
            query(again, "drop table kept")


def test_a_pid_file_that_names_another_program_is_seen_through(made: Path) -> None:
    owner = made.stat().st_uid
    options = {"user": owner} if is_root else {}
    stranger = subprocess.Popen(["sleep", "60"], **options)  # type: ignore[call-overload]
    try:
        lines = [stranger.pid, made, 1, 5432, made, "", "  1  1", "ready   "]
        (made / "postmaster.pid").write_text("".join(f"{line}\n" for line in lines))
        os.chown(made / "postmaster.pid", owner, -1)
        with embedded.start(made) as server:
            assert query(server, "select 1") == 1
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize(
    ("ending", "number"),
    [
        ("sys.exit(3)", None),
        ("raise RuntimeError('as planned')", None),
        ("wait()", signal.SIGINT),
        ("wait()", signal.SIGTERM),
        ("wait()", signal.SIGKILL),
    ],
    ids=["exit", "error", "ctrl-c", "sigterm", "sigkill"],
)
def test_no_server_is_left_however_its_user_ends(
    made: Path, ending: str, number: signal.Signals | None
) -> None:
    with spawn(HOLD + ending, made, stderr=subprocess.DEVNULL) as user:
        assert first_line(user) == "ready"
        pid = postmaster(made) if number else None
        if number:
            user.send_signal(number)
    eventually(lambda: is_gone(made))
    if pid:
        eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_no_server_is_left_by_a_start_that_is_interrupted(made: Path) -> None:
    with spawn(HOLD + "wait()", made, stderr=subprocess.DEVNULL) as user:
        eventually((made / "postmaster.pid").exists)
        user.send_signal(signal.SIGINT)
    eventually(lambda: is_gone(made))


def test_ctrl_c_in_the_terminal_does_not_reach_the_server(made: Path) -> None:
    script = """
server = embedded.start(data)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print('ready', flush=True)
signal.sigwait({signal.SIGINT})
print(run(server, 'select 42'), flush=True)
"""
    with spawn(script, made, start_new_session=True) as user:
        assert first_line(user) == "ready"
        os.killpg(user.pid, signal.SIGINT)
        assert first_line(user) == "42"
    assert user.returncode == 0


def test_a_forked_child_keeps_the_server_after_its_parent(made: Path) -> None:
    script = """
server = embedded.start(data)
left, leave = os.pipe()
if os.fork():
    print(server.stop(), flush=True)
    os.write(leave, b'.')
    os._exit(0)
os.read(left, 1)
print(run(server, 'select 42'), server.stop(), flush=True)
"""
    with spawn(script, made) as parent:
        assert parent.communicate(timeout=30)[0].split() == ["False", "42", "True"]
    assert is_gone(made)


def test_a_path_too_long_for_a_socket_gets_a_private_folder_for_it(
    folder: Path, state: Path
) -> None:
    data = folder / ("long" * 20) / "data"
    with embedded.start(data, settings=FAST) as server:
        sockets = Path(str(query(server, "show unix_socket_directories")))
        assert query(server, "select 1") == 1
        assert len(os.fsencode(sockets)) < 90
        assert sockets.stat().st_uid == data.stat().st_uid
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert not sockets.exists()


def test_odd_characters_in_the_path_are_kept_from_the_shell(folder: Path, state: Path) -> None:
    data = folder / """a b'c"d$(exit 1),é;e"""
    with embedded.start(data, settings=FAST) as server:
        assert query(server, "select 1") == 1
    assert (data / "PG_VERSION").exists()


def test_older_data_is_run_by_the_programs_that_made_it(folder: Path) -> None:
    found = [find_binaries(folder / "none", path) for path in package_folders()]
    oldest, newest = sorted(found, key=lambda one: one.major)
    assert find_binaries(folder / "none") == newest
    embedded.start(folder / "data", settings=FAST, binaries=oldest.folder).stop()
    with embedded.start(folder / "data", settings=FAST) as server:
        assert str(query(server, "show server_version")) == oldest.version


@as_root
def test_what_the_account_cannot_reach_lives_elsewhere_behind_a_link(
    folder: Path, state: Path
) -> None:
    home = folder / "home"
    home.mkdir(mode=0o700)
    data = home / ".local" / "share" / "data"
    before = modes(home)
    with embedded.start(data, settings=FAST) as server:
        query(server, "create table kept as select 42 as answer")
    with embedded.start(data, settings=FAST) as server:
        assert query(server, "select answer from kept") == 42

    assert modes(home) == before
    assert data.resolve().parent == state
    assert data.stat().st_uid not in (0, os.geteuid())
    assert [stat.S_IMODE(path.stat().st_mode) for path in (state, data)] == [0o755, 0o700]

    data.unlink()  # who removes the data folder wants a new one
    with embedded.start(data, settings=FAST) as server:
        assert query(server, "select to_regclass('kept')") is None


@as_root
def test_what_the_account_can_reach_stays_in_place(folder: Path, state: Path) -> None:
    before = modes(folder)
    with embedded.start(folder / "data", settings=FAST) as server:
        assert server.data_dir == folder / "data"
    assert modes(folder) == before
    assert not state.exists()


@as_root
def test_programs_the_account_cannot_read_are_copied_once(folder: Path, state: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    newest = find_binaries(folder / "none")
    site = newest.folder.parents[2]
    for part in (newest.folder.parent, site / f"{server_binaries.PACKAGE}.libs"):
        shutil.copytree(part, private / part.relative_to(site), symlinks=True)
    programs = private / newest.folder.relative_to(site)
    before = modes(programs)

    for _ in range(2):
        with embedded.start(folder / "data", settings=FAST, binaries=programs) as server:
            assert query(server, "select 1") == 1

    assert modes(programs) == before
    (copy,) = state.iterdir()
    assert (copy.name, copy.stat().st_uid) == (f"postgresql-{newest.version}", 0)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o755


@as_root
def test_root_runs_the_server_of_a_user_as_that_user(folder: Path) -> None:
    (folder / "home").mkdir(mode=0o700)
    os.chown(folder / "home", 65534, 65534)
    data = folder / "home" / "enrichd" / "data"
    script = "with embedded.start(data) as server: print(run(server, 'select 42'), server.data_dir)"
    with spawn(script, data, python=python_for_all(), **NOBODY) as user:
        assert user.communicate(timeout=30)[0].split() == ["42", str(data)]
    assert (data.stat().st_uid, stat.S_IMODE(data.parent.stat().st_mode)) == (65534, 0o700)

    with embedded.start(data) as server:
        assert query(server, "select 1") == 1
        assert Path(f"/proc/{postmaster(data)}").stat().st_uid == 65534


@as_root
def test_the_server_has_no_groups_of_root(made: Path) -> None:
    with spawn(HOLD + "wait()", made, extra_groups=[0, 4], stderr=subprocess.DEVNULL) as user:
        assert first_line(user) == "ready"
        status = Path(f"/proc/{postmaster(made)}/status").read_text()
        user.terminate()
    eventually(lambda: is_gone(made))
    assert [line.split()[1:] for line in status.splitlines() if line.startswith("Groups:")] == [[]]


@as_root
def test_data_of_root_is_refused(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "PG_VERSION").write_text("18\n")
    with pytest.raises(InvalidSetting, match="belongs to root"):
        embedded.start(folder / "data")


def test_a_folder_with_other_files_is_refused(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "letter.txt").write_text("dear")
    with pytest.raises(InvalidSetting, match="holds files but no PostgreSQL data"):
        embedded.start(folder / "data")
    assert [path.name for path in (folder / "data").iterdir()] == ["letter.txt"]


def test_data_of_a_newer_postgresql_is_refused(folder: Path) -> None:
    (folder / "PG_VERSION").write_text("99\n")
    with pytest.raises(InvalidSetting, match="made by PostgreSQL 99; installed here is 16 and 18"):
        find_binaries(folder)


def test_a_missing_extra_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_binaries, "PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(Unavailable) as caught:
        embedded.start(folder / "data")
    assert "pip install 'enrichd[embedded]'" in str(caught.value.hint)


def test_windows_is_told_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(Unavailable, match="Windows"):
        embedded.start(folder / "data")


def test_a_setting_postgresql_refuses_is_shown_in_its_words(made: Path) -> None:
    with pytest.raises(Unavailable, match='invalid value for parameter "shared_buffers"'):
        embedded.start(made, settings={"shared_buffers": "lots"})
    assert is_gone(made)


def test_a_socket_folder_of_somebody_else_is_refused(folder: Path) -> None:
    (folder / "sockets").symlink_to("/tmp")
    account = server_account.account_for(folder)
    with pytest.raises(EnrichdError, match="somebody else made it"):
        server_account.private_folder(folder / "sockets", account)


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a private mount namespace")
@pytest.mark.parametrize(
    "size",
    [
        pytest.param("4m", id="while made"),
        pytest.param("80m", id="while running", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_named_as_the_cause(folder: Path, size: str) -> None:
    script = """
try:
    server = embedded.start(data)
    with open(data / 'ballast', 'wb') as file:
        file.write(bytes(100_000_000))
except OSError:
    server.stop()
    try:
        embedded.start(data)
    except Exception as error:
        print(type(error).__name__, error)
except Exception as error:
    print(type(error).__name__, error)
"""
    program = [sys.executable, "-c", PRELUDE + script, str(folder / "data")]
    mount = f'mount -t tmpfs -o size={size},mode=755 none "$0" && exec "$@"'
    answer = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, str(folder), *program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if "permission denied" in answer.stderr.lower():
        pytest.skip("mounting is not allowed here")
    assert answer.stdout.startswith("Unavailable the embedded PostgreSQL"), answer
    assert "is full" in answer.stdout


def test_the_log_shown_is_short() -> None:
    error = server_cluster.failure("it failed", "\n".join(map(str, range(100))), Path("/data"))
    assert error.message == "it failed in /data:\n" + "\n".join(map(str, range(92, 100)))


def test_the_tests_own_server_clones_a_template_and_goes(folder: Path) -> None:
    def migrate(dsn: str) -> None:
        with psycopg.connect(dsn) as conn:
            conn.execute("create table kept as select 42 as answer")

    with postgres.throw_away_server(folder / "run") as server:
        template = postgres.create_template(server.dsn, migrate)
        clones = postgres.Clones(server.dsn, template)
        taken = [clones.take() for _ in range(3)]
        assert len(set(taken)) == 3
        with psycopg.connect(taken[0], autocommit=True) as conn:
            assert conn.execute("select answer from kept").fetchone() == (42,)
            clones.drop(taken[0])
        for dsn in taken[1:]:
            clones.drop(dsn)
        clones.close()
        postgres.drop_database(server.dsn, template)
        databases = query(server, "select count(*) from pg_database where datname like 'enrichd_%'")
        assert databases == 0
    assert not (folder / "run").exists()


def test_what_killed_test_runs_left_in_memory_is_removed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(postgres, "MEMORY", tmp_path)
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    pids = {"mine": gone.pid, "killed": gone.pid, "running": os.getpid()}
    for name, pid in pids.items():
        (data := tmp_path / f"enrichd-tests-{name}" / "data").mkdir(parents=True)
        (data / "postmaster.pid").write_text(f"{pid}\n{data}\n")
    (tmp_path / "enrichd-tests-unmade").mkdir()

    postgres.remove_left_behind(tmp_path / "enrichd-tests-mine")

    left = {path.name.removeprefix("enrichd-tests-") for path in tmp_path.iterdir()}
    assert left == {"mine", "running"}


DEBIAN = Path("/usr/lib/postgresql/15/bin")


@pytest.mark.skipif(not DEBIAN.exists(), reason="needs Debian's PostgreSQL 15")
def test_a_command_runs_on_a_server_of_other_programs(capfd: pytest.CaptureFixture[str]) -> None:
    program = f"""
import os, psycopg
with psycopg.connect(os.environ["{postgres.URL_VARIABLE}"]) as conn:
    print(conn.execute("show server_version").fetchone()[0].split(".")[0])
raise SystemExit(7)
"""
    assert postgres.main([str(DEBIAN), "--", sys.executable, "-c", program]) == 7
    assert capfd.readouterr().out == "15\n"
