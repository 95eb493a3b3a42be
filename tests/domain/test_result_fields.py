import pytest

from enrichd.domain.result_fields import (
    DEFAULT_FIELDS,
    FIELDS,
    cell_text,
    chosen_fields,
    column_values,
)
from enrichd.errors import Invalid

RESULT = {
    "leadId": "7",
    "outcome": "complete",
    "person": {
        "email": "anna@acme.de",
        "fullName": "Anna Schmidt",
        "phones": [{"number": "+49301"}, {"number": "+49302", "primary": True}],
        "location": {"city": None, "countryCode": "DE"},
        "socialProfiles": [{"network": "x", "url": "https://x.com/a"}],
    },
    "company": {
        "name": "Acme",
        "description": "We make\r\n\tthings.\x1b[2J",
        "employeeCount": 12.0,
        "phones": ["+49300"],
        "technologies": ["nginx", "", "React"],
    },
    "emailVerification": {"verdict": "valid", "reasons": ["a", "b"], "isCatchAll": False},
    "missing": [{"entity": "company", "field": "logoUrl", "reason": "robots_disallowed"}],
}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("email", "anna@acme.de"),
        ("email_verdict", "valid"),
        ("email_reasons", "a; b"),
        ("email_is_catch_all", "no"),
        ("phone", "+49302"),
        ("country", "DE"),
        ("x_url", "https://x.com/a"),
        ("linkedin_url", ""),
        ("company_description", "We make things. [2J"),
        ("company_employees", "12"),
        ("company_phone", "+49300"),
        ("company_technologies", "nginx; React"),
        ("missing", "company.logoUrl: robots_disallowed"),
    ],
)
def test_a_field_is_the_text_of_its_value(field, text):
    assert column_values(RESULT, None, [field]) == [text]


@pytest.mark.parametrize("result", [None, {}, {"person": None, "company": 1, "missing": "x"}])
def test_every_field_copes_with_a_result_that_lacks_it(result):
    assert column_values(result, None, list(FIELDS)) == [""] * len(FIELDS)


def test_an_error_stands_in_its_column():
    assert column_values(None, "no provider left", ["outcome", "email", "error"]) == [
        "failed", "", "no provider left",
    ]  # fmt: skip
    assert column_values(RESULT, "late", ["outcome", "error"]) == ["complete", "late"]


def test_a_cell_has_room_in_excel():
    assert len(cell_text("x" * 100_000)) == 32_000


def test_fields_are_chosen_by_name():
    assert chosen_fields(None) == DEFAULT_FIELDS
    assert chosen_fields("all") == tuple(FIELDS)
    assert chosen_fields("email, Company-Name,email") == ("email", "company_name")


@pytest.mark.parametrize("text", ["emial", "", ",", "all,emial"])
def test_an_unknown_field_names_what_comes_close(text):
    with pytest.raises(Invalid) as caught:
        chosen_fields(text)
    assert "company_domain" in caught.value.hint
    assert text != "emial" or "did you mean email" in caught.value.message


def test_the_default_fields_exist():
    assert set(DEFAULT_FIELDS) <= set(FIELDS)
