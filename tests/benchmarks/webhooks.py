"""Webhook deliveries a second to a fast receiver while another hangs, and what bounds them."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import psycopg

from enrichd.housekeeper.deliveries import deliverer_of
from enrichd.settings import Settings
from enrichd.store.database import Database
from enrichd.store.sealing import sealer_of
from enrichd.webhooks import endpoints
from enrichd.webhooks.targets import Guard
from tests.benchmarks.figures import Figures
from tests.benchmarks.peers import peer
from tests.benchmarks.processes import database
from tests.support.receivers import LOOPBACK

ROOT = Path(__file__).parents[2]
HANGING = 2_000
GIVEN_UP_S = 120.0
ALLOWED = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"}

# A receiver in a process of its own that answers as fast as asyncio can, so that it measures the
# sender; every path that begins with /hang gets no answer.
RECEIVER = """
import asyncio, sys
import uvloop

ANSWER = b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok"

class Receiver(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.data = transport, b""
    def data_received(self, data):
        self.data += data
        while True:
            head, found, rest = self.data.partition(b"\\r\\n\\r\\n")
            if not found:
                return
            length = int(head.lower().partition(b"content-length:")[2].split(b"\\r\\n")[0])
            if len(rest) < length:
                return
            self.data = rest[length:]
            if not head.startswith(b"POST /hang"):
                self.transport.write(ANSWER)

async def main():
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

uvloop.run(main())
"""

FILL = """
    insert into enrichment_webhook_deliveries (workspace_id, webhook_id, target, event, data)
    select workspace_id, id, id::text, 'job.completed',
           jsonb_build_object('jobId', id, 'type', 'email_validation', 'status', 'completed',
                              'attempt', 1, 'result', jsonb_build_object('email', 'a@example.com'))
      from enrichment_webhooks, generate_series(1, %(count)s)
     where url = %(url)s
"""


def webhooks(admin_dsn: str, deliveries: int, figures: Figures) -> None:
    """Deliver so many to a fast receiver while another holds on to all it can."""
    with (
        database(admin_dsn, peer("enrichd")) as dsn,
        subprocess.Popen(
            [sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as receiver,
    ):
        assert receiver.stdout is not None
        base = f"http://127.0.0.1:{int(receiver.stdout.readline())}"
        try:
            seconds, cpu_s = asyncio.run(deliver(dsn, base, deliveries))
        finally:
            receiver.kill()
    figures.add("webhooks, one hanging", "enrichd", deliveries / seconds, "deliveries/s")
    figures.add("webhooks, sender's CPU", "enrichd", 100 * cpu_s / seconds, "% of a core")


async def deliver(dsn: str, base: str, count: int) -> tuple[float, float]:
    """Return the seconds until the last was recorded, and the processor time they took here."""
    settings = Settings.load({**ALLOWED, "DATABASE_URL": dsn}, directory=Path(os.devnull).parent)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        sealer = sealer_of(settings, bytes(32))
        async with conn.cursor() as cursor:
            await cursor.execute("update enrichment_installation set pepper = %s", (bytes(32),))
        for path, rows in (("/fast", count), ("/hang", HANGING)):
            await endpoints.add(
                conn,
                sealer=sealer,
                guard=Guard(LOOPBACK),
                workspace_id="default",
                url=base + path,
            )
            await conn.execute(FILL, {"count": rows, "url": base + path})
        await conn.execute("vacuum analyze enrichment_webhook_deliveries")
        deliverer = deliverer_of(settings, Database(dsn, name="bench webhooks"))
        began, cpu_began = time.monotonic(), processor_s()
        task = asyncio.create_task(deliverer.run())
        left = count
        async with asyncio.timeout(GIVEN_UP_S):
            while left:
                await asyncio.sleep(0.05)
                row = await (
                    await conn.execute(
                        "select count(*) from enrichment_webhook_deliveries as delivery"
                        "  join enrichment_webhooks as hook on hook.id = delivery.webhook_id"
                        " where delivery.status = 'pending' and hook.url = %s",
                        (base + "/fast",),
                    )
                ).fetchone()
                assert row is not None
                left = row[0]
        took = time.monotonic() - began, processor_s() - cpu_began
        task.cancel()
        await asyncio.wait([task])
    return took


def processor_s() -> float:
    """Return the processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
