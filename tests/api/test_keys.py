"""The gate: who gets in, what the others are told, and how soon a change is felt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrichd.api.failed_attempts import BURST, FailedAttempts, network_of
from enrichd.api.keys import FRESH_S, KeyGate
from enrichd.api.messages import Request
from enrichd.api.problems import Problem
from enrichd.api.routing import Access
from enrichd.domain import api_keys as key_shape
from enrichd.domain.api_keys import hash_of, id_of, with_implied
from enrichd.domain.recent import Recent
from enrichd.store import api_keys
from enrichd.store.database import Connection, Database
from enrichd.store.tenancy import Tenants

SECRET = "a-cron-secret-of-some-length"


@dataclass(slots=True)
class Clock:
    """Time as a test wants it."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class CountingTenants(Tenants):
    """Counts how often somebody is looked up."""

    lookups = 0

    @asynccontextmanager
    async def of_nobody(self) -> AsyncIterator[Connection]:
        self.lookups += 1
        async with super().of_nobody() as conn:
            yield conn


@pytest.fixture
async def tenants(database_url: str) -> AsyncIterator[CountingTenants]:
    opened = CountingTenants(Database(database_url, name="test gate"), size=2)
    yield opened
    await opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(tenants: CountingTenants, clock: Clock) -> KeyGate:
    return KeyGate(tenants, SECRET, clock=clock)


async def a_key(conn: Connection, *scopes: str, workspace_id: str = "ours", **more: object) -> str:
    """Make a key and return it."""
    key = api_keys.new_key()
    await api_keys.insert(
        conn,
        key_id=id_of(key) or "",
        workspace_id=workspace_id,
        name="",
        key_hash=hash_of(key),
        scopes=scopes or ("write",),
        **more,  # type: ignore[arg-type]
    )
    return key


def showing(key: str, client: str = "192.0.2.1", scheme: str = "Bearer") -> Request:
    return Request("GET", "/x", headers={"authorization": f"{scheme} {key}"}, client=client)


async def refusal(gate: KeyGate, request: Request, access: Access = Access.READ) -> Problem:
    with pytest.raises(Problem) as caught:
        await gate.admit(request, access)
    return caught.value


async def test_a_key_says_its_workspace_and_what_it_may(gate, conn):
    key = await a_key(conn, "write", workspace_id="acme")

    principal, headers = await gate.admit(showing(key), Access.WRITE)

    assert principal is not None
    assert (principal.workspace_id, principal.key_id) == ("acme", id_of(key))
    assert principal.scopes == {"read", "write"}
    assert headers == {}


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer "])
async def test_the_schemes_name_is_read_as_http_says(gate, conn, scheme):
    principal, _ = await gate.admit(showing(await a_key(conn), scheme=scheme), Access.READ)
    assert principal is not None


@pytest.mark.parametrize(
    ("scope", "admitted"),
    [
        ("read", {Access.READ}),
        ("write", {Access.READ, Access.WRITE}),
        ("admin", {Access.READ, Access.WRITE, Access.ADMIN}),
    ],
)
async def test_a_scope_has_those_below_it_in_it(gate, conn, scope, admitted):
    request = showing(await a_key(conn, scope))
    for access in (Access.READ, Access.WRITE, Access.ADMIN):
        if access in admitted:
            await gate.admit(request, access)
        else:
            problem = await refusal(gate, request, access)
            assert (problem.status, problem.problem_code) == (403, "missing_scope")
            assert f'scope="{access}"' in problem.headers["WWW-Authenticate"]


async def test_without_a_key_the_answer_says_how_to_show_one(gate):
    for headers in ({}, {"authorization": "Basic eA=="}, {"authorization": "Bearer "}):
        problem = await refusal(gate, Request("GET", "/x", headers=headers))
        assert (problem.status, problem.problem_code) == (401, "missing_key")
        assert problem.headers["WWW-Authenticate"].startswith("Bearer")


