"""`providers/email_validation.py`: one address from text to verdict, over real DNS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from enrichd.domain.email_verdicts import EmailVerification, MailHosts, SmtpCheck, SmtpClass
from enrichd.domain.emails import Address
from enrichd.providers.dns import Resolver
from enrichd.providers.email_validation import validate_email
from tests.support.dns_server import DnsServer, Trouble

NOW = "2026-03-01T10:00:00Z"
IN_A_WEEK, IN_15_MINUTES = "2026-03-08T10:00:00Z", "2026-03-01T10:15:00Z"
HAS_MX = {"MX": ["10 aspmx.l.google.com."]}


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with DnsServer(
        {
            "acme.example": HAS_MX,
            "mailinator.com": HAS_MX,
            "gmail.com": HAS_MX,
            "gmaill.com": {"A": ["93.184.216.34"]},
            "null.example": {"MX": ["0 ."]},
            "broken.example": Trouble.SERVFAIL,
        }
    ) as server:
        yield server


class Said:
    """A probe that says the same about everybody; the SMTP side has its own tests."""

    def __init__(self, check: SmtpCheck) -> None:
        self.check_to_give = check
        self.asked: list[str] = []

    async def check(self, address: Address, mx: MailHosts) -> SmtpCheck:
        self.asked.append(str(address))
        return self.check_to_give


async def verification(dns: DnsServer, text: str, probe: Any = None) -> EmailVerification:
    resolver = Resolver([dns.address], timeout_s=0.5)
    return await validate_email(text, resolver=resolver, checked_at=NOW, probe=probe)


@pytest.mark.parametrize(
    ("text", "verdict", "reasons", "expires_at"),
    [
        ("ada@acme.example", "unknown", ["mx_ok"], IN_15_MINUTES),
        ("ada@gmaill.com", "unknown", ["address_record_only"], IN_15_MINUTES),
        ("info@acme.example", "risky", ["role_address", "mx_ok"], IN_A_WEEK),
        ("ada@mailinator.com", "risky", ["disposable_domain", "mx_ok"], IN_A_WEEK),
        (
            "info@mailinator.com",
            "risky",
            ["disposable_domain", "role_address", "mx_ok"],
            IN_A_WEEK,
        ),
        ("ada@nowhere.example", "invalid", ["domain_not_found"], IN_A_WEEK),
        ("info@nowhere.example", "invalid", ["domain_not_found"], IN_A_WEEK),
        ("ada@null.example", "invalid", ["null_mx"], IN_A_WEEK),
        ("ada@broken.example", "unknown", ["dns_servfail"], IN_15_MINUTES),
        ("info@broken.example", "risky", ["role_address", "dns_servfail"], IN_15_MINUTES),
        ("not an email", "invalid", ["missing_at"], IN_A_WEEK),
    ],
)
async def test_without_a_probe_dns_and_the_name_decide(dns, text, verdict, reasons, expires_at):
    got = (await verification(dns, text)).to_json()

    assert (got["verdict"], got["reasons"], got["expiresAt"]) == (verdict, reasons, expires_at)


async def test_wrong_syntax_asks_nobody(dns):
    probe = Said(SmtpCheck(SmtpClass.OK))

    await verification(dns, "ada@@acme.example", probe)

    assert (dns.asked(), probe.asked) == (0, [])


@pytest.mark.parametrize("text", ["ada@nowhere.example", "ada@broken.example", "x@mailinator.com"])
async def test_a_mail_server_is_asked_only_where_its_answer_can_matter(dns, text):
    probe = Said(SmtpCheck(SmtpClass.OK))

    await verification(dns, text, probe)

    assert probe.asked == []


@pytest.mark.parametrize(
    ("check", "verdict", "reasons"),
    [
        (SmtpCheck(SmtpClass.OK, is_catch_all=False), "valid", ["smtp_ok", "mx_ok"]),
        (SmtpCheck(SmtpClass.OK, is_catch_all=True), "risky", ["catch_all", "smtp_ok", "mx_ok"]),
        (SmtpCheck(SmtpClass.OK), "unknown", ["catch_all_unknown", "smtp_ok", "mx_ok"]),
        (SmtpCheck(SmtpClass.INVALID), "invalid", ["mailbox_not_found"]),
        (SmtpCheck(SmtpClass.DISABLED), "invalid", ["mailbox_disabled"]),
        (SmtpCheck(SmtpClass.FULL_INBOX), "risky", ["full_inbox", "mx_ok"]),
        (SmtpCheck(SmtpClass.BLOCKED), "unknown", ["smtp_blocked", "mx_ok"]),
        (SmtpCheck(SmtpClass.TEMPFAIL), "unknown", ["smtp_tempfail", "mx_ok"]),
        (SmtpCheck(SmtpClass.NEEDS_PTR), "unknown", ["smtp_needs_ptr", "mx_ok"]),
        (SmtpCheck(SmtpClass.PORT_BLOCKED), "unknown", ["port25_blocked", "mx_ok"]),
        (SmtpCheck(SmtpClass.UNREACHABLE), "unknown", ["smtp_unreachable", "mx_ok"]),
        (SmtpCheck(SmtpClass.NOT_ASKED, checked=False), "unknown", ["smtp_not_asked", "mx_ok"]),
        (SmtpCheck(SmtpClass.OTHER), "unknown", ["smtp_unclear", "mx_ok"]),
    ],
)
async def test_what_the_mail_server_said_decides_when_it_was_asked(dns, check, verdict, reasons):
    got = (await verification(dns, "ada@acme.example", Said(check))).to_json()

    assert (got["verdict"], got["reasons"]) == (verdict, reasons)


async def test_the_answer_has_the_shape_of_the_data_model(dns):
    dns.zones["xn--bcher-kva.example"] = {"MX": ["20 b.example.", "10 aspmx.l.google.com."]}
    check = SmtpCheck(SmtpClass.OK, connected=True, code=250, is_catch_all=False)

    got = (await verification(dns, " Ada@Bücher.example ", Said(check))).to_json()

    assert got == {
        "email": "Ada@Bücher.example",
        "normalizedEmail": "Ada@bücher.example",
        "canonicalKey": "ada@xn--bcher-kva.example",
        "verdict": "valid",
        "score": 95,
        "scores": {},
        "reasons": ["smtp_ok", "mx_ok"],
        "isSyntaxValid": True,
        "suggestion": None,
        "domain": "bücher.example",
        "mx": {
            "found": True,
            "records": [
                {"host": "aspmx.l.google.com", "preference": 10},
                {"host": "b.example", "preference": 20},
            ],
            "nullMx": False,
            "fallback": None,
            "provider": "google",
        },
        "isDisposable": False,
        "isRole": False,
        "isFreeMail": False,
        "isCatchAll": False,
        "isFullInbox": False,
        "isDisabled": False,
        "smtp": {
            "checked": True,
            "connected": True,
            "code": 250,
            "enhancedCode": None,
            "class": "ok",
        },
        "checkedBy": ["builtin"],
        "decidedBy": "builtin",
        "checkedAt": NOW,
        "expiresAt": IN_A_WEEK,
    }


async def test_wrong_syntax_has_the_same_shape_with_nothing_known(dns):
    right = (await verification(dns, "ada@acme.example")).to_json()
    wrong = (await verification(dns, "mailto:a\x00b?x=\x00")).to_json()

    assert wrong.keys() == right.keys()
    assert wrong["mx"].keys() == right["mx"].keys()
    assert (wrong["isSyntaxValid"], wrong["mx"]["found"], wrong["score"]) == (False, None, 0)
    assert "\x00" not in wrong["email"]


async def test_what_is_thrown_away_while_reading_is_not_stored_either(dns):
    got = await verification(dns, "mailto:ada@acme.example?subject=\x00")

    assert got.verdict == "unknown"
    assert "\x00" not in got.text


async def test_a_typo_and_a_free_provider_are_named(dns):
    typo = (await verification(dns, "ada@gmaill.com")).to_json()
    free = (await verification(dns, "A.da+x@gmail.com")).to_json()

    assert (typo["suggestion"], typo["isFreeMail"]) == ("ada@gmail.com", False)
    assert (free["canonicalKey"], free["isFreeMail"]) == ("ada@gmail.com", True)


async def test_ten_thousand_addresses_of_one_company_make_one_lookup(dns):
    resolver = Resolver([dns.address])

    answers = await asyncio.gather(
        *(
            validate_email(f"p{i}@acme.example", resolver=resolver, checked_at=NOW)
            for i in range(10_000)
        )
    )

    assert {answer.verdict for answer in answers} == {"unknown"}
    assert dns.asked() == 1


async def test_the_offset_of_the_clock_is_kept(dns):
    got = await validate_email(
        "", resolver=Resolver([dns.address]), checked_at="2026-03-01T12:00:00+02:00"
    )

    assert got.expires_at == "2026-03-08T12:00:00+02:00"
