"""Workspaces' own keys: sealed in the table, found by their workspace alone, sealed anew."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path

import pytest
from psycopg import sql
from pydantic import SecretStr

from enrichd.domain.lead_results import LeadResult
from enrichd.domain.leads import lead_from
from enrichd.domain.payloads import EnrichmentType, LeadInput
from enrichd.errors import Invalid, InvalidSetting
from enrichd.providers import keyring
from enrichd.providers.calls import Calls
from enrichd.providers.client import common_limits
from enrichd.providers.keyring import Keyring, Rotation, rotate, set_key
from enrichd.providers.suppressions import Suppressions
from enrichd.providers.waterfall import Search, enrich_lead
from enrichd.settings import Settings
from enrichd.store import provider_keys, provider_state
from enrichd.store.database import Connection, Database
from enrichd.store.installation import Installation
from enrichd.store.sealing import Sealer, Unreadable
from tests.support.sharing import CountingProvider, sharing_providers

OLD, NEW = b"o" * 32, b"n" * 32
KEY = "hk_live_0123456789abcdef"


def secrets(**keys: bytes) -> str:
    return ",".join(f"{name}:{base64.b64encode(key).decode()}" for name, key in keys.items())


def settings_with(tmp_path: Path, **keys: bytes) -> Settings:
    env = {"HUNTER_API_KEY": "common"} | ({"ENRICHD_SECRET_KEYS": secrets(**keys)} if keys else {})
    return Settings.load(env, directory=tmp_path)


def keyring_of(database: Database, settings: Settings, *, keep_s: float = 30.0) -> Keyring:
    installation = Installation(database, settings)
    return Keyring(database, installation, settings.provider, keep_s=keep_s)


async def bring(
    conn: Connection, workspace: str = "acme", provider: str = "hunter", key: str = KEY, **by: bytes
) -> bool:
    """Keep a key that was sealed by the given secret, by default `old`."""
    sealer = Sealer(by or {"old": OLD})
    return await set_key(conn, sealer, workspace_id=workspace, provider_id=provider, key=key)


async def rows(conn: Connection) -> list[tuple[str, bytes]]:
    cursor = await conn.execute(
        "select sealed_with, sealed from enrichment_provider_keys"
        " order by workspace_id, provider_id"
    )
    return [(name, bytes(sealed)) for name, sealed in await cursor.fetchall()]


async def test_a_workspace_asks_with_its_own_key_and_everybody_else_with_the_common_one(
    database, tmp_path
):
    async with database.connection() as conn:
        assert await bring(conn) is True
    ring = keyring_of(database, settings_with(tmp_path, old=OLD))

    own, settings = await ring.settings_for("hunter", "acme")
    common, common_settings = await ring.settings_for("hunter", "other")
    assert (await ring.settings_for("apollo", "acme"))[0] == "apollo"

    assert (own, settings.api_key) == ("hunter#acme", SecretStr(KEY))
    assert (common, common_settings.api_key) == ("hunter", SecretStr("common"))


async def test_the_table_has_no_trace_of_the_key_but_its_last_four_characters(conn):
    await bring(conn)
    await bring(conn, provider="apollo", key="short")

    cursor = await conn.execute("select k::text, hint from enrichment_provider_keys k order by 2")
    short, long = await cursor.fetchall()

    assert (short[1], long[1]) == ("", "cdef")
    assert KEY.encode().hex() not in long[0]
    assert KEY[:8] not in long[0]
    assert "short" not in short[0]


@pytest.mark.parametrize("column", ["workspace_id", "provider_id"])
async def test_a_sealed_key_does_not_open_in_another_row(database, tmp_path, column):
    async with database.connection() as conn:
        await bring(conn)
        await conn.execute(
            sql.SQL("update enrichment_provider_keys set {} = 'moved'").format(
                sql.Identifier(column)
            )
        )
    ring = keyring_of(database, settings_with(tmp_path, old=OLD))
    provider, workspace = ("hunter", "moved") if column == "workspace_id" else ("moved", "acme")

    with pytest.raises(Unreadable, match=f"workspace {workspace} for {provider}"):
        await ring.settings_for(provider, workspace)


@pytest.mark.parametrize("there", [{}, {"old": NEW}, {"other": OLD}])
async def test_a_key_that_cannot_be_opened_is_said_and_never_replaced_by_the_common_one(
    database, tmp_path, there
):
    async with database.connection() as conn:
        await bring(conn)
    ring = keyring_of(database, settings_with(tmp_path, **there))

    for _ in range(2):
        with pytest.raises(Unreadable) as caught:
            await ring.settings_for("hunter", "acme")

    assert "ENRICHD_SECRET_KEYS" in f"{caught.value.message} {caught.value.hint}"
    assert KEY not in f"{caught.value.message} {caught.value.hint}"
    assert (await ring.settings_for("apollo", "acme"))[0] == "apollo"


async def test_without_secret_keys_nothing_is_kept(database, tmp_path):
    sealer = await Installation(database, settings_with(tmp_path)).sealer()

    async with database.connection() as conn:
        with pytest.raises(InvalidSetting, match="ENRICHD_SECRET_KEYS is not set"):
            await set_key(conn, sealer, workspace_id="a", provider_id="hunter", key=KEY)
        assert await rows(conn) == []


@pytest.mark.parametrize("key", ["", "two words", "new\nline", "x" * 1025, "schlüssel"])
async def test_what_cannot_be_a_key_is_refused_and_not_repeated(conn, key):
    with pytest.raises(Invalid) as caught:
        await bring(conn, key=key)

    assert not key or key not in caught.value.message


async def test_a_new_key_takes_the_place_of_the_old_one_at_once_or_when_it_is_forgotten(
    database, tmp_path
):
    settings = settings_with(tmp_path, old=OLD)
    known, forgetful = keyring_of(database, settings), keyring_of(database, settings, keep_s=0.0)
    async with database.connection() as conn:
        await bring(conn)
    for ring in (known, forgetful):
        await ring.settings_for("hunter", "acme")

    async with database.connection() as conn:
        assert await bring(conn, key="hk_live_second_0000001") is False
    (_, kept), (_, new) = [await ring.settings_for("hunter", "acme") for ring in (known, forgetful)]
    async with database.connection() as conn:
        assert await provider_keys.delete(conn, workspace_id="acme", provider_id="hunter")
    assert (await forgetful.settings_for("hunter", "acme"))[0] == "hunter"

    assert kept.api_key == SecretStr(KEY)
    assert new.api_key == SecretStr("hk_live_second_0000001")


async def test_a_rotation_seals_every_key_anew_in_batches_and_leaves_what_it_cannot_open(
    database, tmp_path
):
    async with database.connection() as conn:
        for number in range(7):
            await bring(conn, workspace=f"w{number}")
        await bring(conn, workspace="w3", provider="apollo", lost=b"x" * 32)
        await bring(conn, workspace="w4", provider="apollo", new=NEW)
    both = Sealer({"new": NEW, "old": OLD})

    assert await rotate(database, both, batch=2) == Rotation(resealed=7, unreadable=1)
    assert await rotate(database, both, batch=2) == Rotation(resealed=0, unreadable=1)

    async with database.connection() as conn:
        assert sorted(name for name, _ in await rows(conn)) == ["lost", *["new"] * 8]
    # The old secret may go now.
    ring = keyring_of(database, settings_with(tmp_path, new=NEW))
    assert (await ring.settings_for("hunter", "w6"))[1].api_key == SecretStr(KEY)


async def test_a_rotation_that_was_cut_off_goes_on_where_it_stopped(database, monkeypatch):
    async with database.connection() as conn:
        for number in range(4):
            await bring(conn, workspace=f"w{number}")
    both, written = Sealer({"new": NEW, "old": OLD}), []
    reseal = provider_keys.reseal

    async def dies_at_the_third(conn, key):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(key)
        await reseal(conn, key)

    monkeypatch.setattr(keyring.provider_keys, "reseal", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        await rotate(database, both, batch=2)
    monkeypatch.undo()

    assert await rotate(database, both, batch=2) == Rotation(resealed=2)


async def test_a_workspace_s_lane_is_its_own_where_it_brings_its_own_key(conn):
    await bring(conn)

    asked = [("acme", "hunter"), ("acme", "apollo"), ("other", "hunter")]

    assert await provider_keys.lanes_of(conn, asked) == ["hunter#acme", "apollo", "hunter"]


async def test_the_limits_of_a_workspace_s_own_key_are_those_of_the_provider(database, tmp_path):
    async with database.connection() as conn:
        await bring(conn)
    ring = keyring_of(database, settings_with(tmp_path, old=OLD))

    _, settings = await ring.settings_for("hunter", "acme")

    assert settings.rate_limit_per_minute == common_limits("hunter").rate_limit_per_minute


async def test_a_job_whose_key_does_not_open_goes_on_to_the_next_provider(database_url, tmp_path):
    ours, next_one = CountingProvider("ours"), CountingProvider("next")
    lead = lead_from(LeadInput(email="ada@acme.com", full_name="Ada Quill"), "1")
    async with sharing_providers(database_url, ours, next_one) as providers:
        shared = providers.shared
        assert shared is not None
        async with shared.database.connection() as conn:
            await bring(conn, workspace="acme", provider="ours")
        installation = Installation(shared.database, settings_with(tmp_path, other=NEW))
        ring = Keyring(shared.database, installation, providers.connections.settings_of)
        nobody = Suppressions(shared.database, installation)
        providers.shared = dataclasses.replace(shared, keyring=ring, suppressions=nobody)
        search = Search(types=[EnrichmentType.PERSON], order=("ours", "next"))

        result = await enrich_lead(lead, search, Calls(providers, workspace_id="acme"))

    assert isinstance(result, LeadResult)
    skipped = {(call.provider, call.skip_reason) for call in result.calls if call.skip_reason}
    assert ("ours", "key_unreadable") in skipped
    assert (ours.asked, len(next_one.asked)) == ([], 1)


async def test_a_new_key_is_not_kept_waiting_for_what_the_old_one_was_refused(conn):
    for credential in ("hunter#acme", "hunter"):
        await provider_state.open_breaker(
            conn, credential=credential, reason="401", trouble="denied", open_s=3600
        )

    await bring(conn)

    found = await conn.execute(
        "select provider_id, extract(epoch from opened_for)::int from enrichment_provider_state"
        " order by 1"
    )
    assert await found.fetchall() == [("hunter", 3600), ("hunter#acme", 60)]
