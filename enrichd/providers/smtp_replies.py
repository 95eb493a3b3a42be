"""What the replies of mail servers mean, in the words that they really use."""

from __future__ import annotations

import re

from enrichd.domain.email_verdicts import SmtpClass

ENHANCED = re.compile(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3})(?![\d.]*\d)")
TEXT_READ_MAX = 2000

NEEDS_PTR = re.compile(
    r"reverse (?:hostname|dns|lookup|host name)|\brdns\b|\bptr\b|fcrdns|4\.7\.25|5\.7\.25"
    r"|cannot find your (?:reverse )?hostname|no reverse",
    re.IGNORECASE,
)
BLOCKED = re.compile(
    r"spamhaus|spamcop|barracuda|abusix|cloudmark|\bdnsbl\b|\brbl\b|black ?list|block ?list"
    r"|deny ?list|\bblocked\b|\bblocking\b|\bbanned\b|access denied|client host|reputation",
    re.IGNORECASE,
)
# Weaker words, overruled by a server that says there is no such user: Postfix speaks of a "relay
# recipient table".
POLICY = re.compile(
    r"\bspam|policy|not (?:allowed|authori[sz]ed|permitted)|\brelay|unsolicited|dynamic ip"
    r"|too many|rate limit|sender (?:address )?rejected",
    re.IGNORECASE,
)
FULL = re.compile(
    r"\bfull\b|over ?quota|quota (?:exceeded|full)|exceeded.{0,30}quota"
    r"|storage (?:limit|allocation)|insufficient (?:disk|mailbox) (?:space|storage)",
    re.IGNORECASE,
)
DISABLED = re.compile(
    r"disabled|inactive|deactivated|discontinued|suspended"
    r"|account (?:is )?(?:closed|locked|expired)|not active"
    r"|no longer (?:active|available|in use|valid|works|with)",
    re.IGNORECASE,
)
# Not "mailbox unavailable": RFC 5321 gives that text to every 550, also to one for policy.
UNKNOWN_USER = re.compile(
    r"(?:unknown|invalid|no such|nonexist\w*|non-exist\w*|undeliverable) "
    r"(?:\w+ ){0,2}(?:user|recipient|mailbox|address|account|person|local)"
    r"|(?:user|recipient|mailbox|address|account|alias|email)\b.{0,60}?"
    r"(?:unknown|not (?:found|exist|known|listed|valid|here)|does ?n[o']t exist|doesn't have"
    r"|is ?n[o']t (?:known|valid|found)|invalid|no longer exists)"
    r"|does not exist|no such (?:user|recipient|mailbox|person)|no mailbox|not our customer"
    r"|unknown (?:user|recipient|in (?:virtual|local|relay))|user not|recipient not found",
    re.IGNORECASE,
)
NO_SUCH_MAILBOX = frozenset({"5.1.1", "5.1.10"})
FULL_CODES = frozenset({"4.2.2", "5.2.2"})


def enhanced_code(text: str) -> str | None:
    """Return the RFC 3463 status in a reply, `5.1.1`, if it has one."""
    match = ENHANCED.search(text[:TEXT_READ_MAX])
    return match[1] if match else None


def class_of(code: int, text: str, *, about_recipient: bool) -> SmtpClass:
    """Say what a reply means.

    Only a reply to RCPT TO is about the recipient: what is refused before it (the connection, our
    name, our sender) is about us, and never makes an address invalid. A reply that speaks of block
    lists or policy is about us as well, whatever its code.
    """
    text = text[:TEXT_READ_MAX]
    status = enhanced_code(text)
    if code in (250, 251):
        return SmtpClass.OK
    if NEEDS_PTR.search(text):
        return SmtpClass.NEEDS_PTR
    if about_recipient and code in (452, 552, 422) and FULL.search(text):
        return SmtpClass.FULL_INBOX
    if about_recipient and status in FULL_CODES:
        return SmtpClass.FULL_INBOX
    if BLOCKED.search(text):
        return SmtpClass.BLOCKED
    if 400 <= code < 500:
        return SmtpClass.TEMPFAIL
    if not about_recipient:
        return SmtpClass.BLOCKED if code == 554 or POLICY.search(text) else SmtpClass.OTHER
    if not 500 <= code < 600:
        return SmtpClass.OTHER
    return _refused_recipient(text, status)


def _refused_recipient(text: str, status: str | None) -> SmtpClass:
    if DISABLED.search(text) or status == "5.2.1":
        return SmtpClass.DISABLED
    if status in NO_SUCH_MAILBOX or UNKNOWN_USER.search(text):
        return SmtpClass.INVALID
    if POLICY.search(text) or (status is not None and status.startswith("5.7.")):
        return SmtpClass.BLOCKED
    return SmtpClass.OTHER
