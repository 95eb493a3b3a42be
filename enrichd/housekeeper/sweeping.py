"""The slow chores of the housekeeper: old workers, old jobs, tables that vacuum lags behind on."""

from __future__ import annotations

import asyncio

from enrichd.errors import Unavailable
from enrichd.logs import get_logger
from enrichd.settings import Settings
from enrichd.store import (
    answers,
    callbacks,
    credits,
    deliveries,
    incoming,
    orphans,
    prune,
    vacuum,
    workers,
)
from enrichd.store.database import Database

SWEEP_S = 60.0
# Bounds one turn of pruning: 20,000 jobs a minute.
PRUNE_BATCHES_MAX = 20
PRUNE_BATCH = 1_000

log = get_logger("housekeeper")


async def sweep_forever(database: Database, settings: Settings) -> None:
    """Sweep once a minute until cancelled."""
    place = orphans.Place()
    while True:
        await asyncio.sleep(SWEEP_S)
        try:
            await sweep(database, settings)
            await sweep_orphans(database, place)
        except Unavailable as error:
            log.debug("sweep_failed", reason=error.message)
        except Exception as error:
            log.error("sweep_broke", exc_info=error)


async def sweep(database: Database, settings: Settings) -> None:
    """Forget workers long dead, prune old jobs, and say where vacuum does not keep up."""
    async with database.connection() as conn:
        await workers.delete_dead(conn)
    await prune_old(database, ["completed"], settings.prune_completed_after_s)
    await prune_old(database, ["failed", "dead_letter", "cancelled"], settings.prune_failed_after_s)
    await prune_deliveries(database, settings.prune_webhooks_after_s)
    await prune_providers(database)
    await prune_incoming(database)
    async with database.connection() as conn:
        for table in await vacuum.behind(conn):
            log.warning(
                "vacuum_lags",
                table=table.table,
                dead_rows=table.dead_rows,
                live_rows=table.live_rows,
                oldest_transaction_s=table.oldest_transaction_s,
                hint="end the oldest transaction, or run VACUUM on the table",
            )


async def prune_old(database: Database, statuses: list[str], age_s: float) -> None:
    """Delete jobs that ended in these states more than `age_s` ago; 0 keeps them for ever."""
    if not age_s:
        return
    deleted = 0
    for _ in range(PRUNE_BATCHES_MAX):
        async with database.connection() as conn:
            count = await prune.prune(conn, statuses=statuses, age_s=age_s)
        deleted += count
        if count < prune.BATCH:
            break
    if deleted:
        log.info("jobs_pruned", jobs=deleted, statuses=statuses)


async def prune_deliveries(database: Database, age_s: float) -> None:
    """Forget what was said in webhooks that ended more than `age_s` ago; 0 keeps it for ever."""
    if not age_s:
        return
    for _ in range(PRUNE_BATCHES_MAX):
        async with database.connection() as conn:
            if await deliveries.prune(conn, age_s=age_s) < deliveries.PRUNE_BATCH:
                return


async def prune_incoming(database: Database) -> None:
    """Forget which webhooks came in more than a week ago."""
    for _ in range(PRUNE_BATCHES_MAX):
        async with database.connection() as conn:
            if await incoming.forget(conn) < incoming.FORGET_BATCH:
                return


async def prune_providers(database: Database) -> None:
    """Give up on answers that never came; forget kept answers, counters and use of long ago."""
    for forget in (callbacks.expire, answers.prune, credits.prune):
        for _ in range(PRUNE_BATCHES_MAX):
            async with database.connection() as conn:
                if await forget(conn, limit=PRUNE_BATCH) < PRUNE_BATCH:
                    break


async def sweep_orphans(database: Database, place: orphans.Place) -> None:
    """Delete some of the leads and attempts whose jobs are gone."""
    async with database.connection() as conn:
        rows = await orphans.sweep(conn, place)
    if rows:
        log.info("orphans_deleted", rows=rows)
