"""Every error enrichd raises on purpose, as one tree.

The second level says what the caller does next: correct the input (Invalid), look elsewhere
(NotFound), accept that the state forbids it (Refused), wait for the database (Unavailable), or try
another source (ProviderError). `code` is the machine-readable name; exit codes and HTTP statuses
are known only to the two edges, `ctl/main.py` and the gateway.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar


class EnrichdError(Exception):
    """Any error that enrichd explains in one plain sentence."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        """What the person can do about it, a sentence, or None."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One wrong field: its dotted path (`leads.3.email`) and what is wrong with it."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}" if self.path else self.problem


class Invalid(EnrichdError):
    """The input is wrong; `fields` names each wrong part."""

    code = "invalid"

    def __init__(
        self, message: str, *, fields: Sequence[FieldProblem] = (), hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.fields = tuple(fields)


class InvalidPayload(Invalid):
    """A job's payload does not fit its type."""

    code = "invalid_payload"


class InvalidSetting(Invalid):
    """A variable has a value that is not allowed."""

    code = "invalid_setting"


class InvalidFile(Invalid):
    """A file to read or write cannot be used as it is."""

    code = "invalid_file"


class NotFound(EnrichdError):
    """Nothing has that name or id."""

    code = "not_found"


class JobNotFound(NotFound):
    """No job of this workspace has that id or prefix."""

    code = "job_not_found"


class Refused(EnrichdError):
    """The state of the thing forbids it."""

    code = "refused"


class IllegalMove(Refused):
    """A job cannot go from its state to the wanted one; the message names both."""

    code = "illegal_move"


class ClaimLost(Refused):
    """The run no longer owns its job: it was rescued, cancelled or retried meanwhile."""

    code = "claim_lost"


class Unavailable(EnrichdError):
    """PostgreSQL cannot be reached or answers that it is the wrong server."""

    code = "database_unavailable"


class NotMigrated(Unavailable):
    """The database has no enrichd tables, or those of an older version."""

    code = "not_migrated"


class ProviderError(EnrichdError):
    """A data provider did not answer as wanted."""

    code = "provider_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, provider: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.provider = provider
        self.cost_credits = Decimal(0)
        """What may have been paid for nothing."""


class ProviderDown(ProviderError):
    """Timeout, refused connection or 5xx: worth another attempt, counted by the breaker."""

    code = "provider_down"
    retryable = True


class ProviderThrottled(ProviderError):
    """The provider's rate limit: the job is snoozed for `retry_after_s` and costs no attempt."""

    code = "provider_throttled"
    retryable = True

    def __init__(
        self, message: str, *, provider: str, retry_after_s: float, hint: str | None = None
    ) -> None:
        super().__init__(message, provider=provider, hint=hint)
        self.retry_after_s = retry_after_s


class ProviderDenied(ProviderError):
    """Wrong key or no permission: the next provider is asked, the breaker opens at once."""

    code = "provider_denied"


class ProviderExhausted(ProviderDenied):
    """No credit left until `reset_after_s`, if the provider says when; the breaker opens."""

    code = "provider_out_of_credits"

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        reset_after_s: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, provider=provider, hint=hint)
        self.reset_after_s = reset_after_s


class ProviderRejected(ProviderError):
    """Our question does not suit the provider (400, 422): the next provider is asked."""

    code = "provider_rejected"


class PersonSuppressed(ProviderError):
    """The person does not want to be found (451): nobody else is asked either, for ever."""

    code = "person_suppressed"


class ProviderGarbled(ProviderError):
    """An answer nobody can read: the next provider is asked."""

    code = "provider_garbled"
