"""What `doctor` looks at on this host: names, mail port, disks, descriptors, keys, plug-ins."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from enrichd.ctl.checks import Check, fail, ok, skip, warn
from enrichd.settings import Settings
from enrichd.settings.providers import KEYED, normal_id

if sys.platform != "win32":
    import resource

DNS_TIMEOUT_S = 2.5
CONNECT_TIMEOUT_S = 2.5
PLUGIN_TIMEOUT_S = 3.0
DISK_TIMEOUT_S = 2.0
PUBLIC_NAME = "a.root-servers.net"
SMTP_PORT = 25
DISK_FREE_MIN, DISK_FREE_STOP = 1 << 30, 100 << 20
DESCRIPTORS_BASE, DESCRIPTORS_PER_JOB = 128, 4
DESCRIPTORS_GATEWAY = 2_048 + DESCRIPTORS_BASE
"""The gateway's connections, streams of live updates among them."""
REALTIME_TIMEOUT_S = 2.5

Answer = TypeVar("Answer")

DNS_REASONS = {
    "dns_timeout": "no nameserver answered in time",
    "dns_connection_refused": "nothing listens at the nameserver's address",
    "network_unreachable": "there is no route to the nameserver",
    "no_resolver": "no nameserver is configured",
    "dns_servfail": "the nameserver failed (SERVFAIL)",
    "dns_refused": "the nameserver refused to answer (REFUSED)",
    "dns_garbled": "the nameserver's answer cannot be read",
    "host_not_found": f"the nameserver does not know {PUBLIC_NAME}: it is not of the internet",
}

PLUGIN_IMPORT = (
    "import sys\n"
    "from enrichd.errors import EnrichdError\n"
    "from enrichd.handlers.registry import load_handlers\n"
    "try:\n"
    "    load_handlers(sys.argv[1:])\n"
    "except EnrichdError as error:\n"
    "    sys.exit(error.message)\n"
)


def nameservers_of(settings: Settings) -> list[str]:
    """Return the nameservers as the resolver takes them; none are the system's own."""
    return [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in settings.dns_servers]


async def names(nameservers: Sequence[str]) -> Check:
    """Ask the nameservers for a name that exists."""
    from enrichd.providers.dns import Resolver

    resolver = Resolver(nameservers, timeout_s=DNS_TIMEOUT_S)
    answer = await resolver.addresses(PUBLIC_NAME)
    if answer.found:
        return ok("dns", f"{PUBLIC_NAME} is known")
    reason = answer.reason or "dns_failed"
    return warn(
        "dns",
        f"{DNS_REASONS.get(reason, 'the nameserver gave no answer')} ({reason}): providers are not"
        " reached, addresses stay unknown",
        "Check DNS_SERVERS, /etc/resolv.conf and the firewall for port 53.",
    )


async def mail_port(settings: Settings, *, port: int = SMTP_PORT) -> Check:
    """Connect to port 25 of our own mail server, the one of SMTP_PROBE_FROM's domain."""
    if not settings.smtp_probe:
        return skip("smtp_port", "SMTP_PROBE is off")
    domain = (settings.smtp_probe_from or "").rpartition("@")[2]
    if not domain:
        return skip("smtp_port", "SMTP_PROBE_FROM is not set, so there is no server of ours to try")
    from enrichd.providers.dns import Resolver

    resolver = Resolver(nameservers_of(settings), timeout_s=DNS_TIMEOUT_S)
    hosts = await resolver.mail_hosts(domain)
    host = hosts.records[0].host if hosts.records else domain
    addresses = await resolver.addresses(host)
    if not addresses.found:
        return warn("smtp_port", f"the mail server of {domain} is not found ({addresses.reason})")
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, writer = await asyncio.open_connection(addresses.found[0], port)
    except (OSError, TimeoutError) as error:
        return warn(
            "smtp_port",
            f"no connection to {host} port {port} ({type(error).__name__}): probing finds nothing",
            "Most clouds close port 25: ask the provider, or set SMTP_PROBE=off.",
        )
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return ok("smtp_port", f"{host} port {port} can be reached")


