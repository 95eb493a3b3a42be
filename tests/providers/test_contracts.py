"""A provider's table of statuses decides what an answer means."""

from __future__ import annotations

import httpx
import pytest

from enrichd.errors import (
    PersonSuppressed,
    ProviderDenied,
    ProviderDown,
    ProviderExhausted,
    ProviderRejected,
    ProviderThrottled,
)
from enrichd.providers.client import Answer
from enrichd.providers.contracts import Contract, Ending, judge

INVERTED = Contract(
    "https://example.test",
    {403: Ending.RATE_LIMITED, 429: Ending.QUOTA, 401: Ending.AUTH, 451: Ending.SUPPRESSED},
)


def answer(status: int, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer("acme", status, httpx.Headers(named), b"the body")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, ProviderDenied),
        (403, ProviderThrottled),
        (429, ProviderExhausted),
        (451, PersonSuppressed),
        (422, ProviderRejected),
        (302, ProviderRejected),
        (500, ProviderDown),
        (599, ProviderDown),
    ],
)
def test_a_status_means_what_the_table_says(status, error):
    with pytest.raises(error):
        judge(answer(status), INVERTED)


def test_a_body_may_say_more_than_the_status():
    with pytest.raises(ProviderExhausted):
        judge(answer(422), INVERTED, ending=Ending.QUOTA)
    assert judge(answer(404), INVERTED, ending=Ending.NO_MATCH) is Ending.NO_MATCH


def test_the_wait_is_the_answers_own():
    with pytest.raises(ProviderThrottled) as caught:
        judge(answer(403, retry_after="7"), INVERTED)
    assert caught.value.retry_after_s == 7
