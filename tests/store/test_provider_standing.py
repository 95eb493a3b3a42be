from __future__ import annotations

from decimal import Decimal

from enrichd.store import provider_standing, provider_state


async def test_credits_that_are_left_are_kept_by_credential_and_written_only_when_they_are_news(
    conn,
):
    for _ in range(2):
        await provider_standing.note_credits_left(
            conn, credits_left={"hunter#acme": Decimal("12.5")}
        )
    await provider_standing.note_credits_left(conn, credits_left={"pdl": Decimal(3)})

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
    await provider_standing.note_credits_left(conn, credits_left={"hunter#acme": Decimal("12.5")})
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


async def test_a_provider_is_due_until_somebody_heard_what_is_left(conn):
    await provider_standing.note_credits_left(conn, credits_left={"hunter": Decimal(3)})
    names = ["hunter#acme", "hunter"]

    due = await provider_standing.due_for_credits(conn, credentials=names, older_than_s=60.0)
    await conn.execute(
        "update enrichment_provider_state set credits_seen_at = now() - interval '61 s'"
    )
    later = await provider_standing.due_for_credits(conn, credentials=names, older_than_s=60.0)

    assert (due, later) == (["hunter#acme"], ["hunter", "hunter#acme"])
