"""What `doctor` makes of the facts about PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from enrichd.ctl.checks import Check, fail, ok, warn
from enrichd.ctl.glance import seconds
from enrichd.settings import Settings
from enrichd.store.doctor import Clock, Horizon, Server, Table

VERSION_MIN = 140000
ROUND_TRIP_S_MAX = 0.05
SKEW_S_MAX, SKEW_S_TOLERATED_MAX = 2.0, 300.0
"""From here on; past the second, receivers refuse a webhook's signature for its age."""
TIMEOUT_MS_MIN = 30_000
IDLE_TIMEOUT_MS_MIN = 5_000
SHARED_BUFFERS_MIN = 64 << 20
CONNECTIONS_SHARE_MAX = 0.8
XID_AGE_MAX, XID_AGE_STOP = 1_000_000_000, 1_800_000_000
TRANSACTION_S_MAX = 300.0
SNAPSHOT_AGE_MAX = 1_000_000
PREPARED_S_MAX = 300.0
DEAD_MIN, DEAD_SHARE_MAX = 10_000, 0.2
GIB = 1 << 30

UNREACHED_HINTS = {
    "refused": "Is PostgreSQL running, and at that address? enrichctl config shows which it is.",
    "password": "Check user and password in DATABASE_URL.",
    "authentication": "Check user and password in DATABASE_URL, and pg_hba.conf on the server.",
    "no pg_hba.conf entry": "Allow this host in the server's pg_hba.conf.",
    "does not exist": "Create the database or role, or correct DATABASE_URL.",
    "resolve": "Check the host in DATABASE_URL; the name is not known here.",
    "translate host": "Check the host in DATABASE_URL; the name is not known here.",
    "timeout": "A firewall, or a host that is down: check the network to it.",
    "no answer": "A firewall, or a host that is down: check the network to it.",
    "too many": "All connections are taken: use a pooler, or raise max_connections.",
    "starting up": "Wait; it is starting or recovering.",
    "SSL": "Check sslmode and the certificates.",
}


def unreached(message: str) -> Check:
    """Return the check of a database that cannot be reached."""
    hint = next(
        (hint for word, hint in UNREACHED_HINTS.items() if word in message),
        "enrichctl config shows DATABASE_URL and where it was set.",
    )
    return fail("database", message, hint)


def reached(shown: str, clock: Clock) -> Check:
    """Judge how far away the database is."""
    message = f"{shown} answers in {clock.round_trip_s * 1000:.1f} ms"
    if clock.round_trip_s > ROUND_TRIP_S_MAX:
        return warn(
            "database",
            f"{message}: every claim and every record waits for it",
            "Run workers close to PostgreSQL.",
        )
    return ok("database", message)


def server_checks(server: Server, settings: Settings) -> Iterator[Check]:
    """Judge the server's version, role, settings and load."""
    yield version(server)
    yield role(server)
    yield durability(server)
    yield timeouts(server)
    yield connections(server, settings)
    yield autovacuum(server)
    yield memory(server)
    yield wraparound(server)
    yield pooler(server, settings)


def version(server: Server) -> Check:
    """PostgreSQL 14 and newer are supported."""
    shown = f"PostgreSQL {server.version // 10_000}.{server.version % 10_000}"
    if server.version < VERSION_MIN:
        return fail("server_version", f"{shown} is too old", "Use PostgreSQL 14 or newer.")
    return ok("server_version", shown)


def role(server: Server) -> Check:
    """Only a primary takes writes."""
    if server.is_standby:
        return fail(
            "primary",
            "this is a standby: nothing can be enqueued or run",
            "Name all hosts in DATABASE_URL, with target_session_attrs=read-write.",
        )
    if server.is_read_only:
        return fail(
            "primary",
            "transactions are read-only here",
            "Check default_transaction_read_only of the server, database and role.",
        )
    return ok("primary", "takes writes")


def durability(server: Server) -> Check:
    """A commit must be on disk, or "enqueued" is not a promise."""
    off = [n for n in ("fsync", "full_page_writes") if server.settings.get(n) == "off"]
    if off:
        return warn(
            "durability",
            f"{' and '.join(off)} off: a crash of the host can destroy the whole database",
            "Fit for tests only; turn it on.",
        )
    if server.settings.get("synchronous_commit") == "off":
        return warn(
            "durability",
            "synchronous_commit is off: a crash of the server loses the jobs and results of the"
            " last half second",
            "Set it to on, for enrichd's role at least.",
        )
    return ok("durability", "commits are on disk")


