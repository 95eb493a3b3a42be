"""A data provider's check of an address, written as ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from enrichd.domain.email_verdicts import (
    EmailVerification,
    MailHosts,
    SmtpCheck,
    SmtpClass,
    Verdict,
)
from enrichd.domain.emails import Address

KEEP_CERTAIN: Final = timedelta(days=7)
KEEP_UNCERTAIN: Final = timedelta(minutes=15)


def checked_email(
    address: Address,
    verdict: Verdict,
    reason: str,
    *,
    checked_by: str,
    checks: Mapping[str, Any] | None = None,
    score: Any = None,
    checked_at: str | None = None,
) -> EmailVerification:
    """Return a verdict with what it rests on, to be kept for a while.

    `reason` is snake_case; `checks` are `{"mx_records", "smtp_server", "smtp_check",
    "accept_all"}`, each true, false or whatever (then it is not known). `score` is the provider's
    own, 0 to 100, or whatever (then it gave none). `checked_at` is ISO 8601, None is now.
    """
    has_mx, is_reached, is_taken, is_catch_all = (
        value if isinstance(value := (checks or {}).get(key), bool) else None
        for key in ("mx_records", "smtp_server", "smtp_check", "accept_all")
    )
    kind = SmtpClass.OTHER
    if is_taken:
        kind = SmtpClass.OK
    elif is_reached is False:
        kind = SmtpClass.UNREACHABLE
    elif verdict is Verdict.INVALID and is_taken is False:
        kind = SmtpClass.INVALID
    smtp = SmtpCheck(
        kind,
        checked=is_taken is not None,
        connected=is_reached is True,
        is_catch_all=is_catch_all,
    )
    checked_at = checked_at or _iso(now())
    keep = KEEP_UNCERTAIN if verdict is Verdict.UNKNOWN else KEEP_CERTAIN
    return EmailVerification(
        text=str(address),
        address=address,
        verdict=verdict,
        reasons=(reason,),
        checked_at=checked_at,
        expires_at=_iso(datetime.fromisoformat(checked_at) + keep),
        mx=MailHosts(found=has_mx, reason="no_mail_host" if has_mx is False else None),
        smtp=smtp if is_taken is not None or is_catch_all is not None else None,
        checked_by=(checked_by,),
        scores={checked_by: round(score)} if _is_score(score) else {},
    )


def now() -> datetime:
    """Return when something is checked."""
    return datetime.now(UTC)  # noqa: TID251 - when something was checked, not when a job is due


def _is_score(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= 100


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
