from __future__ import annotations

from decimal import Decimal

from enrichd.store import provider_standing, provider_state


async def test_credits_that_are_left_are_kept_by_credential_and_written_only_when_they_are_news(
    conn,
):
    for _ in range(2):
        await provider_standing.note_credits_left(
            conn, credential="hunter#acme", credits_left=Decimal("12.5")
        )
    await provider_standing.note_credits_left(conn, credential="pdl", credits_left=Decimal(3))

    found = await provider_standing.standings(conn, ["hunter#acme", "hunter", "pdl"])

    assert {name: one.credits_left for name, one in found.items()} == {
        "hunter#acme": Decimal("12.5"),
        "pdl": 3,
    }
    assert found["pdl"].credits_seen_at is not None
    assert found["pdl"].breaker == "closed"
    versions = await conn.execute(
        "select xmin::text::bigint, xmax::text::bigint from enrichment_provider_state"
        " where provider_id = 'hunter#acme'"
    )
    inserted, _ = await versions.fetchone()
    await provider_standing.note_credits_left(
        conn, credential="hunter#acme", credits_left=Decimal("12.5")
    )
    again = await conn.execute(
        "select xmin::text::bigint from enrichment_provider_state where provider_id = 'hunter#acme'"
    )
    assert await again.fetchone() == (inserted,)


async def test_a_breaker_that_was_opened_for_a_time_says_until_when(conn):
    await provider_state.set_by_hand(conn, credential="hunter", breaker="open", for_s=60.0)
    await provider_state.set_by_hand(conn, credential="pdl", breaker="open")

    found = await provider_standing.standings(conn, ["hunter", "pdl"])

    assert found["hunter"].open_until is not None
    assert found["pdl"].open_until is None
    assert found["pdl"].is_set_by_hand