async def disk(name: str, folder: Path) -> Check:
    """Look how much room there is where a folder is, or will be."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        found = await in_thread(lambda: os.statvfs(place), DISK_TIMEOUT_S)
    except TimeoutError:
        return warn(name, f"{folder} does not answer", "A network disk that hangs?")
    except OSError as error:
        return warn(name, f"{folder} cannot be looked at: {error.strerror}")
    free = found.f_bavail * found.f_frsize
    message = f"{folder}: {free / (1 << 30):,.1f} GiB free"
    if found.f_files and not found.f_favail:
        return fail(name, f"{folder}: no inode is free", "Delete files there.")
    if free < DISK_FREE_STOP:
        return fail(name, f"{folder}: only {free >> 20:,} MiB free", "Make room there.")
    if free < DISK_FREE_MIN:
        return warn(name, message, "Make room there; enrichctl prune deletes old jobs.")
    if not await in_thread(lambda: os.access(place, os.W_OK), DISK_TIMEOUT_S):
        return warn(name, f"{folder} cannot be written to by this user")
    return ok(name, message)


def disks(settings: Settings) -> list[tuple[str, Path]]:
    """Return the folders that need room: data only where the embedded server keeps it here."""
    folders = [("temp_disk", Path(tempfile.gettempdir()))]
    if settings.database_url is None:
        folders.insert(0, ("data_disk", settings.data_dir))
    return folders


def descriptors(settings: Settings) -> Check:
    """Judge how many files and sockets a process may open here."""
    if sys.platform == "win32":
        return skip("descriptors", "there is no such limit")
    # The hard limit counts: processes of the daemon raise their own up to it.
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    for_jobs = DESCRIPTORS_BASE + DESCRIPTORS_PER_JOB * settings.max_concurrent_jobs
    needed = max(for_jobs, DESCRIPTORS_GATEWAY)
    if limit == resource.RLIM_INFINITY or limit >= needed:
        shown = "no limit" if limit == resource.RLIM_INFINITY else f"{limit:,} allowed here"
        return ok("descriptors", shown)
    who = "MAX_CONCURRENT_JOBS" if needed == for_jobs else "the gateway's connections"
    return warn(
        "descriptors",
        f"{limit:,} allowed here; {who} may need {needed:,}",
        "Raise LimitNOFILE of the service (ulimit -Hn), or lower MAX_CONCURRENT_JOBS.",
    )


async def realtime(settings: Settings) -> Check:
    """Ask Supabase Realtime whether it takes broadcasts with our key; none is sent."""
    if settings.supabase_url is None or settings.supabase_realtime == "off":
        return skip("realtime", "SUPABASE_URL is not set, or SUPABASE_REALTIME is off")
    key = settings.supabase_service_role_key or settings.supabase_anon_key
    if key is None:
        return skip("realtime", "there is no key for it")
    from enrichd.gateway.realtime import refusal_of

    refused = await refusal_of(
        settings.supabase_url, key.get_secret_value(), timeout_s=REALTIME_TIMEOUT_S
    )
    if refused is None:
        return ok("realtime", "Supabase Realtime takes broadcasts with this key")
    return warn(
        "realtime",
        f"Supabase Realtime does not take broadcasts: {refused}",
        "Check SUPABASE_URL and SUPABASE_SERVICE_ROLE_KEY. Jobs run on without live updates there.",
    )


def keys(settings: Settings) -> Check:
    """Say which providers have a key, never the key."""
    having = sorted(
        provider.id for provider in settings.providers.values() if provider.api_key is not None
    )
    without = [name for name in KEYED if normal_id(name) not in map(normal_id, having)]
    if having:
        rest = f"; none for {', '.join(without)}" if without else ""
        return ok("keys", f"{', '.join(having)}{rest}")
    return ok("keys", "none set: only the sources that need none are asked")


async def plugins(modules: Sequence[str], *, wait_s: float = PLUGIN_TIMEOUT_S) -> Check:
    """Import the plug-ins as the daemon would, in a process of its own.

    There a module that prints, hangs or ends the process does no harm.
    """
    if not modules:
        return ok("plugins", "none set")
    # -P and the path: the same modules are found as from here, and no others.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-c",
        PLUGIN_IMPORT,
        *modules,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        async with asyncio.timeout(wait_s):
            _, stderr = await process.communicate()
    except TimeoutError:
        return warn(
            "plugins",
            f"{', '.join(modules)}: not imported within {wait_s:g} s",
            "A module should define things and do nothing when it is imported.",
        )
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return ok("plugins", f"imported: {', '.join(modules)}")
    last = stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return fail(
        "plugins",
        last[:300] or f"the import ended the process with {process.returncode}",
        "enrichd does not start like this; the module must be on Python's path.",
    )


async def in_thread(work: Callable[[], Answer], timeout_s: float) -> Answer:
    """Run what may hang in a thread that nobody waits for at the end.

    Raises TimeoutError. A thread of the loop's pool would be joined when the program ends.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Answer] = loop.create_future()

    def run() -> None:
        try:
            answer = work()
        except OSError as error:
            settle(partial(done.set_exception, error))
        else:
            settle(partial(done.set_result, answer))

    def settle(how: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if done.done() else how())

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wait_for(done, timeout_s)
