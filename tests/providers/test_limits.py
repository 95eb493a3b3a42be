"""The limits in force: configured, documented, and which of them gives way."""

from __future__ import annotations

from enrichd.providers.client import common_limits
from enrichd.providers.contracts import Contract, Window
from enrichd.providers.limits import limits_in_force
from enrichd.providers.operations import Operation

COMMON = (Window(1, 10), Window(60, 100), Window(3600, 1000))
CONTRACT = Contract(
    "https://api.test",
    statuses={},
    limits={
        None: (Window(60, 500), Window(86_400, 5000)),
        Operation.VERIFY_EMAIL: (Window(60, 300),),
    },
)


def test_what_is_configured_and_what_is_documented_both_hold():
    assert limits_in_force(common_limits("x"), CONTRACT) == {
        "*": (*COMMON, Window(60, 500), Window(86_400, 5000)),
        "verifyEmail": (Window(60, 300),),
    }
    assert limits_in_force(common_limits("x"), None) == {"*": COMMON}


def test_a_limit_set_for_the_provider_by_name_replaces_the_documented_ones_of_its_length():
    bought = common_limits("x").model_copy(
        update={
            "rate_limit_per_minute": 9000,
            "rate_limit_per_day": 7,
            "limits_by_name": frozenset({"rate_limit_per_minute"}),
        }
    )

    assert limits_in_force(bought, CONTRACT) == {
        "*": (
            *(Window(1, 10), Window(60, 9000), Window(3600, 1000), Window(86_400, 7)),
            Window(86_400, 5000),
        )
    }
