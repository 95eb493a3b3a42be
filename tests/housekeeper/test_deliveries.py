"""Deliveries on their way: real receivers, a real database, and everything that goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest
from psycopg.rows import dict_row
from standardwebhooks import Webhook as Verifier

from enrichd.housekeeper.deliveries import (
    CONCURRENCY,
    HOST_LINES,
    Deliverer,
    deliverer_of,
    outcome,
)
from enrichd.settings import Settings
from enrichd.store import deliveries, delivery_log, webhooks
from enrichd.store.database import Database
from enrichd.store.deliveries import HISTORY_MAX, Attempted
from enrichd.store.installation import Installation
from enrichd.webhooks import endpoints
from enrichd.webhooks.secrets import JobSecrets
from enrichd.webhooks.sender import Answer
from enrichd.webhooks.targets import Guard
from tests.e2e.linked import LinkedChild
from tests.support.factories import an_email_job
from tests.support.receivers import LOOPBACK, Receivers

DAY_S = 86_400.0
ALLOWED = {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8", "HEALTH_CHECK_PORT": "1"}


@pytest.fixture
async def receivers():
    async with Receivers() as started:
        yield started


@pytest.fixture
async def settings():
    return Settings.load({**ALLOWED, "WEBHOOK_TIMEOUT": "1000"})


@pytest.fixture
async def deliverer(database_url, settings):
    """Give a deliverer that runs until the test is over."""
    async with running(database_url, settings) as started:
        yield started


@contextlib.asynccontextmanager
async def running(database_url, settings):
    started: Deliverer = deliverer_of(settings, Database(database_url, name="test webhooks"))
    task = asyncio.create_task(started.run())
    try:
        yield started
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
def an_endpoint(conn, database, settings):
    """Give `await an_endpoint(url)`: a new endpoint and its secret."""

    async def add(url, **fields):
        installation = Installation(Database(database.dsn), settings)
        sealer = await installation.sealer()
        await installation._database.close()
        return await endpoints.add(
            conn,
            sealer=sealer,
            guard=Guard(LOOPBACK),
            workspace_id=fields.pop("workspace_id", "default"),
            url=url,
            **fields,
        )

    return add


INSERT = """
    insert into enrichment_webhook_deliveries (workspace_id, webhook_id, target, event, data)
    select workspace_id, id, id::text, 'job.completed', jsonb_build_object('number', number)
      from enrichment_webhooks, generate_series(1, %s) as number
     where id = %s
