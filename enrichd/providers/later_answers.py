"""Answers that come later: called back, or asked for again by the run that begins when they are due.

The question's row stays leased meanwhile, so that nobody puts it a second time. The callback's row
stands before the request is sent, because an answer may come before the provider has said that it
will.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeAlias

import orjson

from enrichd.domain.leads import Lead
from enrichd.errors import ProviderDown, ProviderError, ProviderGarbled, Unavailable
from enrichd.logs import get_logger
from enrichd.providers.answers import Lease
from enrichd.providers.base import Asked, Asynchronous, Found, Pending, Skipped

log = get_logger("providers")

Later: TypeAlias = Found | Pending
AskProvider: TypeAlias = Callable[[Callable[[], Awaitable[Later]]], Awaitable[Asked]]
"""Makes one call when it is allowed; a provider's trouble comes back as a value."""


class Attempt(Protocol):
    """The lease on its way through one call."""

    is_sent: bool
    is_left: bool

    def settle(self, told: Asked) -> None:
        """Say what came of the call."""


class LaterAnswer:
    def __init__(self, callbacks, adapter: Asynchronous, lease: Lease, query: Lead) -> None:
        self._callbacks, self._adapter, self._lease, self._query = callbacks, adapter, lease, query

    async def ask(self, ask: AskProvider, attempt: Attempt, *, want_callback: bool) -> Asked:
        operation = self._lease.question.operation
        if self._lease.pending is None:
            return await ask(
                partial(self._adapter.begin, operation, self._query, callback_url=None)
            )
        return self._lease.pending