async def test_every_bad_key_gets_the_same_words(gate, conn, tenants):
    revoked, expired, good = await a_key(conn), await a_key(conn), await a_key(conn)
    await api_keys.revoke(conn, workspace_id="ours", key_id=id_of(revoked) or "")
    await conn.execute(
        "update enrichment_api_keys set expires_at = now() where id = %s", [id_of(expired)]
    )
    same_id = key_shape.key_of(0, 7)[:4] + good[4:12] + key_shape.key_of(0, 7)[12:-6]
    forged = same_id + key_shape.check_of(same_id)
    assert id_of(forged) == id_of(good)
    told = {
        (problem.status, problem.message, problem.headers["WWW-Authenticate"])
        for key in (revoked, expired, forged, api_keys.new_key(), good[:-1] + "!", "x", "é" * 300)
        for problem in [await refusal(gate, showing(key))]
    }
    assert len(told) == 1
    assert next(iter(told))[0] == 401


async def test_what_is_no_key_is_never_looked_up(gate, tenants):
    wrong_check = api_keys.new_key()[:-1] + "?"
    for shown in (wrong_check, "hello", "enr_" + "0" * 58, "\udcff"):
        await refusal(gate, showing(shown))
    assert tenants.lookups == 0


async def test_a_busy_key_is_looked_up_once_in_a_while(gate, conn, tenants, clock):
    request = showing(await a_key(conn))
    for _ in range(50):
        await gate.admit(request, Access.READ)
    assert tenants.lookups == 1
    clock.now += FRESH_S
    await gate.admit(request, Access.READ)
    assert tenants.lookups == 2


async def test_a_revoked_key_is_refused_within_five_seconds(gate, conn, clock):
    key = await a_key(conn)
    await gate.admit(showing(key), Access.READ)
    await api_keys.revoke(conn, workspace_id="ours", key_id=id_of(key) or "")
    clock.now += 5.0
    assert (await refusal(gate, showing(key))).status == 401
    assert FRESH_S <= 5.0


async def test_a_key_that_expires_is_refused_on_time_though_it_is_known(gate, conn, clock):
    key = await a_key(conn, keep_s=2.0)
    await gate.admit(showing(key), Access.READ)
    await conn.execute("update enrichment_api_keys set expires_at = now()")
    clock.now += 2.0
    assert (await refusal(gate, showing(key))).status == 401


async def test_a_rotated_key_is_good_beside_its_heir_for_the_overlap(gate, conn, clock):
    old, new = await a_key(conn), api_keys.new_key()
    await api_keys.rotate(
        conn,
        workspace_id="ours",
        key_id=id_of(old) or "",
        new_id=id_of(new) or "",
        key_hash=hash_of(new),
        overlap_s=60.0,
    )
    await gate.admit(showing(old), Access.WRITE)
    await gate.admit(showing(new), Access.WRITE)
    await conn.execute(
        "update enrichment_api_keys set expires_at = expires_at - interval '61 s' where id = %s",
        [id_of(old)],
    )
    clock.now += FRESH_S
    await refusal(gate, showing(old))
    await gate.admit(showing(new), Access.WRITE)


async def test_use_is_written_down_once_a_minute(gate, conn, clock):
    request = showing(await a_key(conn))

    async def last_used() -> object:
        cursor = await conn.execute("select last_used_at from enrichment_api_keys")
        return (await cursor.fetchone() or [None])[0]

    await gate.admit(request, Access.READ)
    first = await last_used()
    assert first is not None
    clock.now += FRESH_S
    await gate.admit(request, Access.READ)
    assert await last_used() == first
    await conn.execute(
        "update enrichment_api_keys set last_used_at = last_used_at - interval '61 s'"
    )
    clock.now += FRESH_S
    await gate.admit(request, Access.READ)
    assert await last_used() > first  # type: ignore[operator]


async def test_too_many_bad_keys_of_one_address_cost_no_look_up_and_hurt_no_known_caller(
    gate, conn, tenants, clock
):
    known, strange = await a_key(conn), await a_key(conn)
    await gate.admit(showing(known), Access.READ)
    for _ in range(BURST):
        assert (await refusal(gate, showing(api_keys.new_key()))).status == 401
    before = tenants.lookups

    late = await refusal(gate, showing(api_keys.new_key()))
    assert (late.status, late.headers["Retry-After"]) == (429, "2")
    assert (await refusal(gate, showing(strange))).status == 429
    assert tenants.lookups == before

    clock.now += FRESH_S / 4
    await gate.admit(showing(known), Access.READ)
    clock.now = clock.now - FRESH_S / 4
    await gate.admit(showing(strange, client="192.0.2.2"), Access.READ)
    clock.now += 2.0
    await gate.admit(showing(strange), Access.READ)


