"""Whether vacuum keeps up with the tables of the queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from enrichd.store.database import Connection

# The statistics are estimates and cost nothing to read. The oldest transaction is what keeps vacuum
# from removing anything, whatever it does.
BEHIND: LiteralString = """
    select stat.relname, stat.n_dead_tup, stat.n_live_tup,
           (select extract(epoch from now() - min(xact_start))::float8
              from pg_stat_activity
             where xact_start is not null
               and pid <> pg_backend_pid()
               and datname = current_database())
      from pg_stat_user_tables as stat
     where stat.relname like 'enrichment!_%%' escape '!'
       and stat.n_dead_tup > %(dead_min)s
       and stat.n_dead_tup > stat.n_live_tup
       and coalesce(greatest(stat.last_autovacuum, stat.last_vacuum), '-infinity')
           < now() - make_interval(secs => %(age_s)s)
     order by stat.n_dead_tup desc
"""


@dataclass(frozen=True, slots=True)
class Behind:
    """A table with more dead rows than live ones that was not vacuumed lately."""

    table: str
    dead_rows: int
    live_rows: int
    oldest_transaction_s: float | None


async def behind(
    conn: Connection, *, dead_min: int = 100_000, age_s: float = 600.0
) -> list[Behind]:
    """Return the tables that vacuum does not keep up with, worst first."""
    cursor = await conn.execute(BEHIND, {"dead_min": dead_min, "age_s": age_s})
    return [Behind(*row) async for row in cursor]
