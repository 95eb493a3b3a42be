"""Jobs of a workspace that brings its own key stand in a lane of their own, however they came.

Its key has limits and a breaker of its own: what throttles others must not hold it up.
"""

from __future__ import annotations

from typing import Any

import pytest

from enrichd.domain.jobs import NewJob
from enrichd.store import provider_keys, provider_state
from enrichd.store.provider_keys import ProviderKey
from enrichd.store.relaning import relane
from enrichd.store.sealing import Sealed
from tests.support.factories import columns_of

pytestmark = pytest.mark.queue


@pytest.fixture
async def keyed(conn):
    """Let the workspace `acme` have a key for hunter."""
    await provider_keys.put(conn, ProviderKey("acme", "hunter", Sealed(b"x", "k1")))


def a_new_job(workspace_id: str, provider: str = "hunter", **options: Any) -> NewJob:
    lead = {"leadId": "7", "providerId": provider, "fallbackProviders": ["pdl", "hunter"]}
    return NewJob("single_lead_enrichment", lead, workspace_id=workspace_id, **options)


async def lanes(conn) -> dict[str, list[str]]:
    cursor = await conn.execute(
        "select workspace_id, array_agg(provider_id order by id) from enrichment_jobs group by 1"
    )
    return dict(await cursor.fetchall())


async def test_one_by_one(keyed, queue, conn):
    for workspace in ("acme", "other", "acme", "other"):
        await queue.enqueue(a_new_job(workspace))
    await queue.enqueue(a_new_job("acme", "pdl"))

    assert await lanes(conn) == {"acme": ["hunter#acme"] * 2 + ["pdl"], "other": ["hunter"] * 2}


@pytest.mark.parametrize("is_keyed", [False, True])
async def test_in_bulk(keyed, queue, conn, is_keyed):
    jobs = [
        a_new_job(workspace, idempotency_key=f"{workspace} {number}" if is_keyed else None)
        for number in range(3)
        for workspace in ("acme", "other")
    ]

    await queue.enqueue_many(jobs)

    assert await lanes(conn) == {"acme": ["hunter#acme"] * 3, "other": ["hunter"] * 3}
    ranks = await conn.execute(
        "select provider_id, array_agg(fair_rank order by fair_rank)"
        " from enrichment_jobs group by 1"
    )
    assert dict(await ranks.fetchall()) == {"hunter": [1, 2, 3], "hunter#acme": [1, 2, 3]}
    claimable = await conn.execute("select provider_id from enrichment_lanes order by 1")
    assert [name for (name,) in await claimable.fetchall()] == ["hunter", "hunter#acme"]


async def test_from_sql(keyed, conn):
    for workspace in ("acme", "other"):
        await conn.execute(
            "select enrichment_enqueue('single_lead_enrichment', '{\"providerId\": \"hunter\"}',"
            " workspace_id => %s)",
            [workspace],
        )

    assert await lanes(conn) == {"acme": ["hunter#acme"], "other": ["hunter"]}


async def test_a_fallback_leads_into_the_workspaces_own_lane(keyed, queue, conn):
    jobs = {one: await queue.enqueue(a_new_job(one, "pdl")) for one in ("acme", "other")}
    for one in jobs.values():
        await conn.execute(
            'update enrichment_jobs set payload = payload || \'{"fallbackProviders": ["hunter"]}\''
            " where id = %s",
            [one.id],
        )
    await provider_state.open_breaker(conn, credential="pdl", reason="down", open_s=60)
    await provider_state.open_breaker(conn, credential="hunter", reason="denied", open_s=60)

    await relane(conn)

    # The common key is broken, the one that acme brought is not.
    assert (await columns_of(conn, jobs["acme"].id))["provider_id"] == "hunter#acme"
    assert (await columns_of(conn, jobs["other"].id))["provider_id"] == "pdl"
