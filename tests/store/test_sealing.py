"""Secrets in the database open with the right key, for the right purpose, and nowhere else."""

from __future__ import annotations

import pytest

from enrichd.settings import Settings
from enrichd.store.sealing import Sealed, Sealer, Unreadable, sealer_of

OLD, NEW = b"o" * 32, b"n" * 32


def test_a_secret_comes_back_and_does_not_show():
    sealer = Sealer({"a": OLD})

    kept = sealer.seal("sk_live_1234", purpose="hunter acme")

    assert b"sk_live" not in kept.sealed
    assert kept.sealed != sealer.seal("sk_live_1234", purpose="hunter acme").sealed
    assert sealer.open(kept, purpose="hunter acme") == "sk_live_1234"


def test_a_seal_holds_for_its_own_row_and_key_only():
    sealer = Sealer({"a": OLD})
    kept = sealer.seal("secret", purpose="hunter acme")

    with pytest.raises(Unreadable):
        sealer.open(kept, purpose="hunter other")
    with pytest.raises(Unreadable):
        Sealer({"a": NEW}).open(kept, purpose="hunter acme")
    with pytest.raises(Unreadable, match="ENRICHD_SECRET_KEYS"):
        Sealer({"b": NEW}).open(kept, purpose="hunter acme")
    with pytest.raises(Unreadable):
        sealer.open(Sealed(kept.sealed[:5], "a"), purpose="hunter acme")


def test_the_first_key_seals_and_every_key_opens():
    kept = Sealer({"old": OLD}).seal("secret", purpose="p")
    rotated = Sealer({"new": NEW, "old": OLD})

    assert rotated.open(kept, purpose="p") == "secret"
    assert rotated.seal("secret", purpose="p").sealed_with == "new"


def test_without_keys_the_installation_s_own_seals(tmp_path):
    sealer = sealer_of(Settings.load({}, directory=tmp_path), b"pepper")

    assert sealer.sealing_key == "installation"
    assert sealer.open(sealer.seal("s", purpose="p"), purpose="p") == "s"
