import pytest

from enrichd.ctl.sheet_aliases import ALIASES, header_key, known_field
from enrichd.ctl.sheet_columns import looks_like_header, name_by_content, recognise
from enrichd.errors import InvalidFile


def fields_of(header, *rows, mapping=None):
    """Return field → the column's name."""
    found = recognise(header, rows, mapping or {}, has_header=True)
    return {field: header[index] for field, index in found.items()}


def names_of(header, *rows):
    """Return column → its field."""
    return {name: field for field, name in fields_of(header, *rows).items()}


@pytest.mark.parametrize(
    "header",
    [
        ["Vorname", "Nachname", "Firma", "E-Mail-Adresse", "Webseite"],
        ["Prénom", "Nom", "Société", "Courriel", "Site web"],
        ["Nombre", "Apellidos", "Empresa", "Correo electrónico", "Sitio web"],
        ["Nome", "Cognome", "Ragione sociale", "Indirizzo e-mail", "Sito web"],
        ["Nome", "Sobrenome", "Empresa", "Endereço de e-mail", "Página web"],
        ["Voornaam", "Achternaam", "Bedrijfsnaam", "E-mailadres", "Domein"],
        ["Imię", "Nazwisko", "Nazwa firmy", "Adres e-mail", "Strona www"],
        ["Förnamn", "Efternamn", "Företag", "E-postadress", "Webbplats"],
        ["Fornavn", "Efternavn", "Virksomhed", "E-mail", "Hjemmeside"],
        ["Fornavn", "Etternavn", "Bedrift", "E-post", "Nettside"],
        ["Etunimi", "Sukunimi", "Yritys", "Sähköposti", "Verkkosivu"],
        ["Jméno", "Příjmení", "Společnost", "E-mailová adresa", "Webové stránky"],
        ["Keresztnév", "Vezetéknév", "Cégnév", "E-mail cím", "Honlap"],
        ["Prenume", "Nume", "Companie", "Adresă de email", "Site web"],
        ["First Name", "LAST_NAME", "Company Name for Emails", "Work e-mail", "Company Domain"],
        ["firstName", "lastName", "companyName", "contactEmail", "companyWebsite"],
        [
            "properties.firstname",
            "properties.lastname",
            "Company",
            "properties.email",
            "Website URL",
        ],
    ],
)
def test_headers_are_read_in_their_language(header):
    assert list(fields_of(header).items()) == list(
        zip(["email", "firstName", "lastName", "companyName", "domain"],
            [header[3], header[0], header[1], header[2], header[4]], strict=True)
    )  # fmt: skip


def test_linkedins_own_export_is_read():
    header = ["First Name", "Last Name", "URL", "Email Address", "Company", "Position"]
    rows = [["A", "B", f"https://www.linkedin.com/in/{n}", "", "Acme", "CEO"] for n in "abc"]
    assert fields_of(header, *rows) == {
        "email": "Email Address", "firstName": "First Name", "lastName": "Last Name",
        "companyName": "Company", "linkedinUrl": "URL", "title": "Position",
    }  # fmt: skip


