"""A job's credits."""

from __future__ import annotations

from decimal import Decimal

from enrichd.providers.budget import Budget


def test_what_is_set_aside_cannot_be_spent_twice():
    budget = Budget(Decimal(2), spent=Decimal(1))

    assert budget.reserve(Decimal(1))
    assert not budget.reserve(Decimal("0.1"))
    assert budget.reserve(Decimal(0))


def test_what_a_call_did_not_cost_is_free_again():
    budget = Budget(Decimal(1))
    assert budget.reserve(Decimal(1))

    budget.settle(Decimal(1), Decimal(0))

    assert budget.reserve(Decimal(1))


def test_without_a_limit_everything_may_be_spent():
    assert Budget().reserve(Decimal(1_000_000))