async def test_the_same_bad_key_is_not_looked_up_again_and_again(gate, tenants):
    key = api_keys.new_key()
    for number in range(5):
        await refusal(gate, showing(key, client=f"192.0.2.{number}"))
    assert tenants.lookups == 1


async def test_a_flood_of_bad_keys_is_one_line_in_the_log_without_a_key(gate, capsys):
    for _ in range(BURST * 2):
        await refusal(gate, showing(api_keys.new_key()))
    logged = "".join(capsys.readouterr())
    assert logged.count("key_refused") == 1
    assert "enr_" not in logged


# Cron.


async def test_the_cron_secret_opens_its_routes_and_no_key_does(gate, conn):
    assert await gate.admit(showing(SECRET), Access.CRON) == (None, {})
    problem = await refusal(gate, showing(await a_key(conn, "admin")), Access.CRON)
    assert (problem.status, problem.problem_code) == (401, "invalid_secret")
    for wrong in (SECRET[:-1], SECRET + "x", SECRET.upper(), "é", "\udcff"):
        assert (await refusal(gate, showing(wrong), Access.CRON)).status == 401
    assert (await refusal(gate, Request("GET", "/x"), Access.CRON)).status == 401


@pytest.mark.parametrize("secret", [None, "", "short", "x" * 15])
async def test_without_a_cron_secret_its_routes_are_closed(tenants, secret):
    gate = KeyGate(tenants, secret)
    for shown in (secret or "", "", "anything"):
        problem = await refusal(gate, showing(shown), Access.CRON)
        assert (problem.status, problem.problem_code) == (503, "cron_secret_unset")


async def test_open_and_signed_routes_ask_for_no_key(gate):
    for access in (Access.OPEN, Access.SIGNED):
        assert await gate.admit(Request("GET", "/x"), access) == (None, {})


# The parts.


@given(st.integers(0, 62**8 - 1), st.integers(0, 2**256 - 1))
def test_a_key_is_known_by_its_shape_and_any_other_letter_breaks_it(number, secret):
    key = key_shape.key_of(number, secret)
    assert len(key) == 62
    assert id_of(key) == key[4:12]
    for place in (4, 13, 30, 55, 61):
        other = "x" if key[place] != "x" else "y"
        assert id_of(key[:place] + other + key[place + 1 :]) is None


@given(st.text(max_size=80))
def test_no_other_text_is_a_key(text):
    assert id_of(text) is None


def test_two_keys_are_never_one():
    assert len({api_keys.new_key() for _ in range(1000)}) == 1000


def test_scopes_that_are_unknown_give_nothing():
    assert with_implied([]) == frozenset()


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("x" * 500, "x" * 100),
    ],
)
def test_an_address_is_counted_as_what_one_caller_has(client, network):
    assert network_of(client) == network


def test_failures_come_back_one_in_two_seconds():
    clock = Clock()
    failed = FailedAttempts(clock=clock)
    logged = [failed.add("192.0.2.1") for _ in range(BURST)]
    assert logged == [True] + [False] * (BURST - 1)
    assert failed.wait_s("192.0.2.1") == 2.0
    assert failed.wait_s("192.0.2.2") == 0.0
    clock.now += 2.0
    assert failed.wait_s("192.0.2.1") == 0.0
    clock.now += 58.0
    assert failed.add("192.0.2.1")


def test_what_was_used_longest_ago_makes_room():
    recent: Recent[int, str] = Recent(2)
    recent.put(1, "a")
    recent.put(2, "b")
    assert recent.get(1) == "a"
    recent.put(3, "c")
    assert (len(recent), recent.get(1), recent.get(2), recent.get(3, "-")) == (2, "a", None, "c")
    recent.drop(1)
    recent.drop(1)
    assert recent.get(1, "gone") == "gone"
