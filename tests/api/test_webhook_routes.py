"""Webhook endpoints over HTTP: add, change, remove, test, replay, and the log."""

from __future__ import annotations

import pytest

from tests.api.conftest import enqueued

NOBODYS = "01890a5d-ac96-774b-bcce-b302099a8057"
URL = "https://hooks.example.com/enrichd"


async def added(http, **fields):
    answer = await http.post("/webhooks", json={"url": URL, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_an_endpoint_is_added_and_its_secret_shown_once(http):
    made = await added(http, events=["job.completed"], description="CRM")

    assert made["secret"].startswith("whsec_")
    kept = {name: value for name, value in made.items() if name != "secret"}
    assert (await http.get(f"/webhooks/{made['id']}")).json() == kept
    assert (await http.get("/webhooks")).json() == {"webhooks": [kept]}


async def test_an_endpoint_is_changed_and_removed(http):
    made = await added(http, description="CRM")
    path = f"/webhooks/{made['id']}"

    off = (await http.put(path, json={"enabled": False, "events": ["job.failed"]})).json()
    on = (await http.put(path, json={"enabled": True, "description": None})).json()

    assert (off["enabled"], off["disabledReason"], off["events"]) == (
        False,
        "manual",
        ["job.failed"],
    )
    assert off["description"] == "CRM"
    assert (on["enabled"], on["disabledReason"], on["description"]) == (True, None, None)
    assert (await http.delete(path)).status_code == 204
    assert (await http.get(path)).status_code == (await http.delete(path)).status_code == 404


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"url": "https://127.0.0.1/x"}, "url"),
        ({"url": "http://hooks.example.com/x"}, "url"),
        ({"url": "https://user:pw@example.com/"}, "url"),
        ({"url": URL, "events": ["job.exploded"]}, "events.0"),
        ({"url": URL, "colour": "red"}, "colour"),
        ({"events": []}, "url"),
    ],
)
async def test_a_wrong_endpoint_is_refused(http, body, path):
    answer = await http.post("/webhooks", json=body)

    assert answer.status_code == 422, answer.text
    assert [part["path"] for part in answer.json()["errors"]] == [path]
    assert (await http.get("/webhooks")).json() == {"webhooks": []}


async def test_an_endpoint_cannot_be_moved_to_an_inner_address(http):
    made = await added(http)

    answer = await http.put(f"/webhooks/{made['id']}", json={"url": "https://169.254.169.254/"})

    assert answer.status_code == 422
    assert (await http.get(f"/webhooks/{made['id']}")).json()["url"] == URL


async def test_a_new_secret_overlaps_with_the_one_before(http):
    made = await added(http)

    both = (await http.post(f"/webhooks/{made['id']}/rotate", json={})).json()
    one = (await http.post(f"/webhooks/{made['id']}/rotate", json={"overlapMs": 0})).json()

    assert (both["secrets"], one["secrets"]) == (2, 1)
    assert len({made["secret"], both["secret"], one["secret"]}) == 3


async def test_events_are_in_the_log_and_go_out_again(http, conn):
    made = await added(http)
    await enqueued(http)
    tested = (await http.post(f"/webhooks/{made['id']}/test")).json()["deliveryId"]

    log = (await http.get("/webhooks/deliveries", params={"webhookId": made["id"]})).json()
    assert [one["event"] for one in log["deliveries"]] == ["endpoint.test", "job.created"]
    assert log["deliveries"][0]["id"] == tested
    assert log["deliveries"][0]["history"] == []
    await conn.execute("update enrichment_webhook_deliveries set status = 'failed'")

    one = await http.post("/webhooks/replay", json={"ids": [tested]})
    rest = await http.post(f"/webhooks/{made['id']}/replay", json={"onlyFailed": True})

    assert (one.status_code, one.json()) == (202, {"replayed": 1})
    assert (rest.status_code, rest.json()) == (202, {"replayed": 1})


async def test_the_log_comes_page_by_page(http):
    await added(http)
    for _ in range(5):
        await enqueued(http)
    found, cursor = [], None
    while True:
        params = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await http.get("/webhooks/deliveries", params=params)).json()
        found += [one["sequence"] for one in page["deliveries"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break

    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 5


async def test_a_disabled_endpoint_is_not_tested(http):
    made = await added(http)
    await http.put(f"/webhooks/{made['id']}", json={"enabled": False})

    answer = await http.post(f"/webhooks/{made['id']}/test")

    assert answer.status_code == 409


@pytest.mark.parametrize("body", [{}, {"onlyFailed": False}, {"until": "2030-01-01T00:00:00Z"}])
async def test_a_replay_must_say_of_what(http, body):
    assert (await http.post("/webhooks/replay", json=body)).status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/webhooks/{}", None),
        ("PUT", "/webhooks/{}", {"enabled": False}),
        ("DELETE", "/webhooks/{}", None),
        ("POST", "/webhooks/{}/test", None),
        ("POST", "/webhooks/{}/rotate", {}),
        ("POST", "/webhooks/{}/replay", {}),
    ],
)
async def test_another_workspaces_endpoint_is_not_there(served, http, method, path, body):
    made = await added(http)
    other = served.client("key-b")

    theirs = await other.request(method, path.format(made["id"]), json=body)
    missing = await other.request(method, path.format(NOBODYS), json=body)

    assert theirs.status_code == missing.status_code == 404
    assert theirs.json()["detail"].replace(made["id"], NOBODYS) == missing.json()["detail"]
    assert (await http.get(f"/webhooks/{made['id']}")).json()["enabled"]
