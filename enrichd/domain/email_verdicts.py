"""From what DNS and a mail server said about an address to valid, invalid, risky or unknown.

`MailHosts` is DNS's answer, `SmtpCheck` the mail server's. `verdict_of` is the one place that
weighs them; `EmailVerification` is the record that is kept. No clock and no network here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from enrichd.domain.emails import (
    Address,
    canonical_key,
    is_disposable,
    is_free_mail,
    is_role,
    mx_provider,
    suggestion,
)
from enrichd.domain.facts import Json


@dataclass(frozen=True, slots=True)
class MxRecord:
    """One exchange of a domain, without the last dot."""

    host: str
    preference: int


@dataclass(frozen=True, slots=True)
class MailHosts:
    """What DNS says about where a domain takes its mail."""

    found: bool | None
    """True: mail has somewhere to go. False: it has not, for certain. None: DNS could not say."""
    reason: str | None = None
    """Why not, when `found` is not True: `domain_not_found`, `null_mx`, `dns_timeout`."""
    records: tuple[MxRecord, ...] = ()
    """By preference, best first; empty when `fallback` stands in for them."""
    null_mx: bool = False
    fallback: Literal["a", "aaaa"] | None = None
    """Without MX records mail goes to the domain's own address (RFC 5321, 5.1)."""


NOT_LOOKED_UP = MailHosts(found=None)


class SmtpClass(StrEnum):
    """What a mail server's answer means; only `invalid` and `disabled` speak against a mailbox."""

    OK = "ok"
    INVALID = "invalid"
    FULL_INBOX = "fullInbox"
    DISABLED = "disabled"
    BLOCKED = "blocked"
    TEMPFAIL = "tempfail"
    NEEDS_PTR = "needsPtr"
    PORT_BLOCKED = "portBlocked"
    UNREACHABLE = "unreachable"
    NOT_ASKED = "notAsked"
    """No public address to ask, the probe's own limit is used up, or the answer is known."""
    OTHER = "other"


SMTP_REASONS: dict[SmtpClass, str] = {
    SmtpClass.OK: "smtp_ok",
    SmtpClass.INVALID: "mailbox_not_found",
    SmtpClass.FULL_INBOX: "full_inbox",
    SmtpClass.DISABLED: "mailbox_disabled",
    SmtpClass.BLOCKED: "smtp_blocked",
    SmtpClass.TEMPFAIL: "smtp_tempfail",
    SmtpClass.NEEDS_PTR: "smtp_needs_ptr",
    SmtpClass.PORT_BLOCKED: "port25_blocked",
    SmtpClass.UNREACHABLE: "smtp_unreachable",
    SmtpClass.NOT_ASKED: "smtp_not_asked",
    SmtpClass.OTHER: "smtp_unclear",
}


@dataclass(frozen=True, slots=True)
class SmtpCheck:
    """How the dialogue with a domain's mail server ended."""

    kind: SmtpClass
    checked: bool = True
    """False: the server was never asked about this mailbox."""
    connected: bool = False
    code: int | None = None
    enhanced_code: str | None = None
    is_catch_all: bool | None = None
    """Whether the server takes mail for a mailbox that cannot exist; None if that is not known."""

    def to_json(self) -> dict[str, Json]:
        """Return the `smtp` object of the data model."""
        return {
            "checked": self.checked,
            "connected": self.connected,
            "code": self.code,
            "enhancedCode": self.enhanced_code,
            "class": str(self.kind),
        }


class Verdict(StrEnum):
    """What a sender should make of an address."""

    VALID = "valid"
    INVALID = "invalid"
    RISKY = "risky"
    UNKNOWN = "unknown"


SCORES: dict[Verdict, int | None] = {
    Verdict.VALID: 95,
    Verdict.RISKY: 50,
    Verdict.INVALID: 0,
    Verdict.UNKNOWN: None,
}


