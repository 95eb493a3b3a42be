"""`enrichctl keys`: a key is shown once, and what is kept of it opens nothing."""

import hashlib

import pytest

from enrichd.domain.api_keys import SHAPE, id_of


def created(enrichctl, *words):
    return enrichctl("keys", "create", *words, "--json").document


def test_a_key_stands_alone_on_standard_output(enrichctl, db):
    ended = enrichctl("keys", "create", "--name", "crm", "-w", "acme")

    key = ended.stdout.strip()
    assert ended.exit_code == 0
    assert SHAPE.fullmatch(key)
    assert key not in ended.stderr
    assert "not shown again" in ended.stderr
    assert db.execute(
        "select id, workspace_id, name, scopes, key_hash from enrichment_api_keys"
    ).fetchall() == [(id_of(key), "acme", "crm", ["write"], hashlib.sha256(key.encode()).digest())]


def test_the_table_holds_no_part_of_the_secret(enrichctl, db):
    key = created(enrichctl)["key"]
    [row] = db.execute("select key::text from enrichment_api_keys as key").fetchall()
    assert key[13:-6] not in row[0]
    assert key[13:23] not in row[0]


def test_with_json_the_key_is_in_the_one_document(enrichctl):
    document = created(enrichctl, "--scope", "read", "--expires", "90d", "-w", "acme")

    assert document["id"] == id_of(document["key"])
    assert (document["workspaceId"], document["scopes"], document["state"]) == (
        "acme",
        ["read"],
        "active",
    )
    assert document["expiresAt"] is not None


def test_the_list_shows_the_workspaces_own_keys_and_no_secret(enrichctl):
    ours, _ = created(enrichctl, "-w", "ours"), created(enrichctl, "-w", "theirs")

    ended = enrichctl("keys", "list", "--json", "-w", "ours")

    assert [line["id"] for line in ended.lines] == [ours["id"]]
    assert "key" not in ended.lines[0]
    assert ours["key"] not in ended.stdout
    assert ours["id"] in enrichctl("keys", "list", "-w", "ours").stdout


def test_an_empty_list_says_what_to_do(enrichctl):
    assert "enrichctl keys create" in enrichctl("keys", "list").stdout


@pytest.mark.parametrize("form", ["{}", "enr_{}"])
def test_a_revoked_key_stays_in_the_list(enrichctl, form):
    key = created(enrichctl)

    revoked = enrichctl("keys", "revoke", form.format(key["id"]), "--json").document
    again = enrichctl("keys", "revoke", key["id"], "--json").document

    assert revoked["state"] == "revoked"
    assert again["revokedAt"] == revoked["revokedAt"]
    assert [line["state"] for line in enrichctl("keys", "list", "--json").lines] == ["revoked"]


def test_a_rotated_key_has_an_heir_and_an_end(enrichctl):
    old = created(enrichctl, "--scope", "admin", "--name", "crm")

    new = enrichctl("keys", "rotate", old["id"], "--overlap", "7d", "--json").document

    assert new["rotatedFrom"] == old["id"]
    assert (new["scopes"], new["name"], new["expiresAt"]) == (["admin"], "crm", None)
    by_id = {line["id"]: line for line in enrichctl("keys", "list", "--json").lines}
    assert by_id[old["id"]]["state"] == "active"
    assert by_id[old["id"]]["expiresAt"] is not None


def test_without_overlap_the_old_key_ends_at_once_and_is_not_rotated_twice(enrichctl):
    old = created(enrichctl)
    enrichctl("keys", "rotate", old["id"], "--overlap", "0", "--json")

    again = enrichctl("keys", "rotate", old["id"])

    assert again.exit_code == 3
    states = {line["id"]: line["state"] for line in enrichctl("keys", "list", "--json").lines}
    assert states[old["id"]] == "expired"


@pytest.mark.parametrize("deed", ["revoke", "rotate"])
def test_another_workspaces_key_is_not_found(enrichctl, deed):
    theirs = created(enrichctl, "-w", "theirs")

    ended = enrichctl("keys", deed, theirs["id"], "-w", "ours", "--json")

    assert ended.exit_code == 3
    assert ended.error["code"] == "api_key_not_found"
    assert [
        line["state"] for line in enrichctl("keys", "list", "--json", "-w", "theirs").lines
    ] == ["active"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--expires", "30"], "write 30s"),
        (["--expires", "5s"], "at least 60s"),
        (["--scope", "root"], "read"),
        (["--name", "a\x1b[2Jb"], "printable"),
        (["--name", "x" * 101], "100"),
    ],
)
def test_what_is_wrong_is_named(enrichctl, words, told):
    ended = enrichctl("keys", "create", *words)
    assert ended.exit_code == 2
    assert told in ended.stderr
