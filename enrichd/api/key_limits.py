"""How often one key may call: a token bucket for each, in this process.

The headers are those of the IETF's draft "RateLimit header fields for HTTP": `RateLimit-Policy`
says the quota and its window, `RateLimit` what is left and after how many seconds all of it is
back.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from enrichd.api.problems import Problem

KEYS_MAX = 10_000
"""Buckets that are kept; the one used longest ago makes room. It was full again long before."""


@dataclass(slots=True)
class Bucket:
    """What one key has left, and when that was so."""

    tokens: float
    at: float


class Buckets:
    """The buckets of all keys. A key gains `per_second` tokens a second, up to `burst`."""

    def __init__(
        self, per_second: float, burst: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._by_key: OrderedDict[str, Bucket] = OrderedDict()
        window_s = max(math.ceil(burst / per_second), 1)
        self._policy = f'"key";q={burst};w={window_s}'

    def take(self, key_id: str) -> dict[str, str]:
        """Take a token and return the headers that say so. Raises Problem 429."""
        now = self._clock()
        bucket = self._by_key.get(key_id)
        if bucket is None:
            if len(self._by_key) >= KEYS_MAX:
                self._by_key.popitem(last=False)
            bucket = self._by_key[key_id] = Bucket(float(self._burst), now)
        else:
            gained = (now - bucket.at) * self._per_second
            bucket.tokens = min(bucket.tokens + gained, float(self._burst))
            bucket.at = now
            self._by_key.move_to_end(key_id)
        if bucket.tokens < 1.0:
            wait_s = math.ceil((1.0 - bucket.tokens) / self._per_second)
            raise Problem(
                429,
                "too_many_requests",
                f"This key may make {self._per_second:g} requests a second,"
                f" {self._burst} at once; try again in {wait_s} s.",
                headers={**self._headers(bucket), "Retry-After": str(wait_s)},
            )
        bucket.tokens -= 1.0
        return self._headers(bucket)

    def _headers(self, bucket: Bucket) -> dict[str, str]:
        full_s = math.ceil((self._burst - bucket.tokens) / self._per_second)
        return {
            "RateLimit-Policy": self._policy,
            "RateLimit": f'"key";r={int(bucket.tokens)};t={full_s}',
        }
