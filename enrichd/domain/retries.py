"""When a failed attempt is tried again, and when the job becomes a dead letter."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetryRule:
    """Exponential backoff with full jitter in its upper half."""

    base_delay_s: float = 1.0
    max_delay_s: float = 300.0
    multiplier: float = 2.0


def may_retry(attempt: int, max_retries: int) -> bool:
    """Say whether a job whose attempt number `attempt` (from 1) failed may run once more."""
    return attempt <= max_retries


def backoff_s(rule: RetryRule, attempt: int, dice: float) -> float:
    """Return the seconds to wait after attempt number `attempt`; `dice` is 0 to 1.

    The delay grows from `base_delay_s` up to `max_delay_s`; the jitter takes away up to half of it,
    so that a thousand jobs that failed together do not come back together, and none at once.
    """
    # Past about 2**60 the power is a float that no longer matters and past 2**1024 it overflows.
    exponent = min(attempt - 1, 60)
    delay = min(rule.base_delay_s * rule.multiplier**exponent, rule.max_delay_s)
    return delay * (0.5 + 0.5 * dice)