def verdict_of(
    *, mx: MailHosts, smtp: SmtpCheck | None, disposable: bool, role: bool
) -> tuple[Verdict, tuple[str, ...]]:
    """Judge an address whose syntax is right; return the verdict and its reasons.

    The reasons that decided come first. Certain bad news wins over a risk, a risk over good news,
    and DNS alone is never good news: a domain that takes mail has not promised this mailbox.
    Trouble on the way (DNS, a block list, port 25) says nothing about it.
    """
    if mx.found is False:
        return Verdict.INVALID, (mx.reason or "no_mail_host",)
    if smtp is not None and smtp.kind in (SmtpClass.INVALID, SmtpClass.DISABLED):
        return Verdict.INVALID, (SMTP_REASONS[smtp.kind],)

    evidence = _evidence(mx, smtp)
    risks = {
        "disposable_domain": disposable,
        "role_address": role,
        "catch_all": smtp is not None and smtp.is_catch_all is True,
        "full_inbox": smtp is not None and smtp.kind is SmtpClass.FULL_INBOX,
    }
    if any(risks.values()):
        named = [risk for risk, holds in risks.items() if holds]
        return Verdict.RISKY, (*named, *(said for said in evidence if said not in named))
    if smtp is not None and smtp.kind is SmtpClass.OK and smtp.is_catch_all is False:
        return Verdict.VALID, evidence
    return Verdict.UNKNOWN, evidence


def _evidence(mx: MailHosts, smtp: SmtpCheck | None) -> tuple[str, ...]:
    if mx.found is None:
        return (mx.reason or "dns_not_asked",)
    dns = "mx_ok" if mx.fallback is None else "address_record_only"
    if smtp is None:
        return (dns,)
    if smtp.kind is SmtpClass.OK and smtp.is_catch_all is None:
        return ("catch_all_unknown", SMTP_REASONS[smtp.kind], dns)
    return (SMTP_REASONS[smtp.kind], dns)


@dataclass(frozen=True, slots=True)
class EmailVerification:
    """Everything one validation found out about one address."""

    text: str
    """What was given, safe to store."""
    address: Address | None
    """None if the syntax is wrong; then `reasons` has why."""
    verdict: Verdict
    reasons: tuple[str, ...]
    checked_at: str
    expires_at: str
    mx: MailHosts = NOT_LOOKED_UP
    smtp: SmtpCheck | None = None
    checked_by: tuple[str, ...] = ("builtin",)
    """Everybody who looked, in order."""
    decided_by: str | None = None
    """Whose verdict it is; None: that of the first who looked."""
    scores: Mapping[str, int] = field(default_factory=dict)
    """0 to 100, by the provider that says so; not everybody does."""

    @property
    def decider(self) -> str | None:
        """Return whose verdict it is."""
        return self.decided_by or next(iter(self.checked_by), None)

    @property
    def score(self) -> int | None:
        """Return the score of who decided, else what such a verdict is worth; None if unknown."""
        usual = SCORES[self.verdict]
        return None if usual is None else self.scores.get(self.decider or "", usual)

    def to_json(self) -> dict[str, Json]:
        """Return the data model's `EmailVerification`."""
        address = self.address
        return {
            "email": self.text,
            "normalizedEmail": str(address) if address else None,
            "canonicalKey": canonical_key(address) if address else None,
            "verdict": str(self.verdict),
            "score": self.score,
            "scores": dict(self.scores),
            "reasons": list(self.reasons),
            "isSyntaxValid": address is not None,
            "suggestion": suggestion(address) if address else None,
            "domain": address.domain if address else None,
            "mx": _mx_json(self.mx),
            "isDisposable": is_disposable(address.ascii_domain) if address else False,
            "isRole": is_role(address) if address else False,
            "isFreeMail": is_free_mail(address.ascii_domain) if address else False,
            "isCatchAll": self.smtp.is_catch_all if self.smtp else None,
            "isFullInbox": self.smtp is not None and self.smtp.kind is SmtpClass.FULL_INBOX,
            "isDisabled": self.smtp is not None and self.smtp.kind is SmtpClass.DISABLED,
            "smtp": self.smtp.to_json() if self.smtp else None,
            "checkedBy": list(self.checked_by),
            "decidedBy": self.decider,
            "checkedAt": self.checked_at,
            "expiresAt": self.expires_at,
        }


def _mx_json(mx: MailHosts) -> dict[str, Json]:
    return {
        "found": mx.found,
        "records": [{"host": mx.host, "preference": mx.preference} for mx in mx.records],
        "nullMx": mx.null_mx,
        "fallback": mx.fallback,
        "provider": mx_provider([record.host for record in mx.records]),
    }
