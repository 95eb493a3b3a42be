"""Credits: whatever calls do or fail to do, no cap is passed and nothing stays set aside."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrichd.store import answers, credits
from enrichd.store.answers import Beginning, End
from enrichd.store.credits import Budget
from enrichd.store.database import Connection, Database

CAPS = {"day_cap": Decimal(8), "workspace_day_cap": Decimal(6), "workspace_month_cap": Decimal(7)}
JOB_CAP = Decimal(4)
JOBS = [UUID(int=number) for number in range(1, 4)]


def a_question(
    key: str, *, cost: int | str = 1, workspace: str = "acme", job: UUID | None = None
) -> Beginning:
    return Beginning(
        call_id=uuid4(),
        job_id=job or uuid4(),
        buyer=uuid4(),
        workspace_id=workspace,
        key=key.encode(),
        provider_id="hunter",
        operation="findEmail",
        credits=Decimal(cost),
        job_cap=JOB_CAP if job else None,
    )


def an_end(question: Beginning, cost: Decimal | None, outcome: str = "error") -> End:
    return End(
        call_id=question.call_id,
        buyer=question.buyer,
        workspace_id=question.workspace_id,
        key=question.key,
        provider_id=question.provider_id,
        operation=question.operation,
        outcome=outcome,
        cost=cost,
    )


async def counters(conn: Connection) -> dict[str, tuple[Decimal, Decimal]]:
    cursor = await conn.execute(
        "select counter, spent, reserved from enrichment_credit_counters order by counter"
    )
    return {name: (spent, reserved) async for name, spent, reserved in cursor}


# Any order of anything


@dataclass(frozen=True, slots=True)
class Step:
    """What happens next: questions come, a call ends, or its process dies and is swept up."""

    what: str
    pick: int
    costs: tuple[int, ...]
    workspace: str
    job: UUID | None


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(["begin", "begin", "end", "end again", "free", "crash", "sweep"]),
        st.integers(0, 50),
        st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple),
        st.sampled_from(["acme", "other"]),
        st.sampled_from([None, *JOBS]),
    ),
    max_size=30,
)


async def play(dsn: str, steps: list[Step]) -> None:
    """Do all steps, and check the books after each and at the end."""
    database = Database(dsn)
    running: list[Beginning] = []
    ended: list[End] = []
    truth: Counter[str] = Counter()
    async with database.connection() as conn:
        await conn.execute(
            "truncate enrichment_credit_counters, enrichment_credit_reservations,"
            " enrichment_provider_cache, enrichment_provider_use"
        )
        for number, step in enumerate(steps):
            match step.what:
                case "begin":
                    questions = [
                        a_question(
                            f"{number}.{place}", cost=cost, workspace=step.workspace, job=step.job
                        )
                        for place, cost in enumerate(step.costs)
                    ]
                    verdicts = await answers.begin(conn, questions, lease_s=90.0, **CAPS)
                    running += [
                        question
                        for question, verdict in zip(questions, verdicts, strict=True)
                        if verdict.word == "go"
                    ]
                case "end" | "free" if running:
                    question = running.pop(step.pick % len(running))
                    real = Decimal(min(step.costs[0], question.credits))
                    cost = Decimal(0) if step.what == "free" else real
                    ended.append(an_end(question, cost, "free" if step.what == "free" else "error"))
                    truth[question.workspace_id] += int(cost)
                    await answers.end(conn, ended[-1:])
                case "end again" if ended:
                    await answers.end(conn, [ended[step.pick % len(ended)]])
                case "crash" if running:
                    question = running.pop(step.pick % len(running))
                    truth[question.workspace_id] += int(question.credits)
                    await conn.execute(
                        "update enrichment_credit_reservations set expires_at = now()"
                        " where id = %s",
                        [question.call_id],
                    )
                case "sweep":
                    await credits.sweep(conn, limit=1 + step.pick)
            await check_caps(conn)
        await conn.execute("update enrichment_credit_reservations set expires_at = now()")
        for question in running:
            truth[question.workspace_id] += int(question.credits)
        await credits.sweep(conn)
        books = await counters(conn)
        assert all(reserved == 0 for _, reserved in books.values())
        days = {name: spent for name, (spent, _) in books.items() if name.count(":") == 2}
        for workspace, spent in truth.items():
            assert {spent} == {
                booked for name, booked in days.items() if name.endswith(f":{workspace}")
            } | ({0} if not spent else set())
        assert sum(use.credits for use in await credits.use(conn)) == truth.total()
    await database.close()


async def check_caps(conn: Connection) -> None:
    for name, (spent, reserved) in (await counters(conn)).items():
        kind, _, rest = name.partition(":")
        cap = {"job": JOB_CAP, "month": CAPS["workspace_month_cap"]}.get(
            kind, CAPS["workspace_day_cap"] if ":" in rest else CAPS["day_cap"]
        )
        assert spent + reserved <= cap, name
        assert reserved >= 0, name


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_no_order_of_calls_crashes_and_sweeps_passes_a_cap_or_leaves_anything_set_aside(
    database_url, steps
):
    asyncio.run(play(database_url, steps))


# One by one


async def begun(conn: Connection, question: Beginning, **caps: Decimal | None) -> str:
    none = dict.fromkeys(("day_cap", "workspace_day_cap", "workspace_month_cap"))
    (verdict,) = await answers.begin(conn, [question], lease_s=90.0, **{**none, **caps})
    return verdict.word


async def test_a_batch_takes_what_fits_in_its_order_and_smaller_ones_after_a_refusal(conn):
    questions = [a_question(str(number), cost=cost) for number, cost in enumerate("2341")]

    verdicts = await answers.begin(
        conn,
        questions,
        lease_s=90.0,
        day_cap=Decimal(7),
        workspace_day_cap=None,
        workspace_month_cap=None,
    )

    refused = "would_exceed_daily_credits"
    assert [verdict.word for verdict in verdicts] == ["go", "go", refused, "go"]
    cursor = await conn.execute("select count(*) from enrichment_provider_cache")
    assert await cursor.fetchone() == (3,), "whoever may not ask holds no lease"


async def test_who_comes_while_the_last_credit_is_being_taken_waits_and_is_refused(
    conn, database_url
):
    await begun(conn, a_question("first"))
    other = Database(database_url)
    async with other.connection() as theirs:
        async with conn.transaction():
            assert await begun(conn, a_question("second"), day_cap=Decimal(2)) == "go"
            late = asyncio.create_task(begun(theirs, a_question("third"), day_cap=Decimal(2)))
            await asyncio.wait({late}, timeout=0.2)
            assert not late.done()

        assert await late == "would_exceed_daily_credits"
    await other.close()


async def test_what_costs_nothing_touches_no_counter(conn):
    assert await begun(conn, a_question("k", cost=0), day_cap=Decimal(0)) == "go"

    assert await counters(conn) == {}


async def test_fractions_of_credits_add_up_exactly(conn):
    words = [
        await begun(conn, a_question(str(number), cost="0.1"), day_cap=Decimal("0.3"))
        for number in range(4)
    ]

    assert words == ["go", "go", "go", "would_exceed_daily_credits"]


async def test_the_true_cost_is_booked_on_the_day_of_the_call(conn):
    question = a_question("k", cost=5)
    await begun(conn, question)
    await conn.execute(
        "update enrichment_credit_reservations set counters = array['day:2020-01-01']"
    )
    await conn.execute("insert into enrichment_credit_counters values ('day:2020-01-01', 0, 5)")

    await answers.end(conn, [an_end(question, Decimal(3))])

    assert (await counters(conn))["day:2020-01-01"] == (3, 0)


async def test_a_call_of_unknown_cost_is_booked_at_what_was_set_aside(conn):
    question = a_question("k", cost=5)
    await begun(conn, question)

    await answers.end(conn, [an_end(question, None)])

    assert await credits.spent_today(conn) == 5
    assert (await credits.spending(conn, workspace_id="acme")).this_month == 5
    (use,) = await credits.use(conn, workspace_id="acme")
    assert (use.calls, use.errors, use.credits) == (1, 1, 5)


async def test_a_call_that_ends_after_it_was_swept_up_is_not_booked_twice(conn):
    question = a_question("k", cost=5)
    await begun(conn, question)
    await conn.execute("update enrichment_credit_reservations set expires_at = now()")
    assert await credits.sweep(conn) == 1

    await answers.end(conn, [an_end(question, Decimal(5))])

    assert await credits.spent_today(conn) == 5


async def test_budgets_are_set_read_and_taken_away(conn):
    assert await credits.budget_of(conn, workspace_id="acme") == Budget()
    chosen = Budget(per_day_max=Decimal(10))

    await credits.set_budget(conn, workspace_id="acme", budget=chosen)

    assert await credits.budget_of(conn, workspace_id="acme") == chosen
    assert await credits.budgets(conn) == {"acme": chosen}
    await credits.set_budget(conn, workspace_id="acme", budget=Budget())
    assert await credits.budgets(conn) == {}


async def test_a_negative_budget_is_refused(conn):
    with pytest.raises(psycopg.errors.CheckViolation):
        await credits.set_budget(
            conn, workspace_id="acme", budget=Budget(per_month_max=Decimal(-1))
        )


async def test_pruning_takes_old_counters_and_use_and_leaves_what_is_promised(conn):
    await conn.execute(
        """
        insert into enrichment_credit_counters (counter, reserved, updated_at)
        values ('old', 0, now() - interval '41 days'), ('held', 1, now() - interval '41 days'),
               ('month', 0, now() - interval '39 days')
        """
    )
    await conn.execute(
        """
        insert into enrichment_provider_use (day, workspace_id, provider_id, operation)
        values (current_date - 402, 'acme', 'hunter', 'x'), (current_date, 'acme', 'hunter', 'x')
        """
    )

    assert await credits.prune(conn) == 2
    assert set(await counters(conn)) == {"held", "month"}