def timeouts(server: Server) -> Check:
    """Timeouts that cut enrichd's own work."""
    least = {
        "statement_timeout": TIMEOUT_MS_MIN,
        "transaction_timeout": TIMEOUT_MS_MIN,
        "lock_timeout": IDLE_TIMEOUT_MS_MIN,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT_MS_MIN,
    }
    short = []
    for name, limit_ms in least.items():
        value_ms = int(server.settings.get(name, "0"))
        if 0 < value_ms < limit_ms:
            short.append(f"{name} is {seconds(value_ms / 1000)}")
    if short:
        return warn(
            "timeouts",
            f"{', '.join(short)}: migrations, pruning or a slow claim may be cut off",
            "Raise it for enrichd's role: alter role … set … = '1min'.",
        )
    return ok("timeouts", "none that would cut enrichd off")


def connections(server: Server, settings: Settings) -> Check:
    """Room for the daemons' connections."""
    reserved = ("superuser_reserved_connections", "reserved_connections")
    limit = int(server.settings.get("max_connections", "100"))
    limit -= sum(int(server.settings.get(name, "0")) for name in reserved)
    left = limit - server.connections
    needed = 2 * settings.worker_max_count + 5
    message = f"{server.connections:,} of {limit:,} taken"
    if left <= 0:
        return fail("connections", message, "Use a pooler, or raise max_connections.")
    if server.connections > CONNECTIONS_SHARE_MAX * limit or left < needed:
        return warn(
            "connections",
            f"{message}; a daemon with these settings takes about {needed}",
            "Use a pooler, run fewer workers, or raise max_connections.",
        )
    return ok("connections", message)


def autovacuum(server: Server) -> Check:
    """Without it the tables grow and claims slow down."""
    off = [name for name in ("autovacuum", "track_counts") if server.settings.get(name) == "off"]
    if off:
        return warn(
            "autovacuum",
            f"{' and '.join(off)} off: dead rows pile up and every statement slows down",
            "Turn it on, or run vacuum every few minutes.",
        )
    return ok("autovacuum", "on")


def memory(server: Server) -> Check:
    """The hot part of the queue should fit into the server's cache."""
    size = int(server.settings.get("shared_buffers", "0"))
    message = f"shared_buffers is {size >> 20} MiB"
    if 0 < size < SHARED_BUFFERS_MIN:
        return warn("memory", message, "A quarter of the server's memory is usual.")
    return ok("memory", message)


def wraparound(server: Server) -> Check:
    """Transaction ids run out when nothing is frozen."""
    message = f"{server.xid_age:,} transactions since the oldest frozen row"
    if server.xid_age > XID_AGE_STOP:
        return fail(
            "wraparound",
            f"{message}: PostgreSQL will soon take no more writes",
            "Run vacuum (freeze) now, and look for what holds it back.",
        )
    if server.xid_age > XID_AGE_MAX:
        return warn("wraparound", message, "Autovacuum does not keep up; run vacuum (freeze).")
    return ok("wraparound", message)


def pooler(server: Server, settings: Settings) -> Check:
    """What stands between, and whether enrichd knows of it."""
    is_between = server.backend_pid != server.client_pid
    if settings.is_pooler:
        if settings.database_direct_url is None:
            return warn(
                "pooler",
                "DATABASE_URL leads to a pooler and there is no DATABASE_DIRECT_URL: workers"
                " poll, hints do not reach them",
                "Set DATABASE_DIRECT_URL to the server itself (port 5432).",
            )
        return ok("pooler", "in between; LISTEN goes to DATABASE_DIRECT_URL")
    if is_between:
        return warn(
            "pooler",
            "a pooler is in between, on a port by which enrichd does not know it",
            "Give it port 6432 or 6543, or session mode; else prepared statements get lost.",
        )
    return ok("pooler", "none: a direct connection")


def skew(clock: Clock) -> Check:
    """Compare this host's clock with the database's."""
    sure_s = max(abs(clock.ahead_s) - clock.round_trip_s / 2, 0.0)
    where = "behind" if clock.ahead_s > 0 else "ahead of"
    message = f"this host is {seconds(abs(clock.ahead_s))} {where} the database"
    hint = "Run a time service (chrony, systemd-timesyncd) on both hosts."
    if sure_s > SKEW_S_TOLERATED_MAX:
        return fail("clock_skew", f"{message}: receivers refuse the signatures of webhooks", hint)
    if sure_s > SKEW_S_MAX:
        return warn(
            "clock_skew", f"{message}; due times go by the database's clock, logs do not", hint
        )
    return ok("clock_skew", message if sure_s else "the clocks agree")


