import pytest

from enrichd.ctl.sheet_leads import clean_domain, clean_email, clean_linkedin, clean_text, read_lead


@pytest.mark.parametrize(
    ("cell", "domain"),
    [
        ("https://www.Firma.de/x?y#z", "firma.de"),
        ("FIRMA.DE", "firma.de"),
        ("//x.de:80", "x.de"),
        ("http:\\\\x.de", "x.de"),
        ("http://user:pw@x.co.uk:8080/", "x.co.uk"),
        ("info@x.de", "x.de"),
        ("www.x.de.", "x.de"),
        ("x.de, y.de", "x.de"),
        ("https://müller.de", "xn--mller-kva.de"),
        ("10.0.0.1", ""),
        ("localhost", ""),
        ("http://[::1", ""),
        ("https://www.linkedin.com/company/x", ""),
        ("n/a", ""),
        ("Acme GmbH", ""),
        ("." * 500, ""),
    ],
)
def test_a_url_is_cut_down_to_its_domain(cell, domain):
    assert clean_domain(cell) == domain


@pytest.mark.parametrize(
    ("cell", "email"),
    [
        (" Anna@X.de\u200b", "Anna@X.de"),
        ("Anna <a@b.de>", "a@b.de"),
        ("mailto:a@b.de", "a@b.de"),
        ("a@b.de; c@d.de", "a@b.de"),
        ("broken@", "broken@"),
        ("none", ""),
        ("anna(at)x.de", ""),
    ],
)
def test_an_address_is_taken_out_of_its_cell(cell, email):
    assert clean_email(cell) == email


@pytest.mark.parametrize(
    ("cell", "url"),
    [
        ("linkedin.com/in/anna", "https://linkedin.com/in/anna"),
        ("in/anna", "https://www.linkedin.com/in/anna"),
        ("https://de.linkedin.com/in/a", "https://de.linkedin.com/in/a"),
        ("linkedin.com/company/x", ""),
        ("anna", ""),
    ],
)
def test_a_profile_is_a_url(cell, url):
    assert clean_linkedin(cell) == url


def test_text_is_one_line_in_nfc_without_controls():
    assert clean_text(" Mu\u0308ller\x00\n &  So\u0308hne\t") == "Müller & Söhne"


def test_city_and_country_become_the_location():
    lead, reason = read_lead([("companyName", "Acme"), ("city", "Berlin"), ("country", "Germany")])
    assert (lead, reason) == ({"companyName": "Acme", "location": "Berlin, Germany"}, None)


def test_a_name_alone_is_nothing_to_look_up():
    _, reason = read_lead([("fullName", "Anna Schmidt"), ("email", "-"), ("domain", "n/a")])
    assert reason == "nothing to look up: no email, domain, company or LinkedIn URL"


def test_long_text_is_cut_and_a_long_address_refused():
    assert len(read_lead([("companyName", "x" * 600)])[0]["companyName"]) == 512
    assert read_lead([("email", "x" * 600 + "@x.de")])[1] == "email is longer than 512 characters"
