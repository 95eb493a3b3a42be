"""The least that FastAPI, uvicorn and psycopg need for the same two endpoints.

No keys, no tenants, no idempotency, no limits: a table, an insert and a select.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel

SCHEMA = """
    create table if not exists peer_jobs (
        id uuid primary key,
        type text not null,
        status text not null default 'pending',
        priority int not null default 3,
        payload jsonb not null,
        created_at timestamptz not null default now()
    )
"""
INSERT = """
    insert into peer_jobs (id, type, priority, payload) values (%s, %s, %s, %s)
    returning id, type, status, priority, payload, created_at
"""
SELECT = "select id, type, status, priority, payload, created_at from peer_jobs where id = %s"


class NewJob(BaseModel):
    """What is posted."""

    type: str
    payload: dict[str, Any]
    priority: int = 3


async def prepare(conn: Any) -> None:
    """Prepare every statement at its first use, as enrichd does."""
    conn.prepare_threshold = 0


pool = AsyncConnectionPool(
    os.environ["DATABASE_URL"],
    min_size=8,
    max_size=8,
    open=False,
    configure=prepare,
    kwargs={"autocommit": True, "row_factory": dict_row},
)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Open the pool."""
    async with pool:
        async with pool.connection() as conn:
            await conn.execute(SCHEMA)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/api/enrichment/jobs", status_code=201)
async def enqueue(job: NewJob) -> dict[str, Any]:
    """Insert a job."""
    async with pool.connection() as conn:
        values = (uuid.uuid4(), job.type, job.priority, Jsonb(job.payload))
        row = await (await conn.execute(INSERT, values)).fetchone()
    assert row is not None
    return dict(row)


@app.get("/api/enrichment/jobs/{job_id}")
async def show(job_id: uuid.UUID) -> dict[str, Any]:
    """Read a job."""
    async with pool.connection() as conn:
        row = await (await conn.execute(SELECT, (job_id,))).fetchone()
    if row is None:
        raise HTTPException(404)
    return dict(row)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", access_log=False)
