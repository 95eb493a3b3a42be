"""States and moves."""

from __future__ import annotations

from uuid import UUID

import pytest

from enrichd.domain.jobs import CANCELLABLE, MOVES, RETRYABLE, TERMINAL, JobStatus, require_move
from enrichd.errors import IllegalMove

JOB = UUID(int=1)

# The diagram of DESIGN section 3, written down a second time.
ALLOWED = {
    "pending": {"scheduled", "processing", "cancelled"},
    "scheduled": {"pending", "cancelled"},
    "processing": {
        "completed", "failed", "dead_letter", "cancelled", "scheduled", "pending", "waiting",
    },
    "waiting": {"pending", "scheduled", "dead_letter", "cancelled"},
    "completed": set(),
    "failed": {"pending"},
    "dead_letter": {"pending"},
    "cancelled": {"pending"},
}  # fmt: skip


@pytest.mark.parametrize("source", JobStatus)
@pytest.mark.parametrize("wanted", JobStatus)
def test_a_move_is_allowed_or_refused_with_both_states(source, wanted):
    if wanted in ALLOWED[source]:
        require_move(JOB, source, wanted)
        return
    with pytest.raises(IllegalMove) as refused:
        require_move(JOB, source, wanted)
    assert f"is {source}" in str(refused.value)
    assert str(wanted) in str(refused.value)


def test_the_sets_follow_from_the_moves():
    assert {state for state in JobStatus if JobStatus.CANCELLED in MOVES[state]} == CANCELLABLE
    assert {state for state in TERMINAL if JobStatus.PENDING in MOVES[state]} == RETRYABLE
    assert set(JobStatus) == TERMINAL | CANCELLABLE
