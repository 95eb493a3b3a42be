"""The retry rule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enrichd.domain.retries import RetryRule, backoff_s, may_retry

rules = st.builds(
    RetryRule,
    base_delay_s=st.floats(0.001, 1_000),
    max_delay_s=st.floats(0.001, 100_000),
    multiplier=st.floats(1, 10),
)


@given(rules, st.integers(1, 10_000), st.floats(0, 1))
def test_the_delay_keeps_between_half_and_the_whole_of_its_bound(rule, attempt, dice):
    delay_s = backoff_s(rule, attempt, dice)

    bound = min(rule.base_delay_s * rule.multiplier ** min(attempt - 1, 60), rule.max_delay_s)
    assert bound * 0.5 <= delay_s <= bound * (1 + 1e-9)
    assert delay_s <= rule.max_delay_s


@given(rules, st.integers(1, 200))
def test_the_delay_never_shrinks_from_one_attempt_to_the_next(rule, attempt):
    assert backoff_s(rule, attempt, 1.0) <= backoff_s(rule, attempt + 1, 1.0)


def test_the_defaults_double_from_a_second_to_five_minutes():
    delays = [backoff_s(RetryRule(), attempt, 1.0) for attempt in (1, 2, 3, 9, 10, 60)]
    assert delays == [1, 2, 4, 256, 300, 300]


@given(st.integers(0, 100))
def test_max_retries_counts_retries(max_retries):
    runs = 1
    while may_retry(runs, max_retries):
        runs += 1
    assert runs == max_retries + 1
