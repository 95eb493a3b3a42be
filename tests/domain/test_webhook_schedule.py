"""When a webhook that was not taken is sent again."""

from __future__ import annotations

import pytest

from enrichd.domain.webhook_schedule import ATTEMPTS_MAX, pause_s

MINUTE, HOUR = 60.0, 3600.0
SCHEDULE = [
    5,
    5 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    14 * HOUR,
    20 * HOUR,
    24 * HOUR,
    None,
]


def test_ten_attempts_lie_over_three_days() -> None:
    pauses = [pause_s(n, retry_after_s=None, dice=0.0) for n in range(1, ATTEMPTS_MAX + 1)]

    assert pauses == SCHEDULE
    assert 72 * HOUR < sum(one for one in pauses if one is not None) < 80 * HOUR


def test_a_fifth_of_a_pause_is_chance() -> None:
    assert pause_s(1, retry_after_s=None, dice=1.0) == pytest.approx(6.0)
    assert pause_s(9, retry_after_s=None, dice=0.5) == pytest.approx(26.4 * HOUR)


@pytest.mark.parametrize(
    ("retry_after_s", "expected"), [(0.0, 5.0), (3.0, 5.0), (90.0, 90.0), (1e9, 24 * HOUR)]
)
def test_a_receiver_can_ask_for_more_time_up_to_a_day_and_never_for_less(
    retry_after_s: float, expected: float
) -> None:
    assert pause_s(1, retry_after_s=retry_after_s, dice=0.0) == expected


def test_after_the_last_attempt_no_wish_counts() -> None:
    assert pause_s(ATTEMPTS_MAX, retry_after_s=60.0, dice=0.0) is None
