"""Validate one address without any key: syntax, then DNS, then, if an operator wants it, SMTP."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from enrichd.domain.email_verdicts import (
    EmailVerification,
    MailHosts,
    Verdict,
    verdict_of,
)
from enrichd.domain.emails import InvalidAddress, is_disposable, is_role, parse_address, printable
from enrichd.providers.dns import Resolver

if TYPE_CHECKING:  # the probe is optional, and so is the library it needs
    from enrichd.providers.smtp_probe import SmtpProber

KEEP_CERTAIN = timedelta(days=7)
KEEP_UNCERTAIN = timedelta(minutes=15)


async def validate_email(
    text: str, *, resolver: Resolver, checked_at: str, probe: SmtpProber | None = None
) -> EmailVerification:
    """Find out what can be known about an address, from cheap to dear; never raises.

    `checked_at` is now, in ISO 8601; the answer may be kept until its `expires_at`. Text that is no
    address asks nobody. Without `probe` no address is ever called valid.
    """
    address = parse_address(text)
    if isinstance(address, InvalidAddress):
        return EmailVerification(
            text=address.text,
            address=None,
            verdict=Verdict.INVALID,
            reasons=(address.reason,),
            checked_at=checked_at,
            expires_at=_later(checked_at, KEEP_CERTAIN),
        )
    mx = await resolver.mail_hosts(address.ascii_domain)
    disposable = is_disposable(address.ascii_domain)
    # A throw-away mailbox that exists is as risky as one that does not: no reason to ask.
    smtp = await probe.check(address, mx) if probe and mx.found and not disposable else None
    verdict, reasons = verdict_of(mx=mx, smtp=smtp, disposable=disposable, role=is_role(address))
    return EmailVerification(
        text=printable(text.strip()),
        address=address,
        verdict=verdict,
        reasons=reasons,
        checked_at=checked_at,
        expires_at=_later(checked_at, _keep(verdict, mx)),
        mx=mx,
        smtp=smtp,
    )


def _keep(verdict: Verdict, mx: MailHosts) -> timedelta:
    # A role address is risky whatever DNS says, but while DNS says nothing its domain may turn out
    # not to exist.
    is_certain = verdict is not Verdict.UNKNOWN and mx.found is not None
    return KEEP_CERTAIN if is_certain else KEEP_UNCERTAIN


def _later(checked_at: str, keep: timedelta) -> str:
    expires_at = (datetime.fromisoformat(checked_at) + keep).isoformat()
    return expires_at.replace("+00:00", "Z") if checked_at.endswith("Z") else expires_at