"""


async def fill(conn, webhook, count=1):
    """Put deliveries for an endpoint into the outbox."""
    await conn.execute(INSERT, (count, webhook.id))


async def outbox(conn, webhook_id=None):
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            "select *, extract(epoch from next_attempt_at - now())::float8 as due_s"
            "  from enrichment_webhook_deliveries"
            " where %(id)s::uuid is null or webhook_id = %(id)s order by sequence",
            {"id": webhook_id},
        )
        return await cursor.fetchall()


async def statuses(conn, webhook_id=None):
    return [one["status"] for one in await outbox(conn, webhook_id)]


async def test_an_event_is_sent_signed_and_its_answer_kept(
    conn, deliverer, receivers, an_endpoint, eventually
):
    webhook, secret = await an_endpoint(receivers.url("/ok"))
    await fill(conn, webhook)
    deliverer.wake()

    async def is_done():
        return await statuses(conn) == ["delivered"]

    await eventually(is_done)
    [got] = receivers.got
    [row] = await outbox(conn)
    said = Verifier(secret).verify(got.body.decode(), dict(got.headers))
    assert said["type"] == "job.completed"
    assert said["data"] == {"number": 1, "sequence": row["sequence"]}
    assert got.id == str(row["id"])
    assert (row["attempts"], row["answer_status"], row["answer"]) == (1, 200, "thanks")
    assert row["error"] is None
    assert row["latency_ms"] is not None


async def test_a_jobs_own_url_is_signed_with_the_workspaces_secret(
    conn, queue, deliverer, receivers, settings, database, eventually
):
    await queue.enqueue(an_email_job(webhook_url=receivers.url("/ok/own")))
    deliverer.wake()

    async def is_there():
        return receivers.got

    await eventually(is_there)
    installation = Installation(Database(database.dsn), settings)
    secret = JobSecrets(settings, await installation.pepper()).secret("default")
    await installation._database.close()
    [got] = receivers.got
    said = Verifier(secret).verify(got.body.decode(), dict(got.headers))
    assert said["type"] == "job.created"


async def test_while_a_secret_is_changed_both_verify(
    conn, deliverer, receivers, an_endpoint, settings, database, eventually
):
    webhook, old = await an_endpoint(receivers.url("/ok"))
    installation = Installation(Database(database.dsn), settings)
    _, new = await endpoints.rotate(
        conn,
        sealer=await installation.sealer(),
        workspace_id="default",
        webhook_id=webhook.id,
    )
    await installation._database.close()
    await fill(conn, webhook)
    deliverer.wake()

    async def is_there():
        return receivers.got

    await eventually(is_there)
    [got] = receivers.got
    for secret in (old, new):
        Verifier(secret).verify(got.body.decode(), dict(got.headers))


async def test_a_secret_that_nobody_can_open_is_told_and_tried_again(
    conn, deliverer, receivers, an_endpoint, eventually
):
    webhook, _ = await an_endpoint(receivers.url("/ok"))
    await conn.execute(
        "update enrichment_webhooks"
        " set secrets = jsonb_set(secrets, '{0,sealedWith}', to_jsonb('a-key-that-is-gone'::text))"
    )
    await fill(conn, webhook)
    deliverer.wake()

    async def has_failed():
        return (await outbox(conn))[0]["error"]

    assert await eventually(has_failed) == "secret_unreadable"
    assert await statuses(conn) == ["pending"]
    assert receivers.got == []


@pytest.mark.parametrize(
    ("answer", "counted_as"),
    [
        (Answer(204, "", 0.1, None), "delivered"),
        (Answer(302, "", 0.1, "redirected"), "redirected"),
        (Answer(404, "", 0.1, "http_404"), "http_4xx"),
        (Answer(599, "", 0.1, "http_599"), "http_5xx"),
        (Answer(None, None, 0.1, "timeout"), "timeout"),
    ],
)
def test_metrics_count_in_few_words_whoever_answered(answer, counted_as):
    assert outcome(answer) == counted_as


@pytest.mark.parametrize(
    ("path", "error", "pause_s"),
    [
        ("/broken", "http_500", 5.0),
        ("/hang", "timeout", 5.0),
        ("/redirect", "redirected", 5.0),
        ("/cut", "bad_response", 5.0),
    ],
)
async def test_what_was_not_taken_is_due_again_by_the_schedule(
    conn, deliverer, receivers, an_endpoint, eventually, path, error, pause_s
):
    webhook, _ = await an_endpoint(receivers.url(path))
    await fill(conn, webhook)
    deliverer.wake()

    async def has_failed():
        return (await outbox(conn))[0]["error"]

    assert await eventually(has_failed) == error
    [row] = await outbox(conn)
    assert (row["status"], row["attempts"]) == ("pending", 1)
    assert pause_s - 1 < row["due_s"] <= pause_s * 1.2
    hook = await webhooks.get(conn, workspace_id="default", webhook_id=webhook.id)
    assert (hook.enabled, hook.failure_streak) == (True, 1)
    assert hook.failing_since is not None


async def test_retry_after_is_honoured_and_holds_up_the_others_of_the_receiver(
    conn, deliverer, receivers, an_endpoint, eventually
):
    receivers.retry_after = "600"
    webhook, _ = await an_endpoint(receivers.url("/busy"))
    await fill(conn, webhook, 30)
    deliverer.wake()

    async def is_held_up():
        rows = await outbox(conn)
        return any(row["due_s"] > 590 for row in rows) and all(
            row["attempts"] == 0 or row["error"] for row in rows
        )

    await eventually(is_held_up)
    assert len(receivers.got) <= 4
    assert sum(row["attempts"] for row in await outbox(conn)) == len(receivers.got)


async def test_the_tenth_failure_is_the_last(conn, deliverer, receivers, an_endpoint, eventually):
    webhook, _ = await an_endpoint(receivers.url("/broken"))
    await fill(conn, webhook)
    await conn.execute("update enrichment_webhook_deliveries set attempts = 9")
    deliverer.wake()

    async def is_over():
        return await statuses(conn) == ["failed"]

    await eventually(is_over)
    [row] = await outbox(conn)
    assert (row["attempts"], row["answer_status"]) == (10, 500)
    assert len(row["answer"]) == 1024


async def test_each_attempt_stays_in_the_log_with_what_was_answered(
    conn, deliverer, receivers, an_endpoint, eventually
):
    receivers.failures = 2
    webhook, _ = await an_endpoint(receivers.url("/flaky"))
    await fill(conn, webhook)
    for expected in (["http_500"], ["http_500", "http_500"], ["http_500", "http_500", None]):
        await conn.execute("update enrichment_webhook_deliveries set next_attempt_at = now()")
        deliverer.wake()

        async def is_recorded(expected=expected):
            [seen] = await delivery_log.list_page(conn, workspace_id="default")
            return [one.error for one in seen.history] == expected

        await eventually(is_recorded)
    [seen] = await delivery_log.list_page(conn, workspace_id="default")
    assert [one.attempt for one in seen.history] == [1, 2, 3]
    assert [one.answer_status for one in seen.history] == [500, 500, 200]
    assert [one.answer for one in seen.history] == ["broken 1", "broken 2", ""]
    assert seen.history[0].at < seen.history[1].at < seen.history[2].at

    assert await delivery_log.replay(conn, workspace_id="default", ids=[seen.id]) == [seen.id]
    deliverer.wake()

    async def is_sent_again():
        [seen] = await delivery_log.list_page(conn, workspace_id="default")
        return [one.attempt for one in seen.history] == [1, 2, 3, 1]

    await eventually(is_sent_again)


async def test_the_log_of_attempts_is_bounded(conn, an_endpoint, receivers):
    webhook, _ = await an_endpoint(receivers.url("/broken"))
    await fill(conn, webhook)
    for _ in range(HISTORY_MAX + 5):
        await conn.execute("update enrichment_webhook_deliveries set next_attempt_at = now()")
        [due] = (await deliveries.claim(conn, room=1, quota=1, quotas={})).due
        failed = Attempted(due.id, due.attempt, "pending", answer="x" * 1024, error="http_500")
        await deliveries.record(conn, attempted=[failed])

    [seen] = await delivery_log.list_page(conn, workspace_id="default")
    assert [one.attempt for one in seen.history] == list(range(6, HISTORY_MAX + 6))
    await conn.execute(
        "update enrichment_webhook_deliveries"
        " set status = 'failed', finished_at = now() - interval '8 days'"
    )
    assert await deliveries.prune(conn, age_s=7 * DAY_S) == 1
    assert await delivery_log.list_page(conn, workspace_id="default") == []


async def test_410_disables_the_endpoint_and_tells_the_others(
    conn, deliverer, receivers, an_endpoint, eventually
):
    gone, _ = await an_endpoint(receivers.url("/gone"))
    await an_endpoint(receivers.url("/ok/other"))
    await an_endpoint(receivers.url("/ok/jobs"), events=["job.completed"])
    await an_endpoint(receivers.url("/ok/stranger"), workspace_id="stranger")
    await fill(conn, gone, 20)
    deliverer.wake()

    async def is_over():
        return await statuses(conn, gone.id) == ["failed"] * 20 and any(
            got.path == "/ok/other" for got in receivers.got
        )

    await eventually(is_over)
    hook = await webhooks.get(conn, workspace_id="default", webhook_id=gone.id)
    assert (hook.enabled, hook.disabled_reason) == (False, "gone")
    told = [got.json for got in receivers.got if got.path != "/gone"]
    assert [(one["type"], one["data"]["webhookId"]) for one in told] == [
        ("endpoint.disabled", str(gone.id))
    ]
    assert {row["error"] for row in await outbox(conn, gone.id)} <= {
        "http_410",
        "endpoint_disabled",
    }
    assert sum(got.path == "/gone" for got in receivers.got) <= 8


async def test_five_days_of_failures_disable_an_endpoint_and_one_success_clears_it(
    conn, deliverer, receivers, an_endpoint, eventually
):
    failing, _ = await an_endpoint(receivers.url("/broken"))
    well, _ = await an_endpoint(receivers.url("/ok"))
    for webhook in (failing, well):
        await conn.execute(
            "update enrichment_webhooks set failure_streak = 9,"
            " failing_since = now() - make_interval(days => 5, hours => 1) where id = %s",
            (webhook.id,),
        )
        await fill(conn, webhook)
    deliverer.wake()

    async def is_disabled():
        hook = await webhooks.get(conn, workspace_id="default", webhook_id=failing.id)
        return not hook.enabled and hook.disabled_reason == "failing"

    async def is_cleared():
        hook = await webhooks.get(conn, workspace_id="default", webhook_id=well.id)
        return hook.enabled and hook.failure_streak == 0 and hook.failing_since is None

    await eventually(is_disabled)
    await eventually(is_cleared)


async def test_an_endpoint_gets_four_requests_at_a_time(
    conn, deliverer, receivers, an_endpoint, eventually
):
    webhook, _ = await an_endpoint(receivers.url("/slow"))
    await fill(conn, webhook, 12)
    deliverer.wake()

    async def is_done():
        return await statuses(conn) == ["delivered"] * 12

    await eventually(is_done)
    assert receivers.most["/slow"] == 4


async def test_receivers_that_hang_delay_nobody(
    conn, deliverer, receivers, an_endpoint, eventually
):
    for number in range(10):
        hanging, _ = await an_endpoint(receivers.url(f"/hang/{number}"))
        await fill(conn, hanging, 200)
    fast, _ = await an_endpoint(receivers.url("/ok"))
    await fill(conn, fast, 300)
    began = time.monotonic()
    deliverer.wake()

    async def is_done():
        return await statuses(conn, fast.id) == ["delivered"] * 300

    await eventually(is_done)
    assert time.monotonic() - began < 3.0


async def test_a_host_with_many_endpoints_gets_a_bounded_number_of_requests(
    conn, deliverer, receivers, an_endpoint, eventually
):
    hooks = [(await an_endpoint(receivers.url(f"/slow/{number}")))[0] for number in range(40)]
    for hook in hooks:
        await fill(conn, hook, 3)
    deliverer.wake()

    async def is_done():
        return await statuses(conn) == ["delivered"] * 120

    await eventually(is_done)
    assert CONCURRENCY < receivers.most_at_once <= HOST_LINES * CONCURRENCY


async def test_endpoints_of_a_host_that_hang_leave_places_to_the_others(
    conn, database_url, receivers, an_endpoint, eventually
):
    patient = Settings.load({**ALLOWED, "WEBHOOK_TIMEOUT": "15000"})
    for number in range(12):
        hanging, _ = await an_endpoint(receivers.url(f"/hang/{number}"))
        await fill(conn, hanging, 20)
    async with running(database_url, patient) as deliverer:
        deliverer.wake()

        async def are_hanging():
            return len(receivers.got) >= 24

        await eventually(are_hanging)
        fast, _ = await an_endpoint(receivers.url("/ok"))
        await fill(conn, fast, 50)
        deliverer.wake()

        async def is_done():
            return await statuses(conn, fast.id) == ["delivered"] * 50

        await eventually(is_done, within_s=5)
        receivers.release()


async def test_jobs_urls_of_one_host_do_not_delay_each_other(
    conn, queue, database_url, receivers, eventually
):
    patient = Settings.load({**ALLOWED, "WEBHOOK_TIMEOUT": "15000"})
    hanging, fast = (receivers.url(path) for path in ("/hang/a", "/ok/b"))
    for url in [hanging] * 10 + [fast] * 10:
        await queue.enqueue(an_email_job(webhook_url=url))
    async with running(database_url, patient) as deliverer:
        deliverer.wake()

        async def is_done():
            return sum(got.path == "/ok/b" for got in receivers.got) == 10

        await eventually(is_done, within_s=5)
        assert receivers.most["/hang/a"] == CONCURRENCY
        receivers.release()


async def test_what_is_under_way_at_the_end_is_finished_or_given_back(
    conn, database_url, settings, receivers, an_endpoint, eventually
):
    webhook, _ = await an_endpoint(receivers.url("/slow"))
    await fill(conn, webhook, 12)
    async with running(database_url, settings) as deliverer:
        deliverer.wake()

        async def has_begun():
            return len(receivers.got) >= 4

        await eventually(has_begun)

    rows = await outbox(conn)
    delivered = [row for row in rows if row["status"] == "delivered"]
    assert len(delivered) == len(receivers.got)
    rest = [row for row in rows if row["status"] == "pending"]
    assert {row["attempts"] for row in rest} == {0}
    assert all(row["due_s"] <= 0 for row in rest)


async def test_two_hosts_send_each_once(
    conn, database_url, settings, deliverer, receivers, an_endpoint, eventually
):
    webhook, _ = await an_endpoint(receivers.url("/ok"))
    await fill(conn, webhook, 200)
    async with running(database_url, settings) as other:
        deliverer.wake()
        other.wake()

        async def is_done():
            return await statuses(conn) == ["delivered"] * 200

        await eventually(is_done)
    assert len({got.id for got in receivers.got}) == len(receivers.got) == 200


async def test_the_database_going_away_loses_no_delivery(
    conn, deliverer, receivers, an_endpoint, eventually
):
    webhook, _ = await an_endpoint(receivers.url("/slow"))
    await fill(conn, webhook, 20)
    deliverer.wake()

    async def cut():
        if not receivers.got:
            return False
        return (
            await (
                await conn.execute(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                    " where application_name = 'test webhooks'"
                )
            ).fetchone()
        )[0]

    await eventually(cut)

    async def is_done():
        return await statuses(conn) == ["delivered"] * 20

    await eventually(is_done)
    assert len({got.id for got in receivers.got}) == 20


async def test_a_replay_sends_the_same_id_again(
    conn, deliverer, receivers, an_endpoint, eventually
):
    receivers.failures = 1
    webhook, _ = await an_endpoint(receivers.url("/flaky"))
    await fill(conn, webhook)
    await conn.execute("update enrichment_webhook_deliveries set attempts = 9")
    deliverer.wake()

    async def is_over():
        return await statuses(conn) == ["failed"]

    await eventually(is_over)
    [row] = await outbox(conn)
    assert await delivery_log.replay(conn, workspace_id="other", only_failed=True) == []
    assert await delivery_log.replay(conn, workspace_id="default", only_failed=True) == [row["id"]]
    deliverer.wake()

    async def is_done():
        return await statuses(conn) == ["delivered"]

    await eventually(is_done)
    assert [got.id for got in receivers.got] == [str(row["id"])] * 2


async def test_an_address_inside_is_refused_when_it_is_sent(
    conn, database_url, receivers, an_endpoint, eventually
):
    webhook, _ = await an_endpoint(receivers.url("/ok"))
    await fill(conn, webhook)
    async with running(database_url, Settings.load({})) as strict:
        strict.wake()

        async def is_refused():
            return (await outbox(conn))[0]["error"] == "address_refused"

        await eventually(is_refused)
    assert receivers.got == []


async def test_a_housekeeper_that_is_killed_leaves_its_deliveries_to_the_next(
    conn, database_url, tmp_path, receivers, an_endpoint, eventually
):
    environ = {**ALLOWED, "WEBHOOK_TIMEOUT": "20000"}
    webhook, _ = await an_endpoint(receivers.url("/hang"))
    await fill(conn, webhook, 3)
    with LinkedChild("housekeeper", database_url, tmp_path, **environ) as child:
        await asyncio.to_thread(child.wait_until_ready)

        async def are_under_way():
            return len(receivers.got) == 3

        await eventually(are_under_way)
        child.process.kill()
    first = {got.id for got in receivers.got}
    assert {row["attempts"] for row in await outbox(conn)} == {1}

    await conn.execute("update enrichment_webhooks set url = %s", (receivers.url("/ok"),))
    # As if the lease were over.
    await conn.execute("update enrichment_webhook_deliveries set next_attempt_at = now()")
    with LinkedChild("housekeeper", database_url, tmp_path, **environ) as child:
        await asyncio.to_thread(child.wait_until_ready)

        async def are_delivered():
            return await statuses(conn) == ["delivered"] * 3

        await eventually(are_delivered)
    assert {got.id for got in receivers.got if got.path == "/ok"} == first
    assert [row["attempts"] for row in await outbox(conn)] == [2, 2, 2]
