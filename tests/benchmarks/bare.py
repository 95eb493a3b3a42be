"""What PostgreSQL alone can do: pgbench claims and completes in batches of 500 by two clients.

Once on enrichd's own table with its indexes, once on the least table a queue could have. Each
script is two statements that commit by themselves, so a batch costs two flushes, as a queue's would
that claims and records apart.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import psycopg

from enrichd.store.server_binaries import package_folders
from tests.benchmarks.figures import Figures
from tests.benchmarks.peers import peer, run
from tests.benchmarks.processes import database

BATCH = 500
CLIENTS = 2

OURS = """
\\set worker :client_id + 1
with picked as materialized (
    select id
      from enrichment_jobs
     where status = 'pending' and provider_id = '-' and priority = 3 and fair_rank >= 0
     order by fair_rank, id
     limit @batch
       for update skip locked
)
update enrichment_jobs as job
   set status = 'processing', attempts = job.attempts + 1, started_at = now(), updated_at = now(),
       worker_id = lpad(:worker::text, 32, '0')::uuid
 where job.id = any(array(select id from picked))
returning job.id, job.attempts, job.type, job.payload::text;
update enrichment_jobs
   set status = 'completed', result = '{}', completed_at = now(), updated_at = now()
 where status = 'processing' and worker_id = lpad(:worker::text, 32, '0')::uuid
returning id;
"""

LEAST_TABLE = """
create table least (
    id bigint primary key, state smallint not null default 0, worker int, payload jsonb not null,
    result jsonb
) with (fillfactor = 85);
create index least_ready on least (id) where state = 0;
create index least_running on least (worker) where state = 1;
"""

LEAST = """
\\set worker :client_id + 1
with picked as materialized (
    select id from least where state = 0 order by id limit @batch for update skip locked
)
update least set state = 1, worker = :worker
 where id = any(array(select id from picked))
returning id, payload::text;
update least set state = 2, result = '{}' where state = 1 and worker = :worker returning id;
"""


def bare(admin_dsn: str, jobs: int, figures: Figures) -> None:
    """Measure both tables."""
    enrichd = peer("enrichd")
    with database(admin_dsn, enrichd) as dsn:
        run(enrichd.bulk(dsn, "empty", {}, jobs))  # type: ignore[arg-type]
        rate = jobs / pgbench(dsn, OURS, jobs)
        figures.add("drain, 2 workers", "pgbench, our table", rate, "jobs/s")
    with database(admin_dsn, enrichd) as dsn:
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute(LEAST_TABLE)  # type: ignore[arg-type]
            conn.execute(
                "insert into least (id, payload) select n, '{}' from generate_series(1, %s) as n",
                (jobs,),
            )
            conn.execute("vacuum analyze least")
        rate = jobs / pgbench(dsn, LEAST, jobs)
        figures.add("drain, 2 workers", "pgbench, least table", rate, "jobs/s")


def pgbench(dsn: str, script: str, jobs: int) -> float:
    """Return the seconds until two clients have done all jobs."""
    turns = -(-jobs // (BATCH * CLIENTS))
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script.replace("@batch", str(BATCH)))
        file.flush()
        done = subprocess.run(
            [program(), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", str(CLIENTS),
             "-t", str(turns), "-f", file.name, dsn],
            check=True, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
    tps = next(line for line in done.stdout.splitlines() if line.startswith("tps = "))
    return turns * CLIENTS / float(tps.split()[2])


def program() -> Path:
    """Return pgbench: the package's, or a system's."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    for folder in [*package_folders(), *reversed(debian)]:
        if (folder / "pgbench").exists():
            return folder / "pgbench"
    raise FileNotFoundError("pgbench")
