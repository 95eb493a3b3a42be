"""`providers/smtp_replies.py`: real wordings of mail servers, and what each of them means."""

from __future__ import annotations

import time

import pytest

from enrichd.providers.smtp_replies import class_of, enhanced_code


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (250, "2.1.5 Ok", "ok"),
        (251, "User not local; will forward", "ok"),
        (252, "Cannot VRFY user", "other"),
        (550, "5.1.1 <x@acme.com>: Recipient address rejected: User unknown", "invalid"),
        (550, "5.1.1 The email account that you tried to reach does not exist.", "invalid"),
        (550, "5.1.10 RESOLVER.ADR.RecipientNotFound; not found by SMTP address", "invalid"),
        (550, "No such user here", "invalid"),
        (550, "5.4.1 Recipient not found", "invalid"),
        (553, "sorry, that address does not exist", "invalid"),
        (550, "Unknown user: x@acme.com", "invalid"),
        (550, "5.1.1 <x@acme.com>: User unknown in relay recipient table", "invalid"),
        (550, "User unknown in relay recipient table", "invalid"),
        (550, "5.1.1 User unknown; you are blocked using Spamhaus", "blocked"),
        (552, "5.2.2 The email account that you tried to reach is over quota", "fullInbox"),
        (452, "4.2.2 The recipient's inbox is full", "fullInbox"),
        (550, "5.2.2 mailbox is full", "fullInbox"),
        (550, "5.2.1 The email account that you tried to reach is disabled", "disabled"),
        (554, "delivery error: This user's account is inactive", "disabled"),
        (550, "mailbox discontinued", "disabled"),
        (550, "5.4.1 Recipient address rejected: Access denied. AS(201806281)", "blocked"),
        (550, "5.7.1 Service unavailable; client host [192.0.2.1] blocked, Spamhaus", "blocked"),
        (554, "Your IP is on our blacklist", "blocked"),
        (550, "5.7.1 Message rejected due to local policy", "blocked"),
        (550, "5.7.606 Access denied, banned sending IP [192.0.2.1]", "blocked"),
        (554, "5.7.1 rejected", "blocked"),
        (550, "Relaying denied", "blocked"),
        (450, "4.7.25 Client host rejected: cannot find your reverse hostname", "needsPtr"),
        (550, "5.7.25 the sending IP does not have a PTR record", "needsPtr"),
        (450, "4.2.0 Greylisted, please try again later", "tempfail"),
        (451, "Temporary local problem", "tempfail"),
        (421, "Service not available, closing channel", "tempfail"),
        (450, "mailbox temporarily disabled", "tempfail"),
        (450, "4.1.1 User unknown, try later", "tempfail"),
        (452, "4.3.1 Insufficient system resources", "tempfail"),
        (550, "Requested action not taken: mailbox unavailable", "other"),
        (550, "", "other"),
        (599, "\udcff\x00", "other"),
    ],
)
def test_a_reply_about_the_recipient_has_its_meaning(code, text, expected):
    assert class_of(code, text, about_recipient=True) == expected


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (550, "5.1.1 sender user unknown", "other"),
        (552, "mailbox full", "other"),
        (550, "account disabled", "other"),
        (554, "no", "blocked"),
        (554, "5.7.1 listed at Spamhaus", "blocked"),
        (450, "cannot find your hostname", "needsPtr"),
        (421, "busy", "tempfail"),
    ],
)
def test_a_reply_about_us_never_speaks_against_the_mailbox(code, text, expected):
    assert class_of(code, text, about_recipient=False) == expected


def test_the_status_of_a_reply_is_found_anywhere_in_it():
    assert enhanced_code("5.1.1 no") == "5.1.1"
    assert enhanced_code("#5.1.10 no") == "5.1.10"
    assert enhanced_code("client 10.5.1.1 refused") is None
    assert enhanced_code("") is None


def test_a_hostile_reply_is_read_quickly():
    started = time.perf_counter()
    class_of(550, "user " * 20_000 + "mailbox " * 20_000, about_recipient=True)
    assert time.perf_counter() - started < 0.1
