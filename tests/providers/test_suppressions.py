"""Who wants to be left alone is found by any spelling of his address, in one workspace or all."""

from __future__ import annotations

import asyncio

import pytest

from enrichd.errors import Unavailable
from enrichd.providers.suppressions import Suppressions, hashes_of
from enrichd.settings import Settings
from enrichd.store.database import Database
from enrichd.store.installation import Installation


@pytest.fixture
def make(database, tmp_path):
    """Give `make(**options)`: one process's view."""

    def suppressions(**options):
        installation = Installation(database, Settings.load({}, directory=tmp_path))
        return Suppressions(database, installation, **options)

    return suppressions


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("ada@acme.com", "Ada@ACME.com"),
        ("ada@acme.com", " <mailto:ada@acme.com> "),
        ("a.da+news@gmail.com", "ada@googlemail.com"),
        ("ada@gmail.com", "A.D.A+x@gmail.com"),
        ("ada@bücher.de", "ada@xn--bcher-kva.de"),
        ("not an address", "NOT AN ADDRESS"),
    ],
)
async def test_any_spelling_of_the_address_is_the_person(make, given, asked):
    await make().add("acme", given, "by_hand")

    assert await make().is_suppressed("acme", asked)
    assert await make().is_suppressed("acme", "somebody@else.com", asked)


async def test_others_and_other_workspaces_are_not_meant(make):
    await make().add("acme", "ada@acme.com", "erased")

    seen = make()
    assert not await seen.is_suppressed("acme", "bob@acme.com", "ada+x@acme.com", "xada@acme.com")
    assert not await seen.is_suppressed("other", "ada@acme.com")
    assert not await seen.is_suppressed("acme")


async def test_a_suppression_for_all_workspaces_counts_in_each(make):
    seen = make()
    assert not await seen.is_suppressed("acme", "ada@acme.com")

    await seen.add("*", "ada@acme.com", "opted_out", "hunter")

    for workspace in ("acme", "other", "*"):
        assert await seen.is_suppressed(workspace, "ada@acme.com")


async def test_the_table_holds_hashes_keyed_with_the_installation_s_pepper(make, database):
    await make().add("acme", "a.da@gmail.com", "opted_out", "hunter")
    await make().add("acme", "a.da@gmail.com", "erased")

    async with database.connection() as conn:
        cursor = await conn.execute(
            "select s::text, reason, provider_id, email_hmac, pepper"
            " from enrichment_suppressions s, enrichment_installation order by email_hmac"
        )
        kept = await cursor.fetchall()

    assert "gmail" not in str(kept)
    assert {row[1:3] for row in kept} == {("erased", "hunter")}
    assert [bytes(row[3]) for row in kept] == sorted(hashes_of(kept[0][4], "a.da@gmail.com"))
    assert hashes_of(b"another pepper", "a.da@gmail.com") != hashes_of(kept[0][4], "a.da@gmail.com")


async def test_who_was_erased_is_not_made_a_mere_opt_out_again(make, database):
    await make().add("acme", "ada@acme.com", "erased")
    await make().add("acme", "ada@acme.com", "opted_out", "hunter")

    async with database.connection() as conn:
        cursor = await conn.execute("select distinct reason from enrichment_suppressions")
        assert await cursor.fetchall() == [("erased",)]


async def test_a_process_learns_of_another_s_suppression_when_its_memory_ends(make):
    forgetful, remembering = make(wanted_s=0.0), make(wanted_s=300.0)
    for one in (forgetful, remembering):
        assert not await one.is_suppressed("acme", "ada@acme.com")

    await make().add("acme", "ada@acme.com", "erased")

    assert await forgetful.is_suppressed("acme", "ada@acme.com")
    assert not await remembering.is_suppressed("acme", "ada@acme.com")


async def test_a_thousand_leads_cost_a_few_statements_and_bounded_memory(make):
    seen = make(known_max=100)
    await seen.is_suppressed("acme", "warm@up.com")
    before = seen._look_ups.statements

    texts = [f"lead{number}@acme.com" for number in range(1000)]
    found = await asyncio.gather(*(seen.is_suppressed("acme", text) for text in texts))

    assert not any(found)
    assert seen._look_ups.statements - before <= 12
    assert len(seen._known) == 100


async def test_while_postgresql_is_away_nobody_is_taken_for_one_who_may_be_asked_about(tmp_path):
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    installation = Installation(away, Settings.load({}, directory=tmp_path))

    with pytest.raises(Unavailable):
        await Suppressions(away, installation).is_suppressed("acme", "ada@acme.com")