def test_apollos_export_is_read():
    header = [
        "First Name", "Last Name", "Title", "Company", "Company Name for Emails", "Email",
        "Email Status", "Work Direct Phone", "Person Linkedin Url", "Website",
        "Company Linkedin Url", "City", "Country",
    ]  # fmt: skip
    assert names_of(header) == {
        "First Name": "firstName", "Last Name": "lastName", "Title": "title",
        "Company": "companyName",
        "Email": "email", "Work Direct Phone": "phone", "Person Linkedin Url": "linkedinUrl",
        "Website": "domain", "City": "city", "Country": "country",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("header", "row", "field"),
    [
        (["Name", "Vorname", "E-Mail"], ["Schmidt", "Anna", "a@x.de"], "lastName"),
        (["Name", "Firma"], ["Anna Schmidt", "Acme"], "fullName"),
        (["Name", "First name", "Last name"], ["Acme", "Anna", "Schmidt"], "companyName"),
        (["Name", "Email"], ["Anna Schmidt", "anna.schmidt@x.de"], "fullName"),
        (["Name", "Email"], ["Acme GmbH", "info@acme.de"], "companyName"),
        (["Name", "Email"], ["Acme", "info@acme.de"], "companyName"),
        (["Name", "Website"], ["Acme", "acme.de"], "companyName"),
        (["Nome", "Email"], ["Anna Rossi", "anna@x.it"], "fullName"),
        (["Nom", "Prénom", "Email"], ["Dupont", "Anne", "a@x.fr"], "lastName"),
        (["Kontakt", "Firma"], ["anna@x.de", "Acme"], "email"),
        (["Contact", "Company"], ["+49 30 1234567", "Acme"], "phone"),
        (["Contact", "Company"], ["Anna Schmidt", "Acme"], "fullName"),
    ],
)
def test_a_word_that_depends_is_settled_by_the_others(header, row, field):
    assert names_of(header, row, row, row)[header[0]] == field


def test_a_name_is_not_believed_against_its_cells():
    rows = [["yes", "anna@x.de"], ["no", "jan@y.de"], ["yes", "eva@z.de"]]
    assert fields_of(["Email", "Wer"], *rows) == {"email": "Wer"}


def test_a_title_that_is_a_salutation_is_none():
    rows = [["Herr", "CEO", "a@x.de"], ["Frau", "CTO", "b@x.de"], ["Dr.", "CFO", "c@x.de"]]
    assert fields_of(["Titel", "Funktion", "E-Mail"], *rows)["title"] == "Funktion"


def test_the_better_name_wins_over_the_earlier_column():
    assert fields_of(["Personal Email", "Work Email"])["email"] == "Work Email"
    assert fields_of(["E-Mail 2", "Email"])["email"] == "Email"


def test_a_date_is_not_a_phone():
    rows = [["a@x.de", "01.02.2024"]] * 5
    assert fields_of(["Email", "Wann"], *rows) == {"email": "Email"}


def test_the_map_wins_and_can_leave_a_field_out():
    header = ["Email", "Mail pro", "Title"]
    assert fields_of(header, mapping={"email": "mail-pro"}) == {
        "email": "Mail pro",
        "title": "Title",
    }
    assert fields_of(header, mapping={"e-mail": "2", "title": ""}) == {"email": "Mail pro"}


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"email": "Mial pro"}, "no column 'Mial pro'; did you mean Mail pro?"),
        ({"emial": "Mail pro"}, "no field 'emial'; did you mean email?"),
    ],
)
def test_a_wrong_map_names_what_comes_close(mapping, message):
    with pytest.raises(InvalidFile, match=message.replace("?", r"\?")) as caught:
        fields_of(["Mail pro", "Firma"], mapping=mapping)
    assert caught.value.fields


def test_columns_without_a_header_are_named_by_content():
    rows = [
        ["anna.schmidt@acme.de", "Anna", "Schmidt", "Acme GmbH", "https://acme.de", "x1"],
        ["jan.becker@foo.com", "Jan", "Becker", "Foo Ltd.", "foo.com", "x2"],
    ]
    assert name_by_content(rows, 6) == [
        "email", "firstName", "lastName", "companyName", "domain", "column_6",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "is_header"),
    [
        (["Email", "Foo"], True),
        (["Foo", "Bar"], True),
        (["anna@x.de", "Anna"], False),
        (["Acme", "www.acme.de"], False),
    ],
)
def test_a_header_is_told_from_data(first, is_header):
    assert looks_like_header(first) is is_header


def test_every_alias_stands_for_one_field_only():
    taken = {}
    for field, names in ALIASES.items():
        for name in names.replace("|", ",").split(","):
            key = header_key(name)
            assert taken.setdefault(key, field) == field, name
            assert key, name
            assert known_field(name.strip())[0] == field
