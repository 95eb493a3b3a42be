"""How many workers there should be: up soon, down slowly, never out of bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enrichd.domain.scaling import DOWN_AFTER_S, UP_AFTER, Scaling, step


def after(state: Scaling, *reports: tuple[float, float], low: int = 1, high: int = 4) -> Scaling:
    """Return the state after reports (age, use), two seconds apart."""
    for count, (oldest_ready_s, use) in enumerate(reports):
        state = step(
            state, low=low, high=high, oldest_ready_s=oldest_ready_s, use=use, now=2.0 * count
        )
    return state


PRESSED = (10.0, 1.0)
CALM = (0.0, 0.0)
QUIET_REPORTS = int(DOWN_AFTER_S / 2.0)


def test_a_worker_is_added_after_two_reports_of_pressure():
    assert UP_AFTER == 2
    assert after(Scaling(1), PRESSED).wanted == 1
    assert after(Scaling(1), PRESSED, PRESSED).wanted == 2
    assert after(Scaling(1), PRESSED, PRESSED, PRESSED, PRESSED).wanted == 3


def test_pressure_that_pauses_counts_from_the_start():
    assert after(Scaling(1), PRESSED, CALM, PRESSED).wanted == 1


def test_a_backlog_that_ages_while_slots_are_free_adds_nobody():
    # A blocked lane, or workers that are just starting: more of them would not help.
    assert after(Scaling(1), *[(100.0, 0.5)] * 10).wanted == 1


def test_full_slots_without_a_backlog_add_nobody():
    assert after(Scaling(1), *[(0.5, 1.0)] * 10).wanted == 1


def test_a_worker_is_taken_after_a_minute_of_little_use_and_the_next_a_minute_later():
    assert after(Scaling(4), *[CALM] * QUIET_REPORTS).wanted == 4
    assert after(Scaling(4), *[CALM] * (QUIET_REPORTS + 1)).wanted == 3
    assert after(Scaling(4), *[CALM] * (2 * QUIET_REPORTS)).wanted == 3
    assert after(Scaling(4), *[CALM] * (2 * QUIET_REPORTS + 1)).wanted == 2


def test_one_busy_report_starts_the_minute_again():
    calm = [CALM] * (QUIET_REPORTS - 1)
    assert after(Scaling(2), *calm, (0.0, 0.5), *calm).wanted == 2


def test_a_reload_that_narrows_the_bounds_is_obeyed_at_the_next_report():
    assert after(Scaling(4), (0.0, 0.5), high=2).wanted == 2
    assert after(Scaling(1), (0.0, 0.5), low=3).wanted == 3


reports = st.lists(
    st.tuples(
        st.floats(allow_nan=True, allow_infinity=True), st.floats(allow_nan=True, min_value=None)
    )
)


@given(reports, st.integers(1, 5), st.integers(0, 5))
def test_no_report_leads_out_of_bounds_or_by_more_than_one(said, low, more):
    state = Scaling(low)
    for count, report in enumerate(said):
        age, use = report
        following = step(
            state, low=low, high=low + more, oldest_ready_s=age, use=use, now=40.0 * count
        )
        assert low <= following.wanted <= low + more
        assert abs(following.wanted - state.wanted) <= 1
        state = following