def horizon_checks(horizon: Horizon) -> Iterator[Check]:
    """Judge who keeps dead rows from being removed."""
    limited = "" if horizon.sees_all else " (only this role's sessions are visible)"
    yield transactions(horizon, limited)
    if horizon.slot_age > SNAPSHOT_AGE_MAX:
        yield warn(
            "replication_slots",
            f"slot {horizon.slot} holds rows back since {horizon.slot_age:,} transactions",
            "Bring its consumer back, or drop it: select pg_drop_replication_slot('…').",
        )
    else:
        yield ok("replication_slots", "none holds rows back")
    if horizon.prepared is not None and (horizon.prepared_s or 0.0) > PREPARED_S_MAX:
        yield warn(
            "prepared_transactions",
            f"{horizon.prepared} is prepared since {seconds(horizon.prepared_s)} and holds its"
            " locks",
            "End it: commit prepared '…' or rollback prepared '…'.",
        )
    else:
        yield ok("prepared_transactions", "none forgotten")


def transactions(horizon: Horizon, limited: str) -> Check:
    """Judge the oldest transaction and the oldest snapshot."""
    age_s = horizon.transaction_s
    if age_s is not None and age_s > TRANSACTION_S_MAX:
        who = horizon.transaction_application or "a session without application_name"
        return warn(
            "transactions",
            f"process {horizon.transaction_pid} ({who}) is in a transaction since {seconds(age_s)}"
            f" ({horizon.transaction_state}): rows it may need are not removed",
            f"select pg_terminate_backend({horizon.transaction_pid});",
        )
    if horizon.snapshot_age > SNAPSHOT_AGE_MAX:
        return warn(
            "transactions",
            f"a session's snapshot is {horizon.snapshot_age:,} transactions old{limited}",
            "Find it in pg_stat_activity by age(backend_xmin).",
        )
    return ok("transactions", f"the oldest is {seconds(age_s)} old{limited}" if age_s else "none")


def table_checks(tables: Sequence[Table]) -> Iterator[Check]:
    """Judge dead rows and vacuum of enrichd's tables."""
    bloated = [
        table
        for table in tables
        if table.dead > DEAD_MIN and table.dead > DEAD_SHARE_MAX * max(table.live, 1)
    ]
    for table in bloated:
        vacuumed = (
            f"vacuumed {seconds(table.vacuumed_s)} ago" if table.vacuumed_s else "never vacuumed"
        )
        yield warn(
            "dead_rows",
            f"{table.name}: {table.dead:,} dead beside {table.live:,} live rows, {vacuumed}",
            f"vacuum {table.name}; if it does not help, something holds the rows back: see"
            " transactions.",
        )
    if not bloated:
        dead = sum(table.dead for table in tables)
        size = sum(table.size_bytes for table in tables)
        yield ok("dead_rows", f"{dead:,} in all; the tables have {size / GIB:.2f} GiB")
    stopped = [table.name for table in tables if not table.has_autovacuum]
    if stopped:
        yield warn(
            "table_autovacuum",
            f"autovacuum is off for {', '.join(stopped)}",
            "alter table … reset (autovacuum_enabled);",
        )


def migrations(missing: Sequence[int], unknown: Sequence[int]) -> Check:
    """Judge how far the tables are."""
    if missing:
        shown = ", ".join(f"{number:04d}" for number in missing)
        return fail("migrations", f"missing: {shown}", "Run: enrichctl db migrate")
    if unknown:
        return warn(
            "migrations",
            "the database is ahead of this version of enrichd",
            "Update enrichd on this host.",
        )
    return ok("migrations", "up to date")


def indexes(broken: Mapping[str, bool]) -> Check:
    """Judge enrichd's indexes: True is there but not valid, False is missing."""
    if broken:
        shown = ", ".join(f"{n} {'is not valid' if b else 'is missing'}" for n, b in broken.items())
        return fail(
            "indexes",
            f"{shown}: claims read whole tables",
            "reindex index concurrently …; one that is missing stands in enrichd/store/migrations.",
        )
    return ok("indexes", "all there and valid")


def listening(heard_s: float | None) -> Check:
    """Judge a LISTEN that was notified."""
    if heard_s is None:
        return warn(
            "listen",
            "a NOTIFY was not heard: new jobs wait for the next poll",
            "DATABASE_DIRECT_URL must lead to the same database, past any pooler.",
        )
    return ok("listen", f"a NOTIFY was heard after {heard_s * 1000:.1f} ms")
