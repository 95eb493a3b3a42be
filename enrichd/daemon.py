"""`enrichd`: check the configuration, import everything, freeze, fork, watch."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from setproctitle import setproctitle

import enrichd
from enrichd import metrics
from enrichd.errors import EnrichdError, Invalid, InvalidSetting, Unavailable
from enrichd.gateway.main import run_gateway
from enrichd.handlers.registry import HANDLERS, load_handlers
from enrichd.housekeeper.main import run_housekeeper
from enrichd.logs import configure_logs, get_logger, register_secret
from enrichd.processing.duty import Duty
from enrichd.settings import Settings
from enrichd.store import embedded, migrate
from enrichd.supervisor.child import ChildSpec
from enrichd.supervisor.manager import CONFIGURATION_ERROR, Fleet, WorkerManager
from enrichd.worker.main import run_worker

NOT_FOR_CHILDREN = ("enrichd.ctl", "enrichd.daemon")
NOTHING: Mapping[str, str] = MappingProxyType({})
# Children speak once a second, whatever WORKER_TIMEOUT is.
HANG_S_MIN = 3.0

log = get_logger("daemon")


def main() -> None:
    """Run the daemon in the foreground; exit with 0, or 78 for a configuration error."""
    open_missing_streams()
    try:
        settings = load_settings()
        metrics.prepare(metrics.default_folder(settings.runtime_directory))
        load_handlers(settings.plugins)
        metrics.allow(job_types=HANDLERS, providers=settings.providers)
    except Invalid as error:
        print(f"enrichd: {error.message}", file=sys.stderr)
        if error.hint:
            print(error.hint, file=sys.stderr)
        sys.exit(CONFIGURATION_ERROR)
    setproctitle("enrichd: supervisor")
    try:
        with database_of(settings) as overrides:
            import_everything()
            duty = Duty.new()
            sys.exit(WorkerManager(lambda: fleet(overrides, duty)).run())
    except EnrichdError as error:
        log.critical("start_failed", reason=error.message, hint=error.hint)
        sys.exit(CONFIGURATION_ERROR if isinstance(error, Invalid) else 1)


def open_missing_streams() -> None:
    """Put /dev/null where a standard stream was closed before the start (`enrichd >&- 2>&-`).

    Otherwise the next socket gets its number, and what is meant for the stream goes there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest free number: this one.
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def load_settings(overrides: Mapping[str, str] = NOTHING) -> Settings:
    """Read the configuration and set the logs up with it."""
    settings = Settings.load(overrides=overrides)
    set_up_logs(settings)
    return settings


def set_up_logs(settings: Settings) -> None:
    """Log as the settings have it, without their secrets; warn of what is odd about them."""
    for secret in settings.secrets():
        register_secret(secret)
    configure_logs(settings.log_level, settings.log_format, settings.debug)
    for warning in settings.warnings:
        log.warning("configuration_warning", text=warning)


def fleet(overrides: Mapping[str, str], duty: Duty | None = None) -> Fleet:
    """Return what to run, by the configuration as it is now: also called at each reload."""
    settings = Settings.load(overrides=overrides)
    if settings.database_url is None:
        raise InvalidSetting("DATABASE_URL is gone; the embedded server needs a new start")
    return Fleet(
        worker=ChildSpec("worker", lambda link, slot: run_worker(settings, link, slot, duty)),
        others=(
            # First at a reload, since what it needs may not be there: a free port.
            ChildSpec("gateway", lambda link, slot: run_gateway(settings, link, slot)),
            ChildSpec(
                "housekeeper", lambda link, slot: run_housekeeper(settings, link, slot, duty)
            ),
        ),
        worker_count=settings.worker_count,
        worker_max_count=settings.worker_max_count,
        grace_s=settings.graceful_shutdown_timeout_s,
        hang_s=max(settings.worker_timeout_s / 2, HANG_S_MIN),
        enter=lambda: set_up_logs(settings),
    )


@contextlib.contextmanager
def database_of(settings: Settings) -> Iterator[Mapping[str, str]]:
    """Give what leads to the database beside the settings: the embedded server, migrated."""
    if settings.database_url is not None:
        yield NOTHING
        return
    with embedded.start(settings.data_dir / "postgresql") as server:
        migrate_apart(server.dsn)
        yield {"DATABASE_URL": server.dsn}


def migrate_apart(dsn: str) -> None:
    """Bring the embedded database up to date in a process of its own.

    The supervisor must stay free of connections and event loops, which no fork survives well.
    """
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(migrate.apply_at(dsn))
        except BaseException as error:  # noqa: BLE001 - told by the exit code, and printed
            print(f"enrichd: the database cannot be migrated: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise Unavailable("the embedded database could not be migrated")


def import_everything() -> None:
    """Import every module before the first fork, so that the children share their memory."""
    for module in pkgutil.walk_packages(enrichd.__path__, "enrichd."):
        if not module.name.startswith(NOT_FOR_CHILDREN):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()
