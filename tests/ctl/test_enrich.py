"""`enrichctl enrich`: what goes in, what comes out, what is refused, what is said."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import psycopg
import pytest

from enrichd.domain.result_fields import DEFAULT_FIELDS, FIELDS
from tests.support import postgres
from tests.support.dns_server import DnsServer
from tests.support.processes import NO_NETWORK


@pytest.fixture(autouse=True)
def no_network(monkeypatch, clean_settings):
    """Let nothing leave this machine."""
    for name, value in NO_NETWORK.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def enrich(enrichctl, tmp_path):
    """Give `enrich(text, *words)`: run it on a list and return its end and the rows it wrote."""

    def run(text, *words, name="in.csv", out="out.csv"):
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(data)
        ended = enrichctl("enrich", name, "--out", out, *words)
        assert ended.exit_code == 0, ended.stderr
        return ended, table(tmp_path / out)

    return run


def table(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    text = path.read_bytes().decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


def jobs(db: psycopg.Connection) -> list[tuple[str, int]]:
    return db.execute("select status, attempts from enrichment_jobs order by id").fetchall()


# What comes out.


def test_own_columns_values_and_order_stay_and_results_come_behind(enrich):
    _, rows = enrich("Notiz,E-Mail,id\n 007 ,zed@@x,9\n1.10,ada@@x,10\n,bob@@x,11\n")

    own = [[row[name] for name in ("Notiz", "E-Mail", "id")] for row in rows]
    assert own == [[" 007 ", "zed@@x", "9"], ["1.10", "ada@@x", "10"], ["", "bob@@x", "11"]]
    assert list(rows[0]) == ["Notiz", "E-Mail", "id", *(f"enriched_{f}" for f in DEFAULT_FIELDS)]
    assert {row["enriched_email_verdict"] for row in rows} == {"invalid"}


def test_fields_chooses_the_result_columns(enrich):
    _, rows = enrich("email\na@@x\n", "--fields", "email-verdict,outcome")
    assert list(rows[0]) == ["email", "enriched_email_verdict", "enriched_outcome"]

    _, rows = enrich("email\na@@x\n", "--fields", "all")
    assert list(rows[0]) == ["email", *(f"enriched_{field}" for field in FIELDS)]


def test_formulas_are_neutralised_unless_raw(enrich):
    text = 'email,note\na@@x,"=HYPERLINK(""http://evil.example"")"\n'

    _, rows = enrich(text)
    assert rows[0]["note"] == '\'=HYPERLINK("http://evil.example")'

    _, rows = enrich(text, "--raw")
    assert rows[0]["note"] == '=HYPERLINK("http://evil.example")'


def test_rows_that_cannot_be_used_are_named_by_their_line_and_keep_their_place(enrich):
    ended, rows = enrich('email,note\na@@x,"two\nlines"\n,nothing to go by\n\na@@x,b,c,d\nb@@x,\n')

    assert "2 rows could not be used:\n  line 4: nothing to look up" in ended.stderr
    assert "line 6: 4 cells, but the header has 2" in ended.stderr
    assert [row["enriched_outcome"] for row in rows] == ["notFound", "failed", "failed", "notFound"]
    assert rows[1]["enriched_error"].startswith("line 4: nothing to look up")


@pytest.mark.parametrize(
    ("data", "delimiter"),
    [
        ("﻿email,Ort\na@@x,Köln\n".encode(), ","),
        ("email;Ort\r\na@@x;Köln\r\n".encode("cp1252"), ";"),
        ("email\tOrt\na@@x\tKöln\n".encode("utf-16"), "\t"),
        ("email|Ort\na@@x|Köln\n".encode("utf-16-be"), "|"),
        (b"email,Ort\r\na@@x,K\xc3\xb6ln\nb@@x,Bonn\r", ","),
        ("a@b.test;Köln\nb@b.test;Bonn\n".encode(), ";"),
    ],
    ids=["bom", "latin-1", "utf-16", "utf-16 without bom", "mixed line ends", "no header"],
)
def test_delimiter_and_encoding_are_found_out(enrich, tmp_path, data, delimiter):
    enrich(data)

    first = table(tmp_path / "out.csv", delimiter)[0]
    assert "Köln" in first.values()
    assert first["enriched_email"] in ("a@@x", "a@b.test")


@pytest.mark.parametrize(
    "header",
    [
        "Vorname,Nachname,E-Mail-Adresse,Firma",
        "Prénom,Nom,Courriel,Société",
        "Nombre,Apellidos,Correo electrónico,Empresa",
        "Nome,Cognome,Indirizzo email,Azienda",
        "Voornaam,Achternaam,E-mailadres,Bedrijf",
        "Imię,Nazwisko,Adres e-mail,Firma",
        "Förnamn,Efternamn,E-post,Företag",
        "Fornavn,Etternavn,E-post,Selskap",
        "Jméno,Příjmení,E-mail,Společnost",
    ],
)
def test_usual_column_names_are_known(enrich, header):
    _, rows = enrich(f"{header}\nAda,Quill,ada@@x,Northwind\n")

    found = [rows[0][f"enriched_{name}"] for name in ("email", "full_name", "company_name")]
    assert found == ["ada@@x", "Ada Quill", "Northwind"]


def test_map_overrides_what_was_recognised(enrich):
    text = "email,Kontakt 2\na@@first,b@@second\n"

    assert enrich(text)[1][0]["enriched_email"] == "a@@first"
    assert enrich(text, "--map", "email=Kontakt 2")[1][0]["enriched_email"] == "b@@second"


def test_duplicate_headers_and_ragged_rows_keep_their_cells(enrich, tmp_path):
    enrich("note,email,note\n1,a@@x,2\n3,b@@x\n", "--fields", "email")

    assert (tmp_path / "out.csv").read_text() == (
        "note,email,note,enriched_email\n1,a@@x,2,a@@x\n3,b@@x,,b@@x\n"
    )


def test_a_cell_of_5_mb_costs_its_own_row_only(enrich):
    ended, rows = enrich(f"email,note\na@@x,{'x' * 5_000_000}\nb@@x,short\n")

    assert "line 2: cell too large" in ended.stderr
    assert [row["enriched_outcome"] for row in rows] == ["failed", "notFound"]


def test_no_rows_are_no_error(enrich):
    ended, rows = enrich("email,name\n")

    assert rows == []
    assert "Wrote 0 rows to out.csv" in ended.stderr


def test_json_lines_in_and_out_keep_the_objects_as_they_are(enrichctl, tmp_path):
    lines = '{"email": "a@@x", "price": 1.10, "nested": {"deep": [1]}}\nnot json\n'
    (tmp_path / "in.jsonl").write_text(lines)

    ended = enrichctl("enrich", "in.jsonl", "--out", "out.jsonl")

    assert ended.exit_code == 0
    first, second = (tmp_path / "out.jsonl").read_text().splitlines()
    assert first.startswith('{"email": "a@@x", "price": 1.10, "nested": {"deep": [1]},"enrichment"')
    assert json.loads(first)["enrichment"]["emailVerification"]["verdict"] == "invalid"
    assert json.loads(second)["enrichment"]["error"].startswith("line 2: not JSON")


def test_a_table_becomes_json_lines_by_the_name_of_out(enrichctl, tmp_path):
    (tmp_path / "in.csv").write_text("email\na@@x\n")
    assert enrichctl("enrich", "in.csv", "--out", "out.jsonl").exit_code == 0

    only = json.loads((tmp_path / "out.jsonl").read_text())
    assert (only["email"], only["enrichment"]["outcome"]) == ("a@@x", "notFound")


def test_pipes_carry_only_rows(enrichctl):
    ended = enrichctl("enrich", "-", "--out", "-", "--fields", "outcome", stdin=b"email\na@@x\n")

    assert ended.exit_code == 0
    assert ended.stdout == "email,enriched_outcome\na@@x,notFound\n"
    assert "Wrote 1 row in" in ended.stderr


def test_a_pipe_that_is_no_text_is_refused(enrichctl):
    ended = enrichctl("enrich", "-", "--out", "-", stdin=b"PK\x03\x04rest")

    assert ended.exit_code == 2
    assert ended.stdout == ""


def test_out_may_be_the_list_itself(enrichctl, tmp_path):
    (tmp_path / "in.csv").write_text("email\na@@x\n")

    assert enrichctl("enrich", "in.csv", "--out", "in.csv", "--fields", "outcome").exit_code == 0
    assert (tmp_path / "in.csv").read_text() == "email,enriched_outcome\na@@x,notFound\n"


def test_an_address_that_is_only_guessed_says_so(enrich, monkeypatch):
    acme = {"MX": ["10 mx.acme.example."]}
    with DnsServer({"acme.example": acme, "mx.acme.example": {"A": ["192.0.2.1"]}}) as server:
        monkeypatch.setenv("DNS_SERVERS", server.address)
        _, rows = enrich(
            "name,email,website\nAda Quill,,acme.example\nBo Ek,bo@acme.example,\n",
            "--types",
            "email",
        )

    assert [row["enriched_email_status"] for row in rows] == ["guess", ""]
    assert rows[0]["enriched_email"] == "ada.quill@acme.example"


# Nothing is done twice.


def test_the_second_run_does_no_work_twice(enrich, db):
    text = "email\n" + "".join(f"p{number}@@x\n" for number in range(30))
    _, first = enrich(text)
    done = jobs(db)

    ended, second = enrich(text)

    assert second == first
    assert jobs(db) == done == [("completed", 1)] * 30
    assert "30 leads were known from an earlier run" in ended.stderr


def test_only_new_rows_are_done(enrich, db):
    enrich("email\na@@x\n")
    ended, _ = enrich("email\nb@@x\na@@x\n")

    assert jobs(db) == [("completed", 1)] * 2
    assert "1 lead was known from an earlier run" in ended.stderr


def test_equal_rows_share_a_job_however_far_apart(enrich, db):
    # More than the window holds, so that the first row's job has ended when the last row is read.
    text = "email\nsame@@x\n" + "".join(f"p{n}@@x\n" for n in range(4_200)) + " SAME@@x \n"
    ended, rows = enrich(text)

    assert len(jobs(db)) == 4_201
    assert rows[0]["enriched_email"] == rows[-1]["enriched_email"]
    assert "earlier run" not in ended.stderr, "a row of this very list is no earlier run"


@pytest.mark.parametrize("status", ["failed", "dead_letter", "cancelled"])
def test_what_did_not_work_in_an_earlier_run_is_tried_again(enrich, db, status):
    enrich("email\na@@x\nb@@x\n")
    db.execute(
        "update enrichment_jobs set status = %s, result = null where id ="
        " (select min(id::text)::uuid from enrichment_jobs)",
        (status,),
    )
    ended, rows = enrich("email\na@@x\nb@@x\n")

    assert [row["enriched_outcome"] for row in rows] == ["notFound"] * 2
    assert [state for state, _ in jobs(db)] == ["completed"] * 2
    assert "1 lead was known" in ended.stderr


def test_fresh_asks_again(enrich, db):
    enrich("email\na@@x\n")
    ended, _ = enrich("email\na@@x\n", "--fresh")

    assert jobs(db) == [("completed", 1)] * 2
    assert "earlier run" not in ended.stderr


def test_another_wish_is_another_job(enrich, db):
    enrich("email\na@@x\n", "--types", "email")
    enrich("email\na@@x\n", "--types", "email,person")
    enrich("email\na@@x\n", "--types", "person,email")

    assert len(jobs(db)) == 2


def test_jobs_stay_for_list(enrich, enrichctl):
    enrich("email\na@@x\n")

    (job,) = enrichctl("list", "--tag", "enrich", "--json").lines
    assert (job["type"], job["status"]) == ("single_lead_enrichment", "completed")


def test_jobs_of_other_lanes_and_workspaces_are_left_alone(enrich, a_job, states):
    other = a_job("pending", provider_id="hunter")

    enrich("email\na@@x\n", "--workspace", "acme")

    assert states()[other] == "pending"


# What is refused, before anything is done.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["in.csv", "--out", "o.csv", "--fields", "emial"], "did you mean email"),
        (["in.csv", "--out", "o.csv", "--types", "emial"], "did you mean email?"),
        (["in.csv", "--out", "o.csv", "--types", ","], "give some of email, company"),
        (["in.csv", "--out", "o.csv", "--map", "emial=email"], "did you mean email?"),
        (["in.csv", "--out", "o.csv", "--map", "email=Mial"], "did you mean mail?"),
        (["in.csv", "--out", "o.csv", "--map", "email"], "write it as field=column"),
        (["in.csv", "--out", "o.csv", "--provider", "biultin"], "did you mean builtin?"),
        (["in.csv", "--out", "o.csv", "--fallback", "nobody"], "there is no source 'nobody'"),
        (["in.csv", "--out", "o.csv", "--concurrency", "0"], "--concurrency"),
        (["in.csv"], "--out"),
        (["im.csv", "--out", "o.csv"], "Did you mean in.csv"),
        (["folder", "--out", "o.csv"], "folder is a directory"),
        (["in.csv", "--out", "folder"], "folder is a directory"),
        (["in.csv", "--out", "nowhere/o.csv"], "There is no folder"),
        (["empty.csv", "--out", "o.csv"], "empty.csv is empty"),
        (["useless.csv", "--out", "o.csv"], "No column of useless.csv is recognised"),
        (["in.csv", "--out", "/dev/full"], "There is no room left"),
    ],
)
def test_a_wrong_word_is_2_and_changes_nothing(enrichctl, tmp_path, db, words, said):
    (tmp_path / "in.csv").write_text("mail\na@@x\n")
    (tmp_path / "useless.csv").write_text("colour,size\nred,4\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "folder").mkdir()

    ended = enrichctl("enrich", *words)

    assert ended.exit_code == 2
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(tmp_path.glob("o.csv*"))
    assert jobs(db) == []


def test_without_its_database_it_says_so_and_leaves_an_old_file_alone(offline, tmp_path):
    (tmp_path / "in.csv").write_text("email\na@@x\n")
    (tmp_path / "out.csv").write_text("precious")

    ended = offline("enrich", "in.csv", "--out", "out.csv")

    assert ended.exit_code == 5
    assert ended.stderr.startswith("error: PostgreSQL cannot be reached")
    assert (tmp_path / "out.csv").read_text() == "precious"
    assert not (tmp_path / "out.csv.partial").exists()


def test_a_database_without_tables_gets_them(enrichctl, tmp_path, admin_dsn):
    empty = postgres.clone_database(admin_dsn, "template1")
    (tmp_path / "in.csv").write_text("email\na@@x\n")
    try:
        ended = enrichctl("enrich", "in.csv", "--out", "out.csv", "--database-url", empty)
    finally:
        postgres.drop_database(admin_dsn, empty)

    assert ended.exit_code == 0, ended.stderr
    assert table(tmp_path / "out.csv")[0]["enriched_outcome"] == "notFound"


# The last word.


def test_the_summary_counts_and_knows_its_plurals(enrich):
    ended, _ = enrich("email,note\na@@x,\n,x\n")

    assert ended.stderr.startswith("Wrote 2 rows to out.csv in ")
    assert "Outcomes: 1 not found, 1 unusable.\n1 row could not be used:\n" in ended.stderr


def test_many_unusable_rows_are_counted_not_listed(enrich):
    ended, _ = enrich("email,note\na@@x,\n" + ",x\n" * 15)

    assert "15 rows could not be used:" in ended.stderr
    assert ended.stderr.count("  line ") == 10
    assert "… and 5 more" in ended.stderr


def test_the_json_summary_has_it_too(enrich):
    ended, _ = enrich("email,note\na@@x,\n,x\n", "--json")

    said = ended.document
    assert said.pop("seconds") > 0
    assert said == {
        "isWhole": True,
        "out": "out.csv",
        "rows": 2,
        "outcomes": {"notFound": 1, "unusable": 1},
        "unusableRows": 1,
        "rowsWithoutNetwork": 0,
        "knownJobs": 0,
        "costCredits": 0,
        "providersLeftOut": [],
    }


NO_NETWORK_SAID = "facts because the internet could not be reached."


def test_without_a_network_every_gap_says_so_and_the_run_ends(enrich):
    text = "email,company,website\n" + "".join(
        f"p{n}@acme{n}.example,Acme {n},acme{n}.example\n" for n in range(40)
    )
    ended, rows = enrich(text + ",Acme,acme.example\n")

    assert f"41 rows lack {NO_NETWORK_SAID}" in ended.stderr
    assert {row["enriched_email_verdict"] for row in rows[:40]} == {"unknown"}
    for row in rows:
        reasons = dict(gap.split(": ") for gap in row["enriched_missing"].split("; "))
        assert reasons["company.description"] == "network_unreachable"
        assert reasons["company.socialProfiles"] == "network_unreachable"


def test_a_nameserver_that_knows_no_internet_is_no_network_either(enrich, monkeypatch):
    with DnsServer({}, vouches=False) as server:
        monkeypatch.setenv("DNS_SERVERS", server.address)
        ended, _ = enrich("email,website\na@acme.example,acme.example\n,b.example\nc@@x,\n")

    assert f"2 rows lack {NO_NETWORK_SAID}" in ended.stderr


def test_a_domain_that_does_not_exist_is_not_taken_for_a_missing_network(enrich, monkeypatch):
    acme = {"MX": ["10 mx.acme.example."], "A": ["192.0.2.1"]}
    with DnsServer({"acme.example": acme, "mx.acme.example": {"A": ["192.0.2.1"]}}) as server:
        monkeypatch.setenv("DNS_SERVERS", server.address)
        ended, rows = enrich(
            "email,website\na@acme.example,\n,nobody.example\n", "--types", "email,company"
        )

    assert "company.description: dns_failed" in rows[1]["enriched_missing"]
    assert NO_NETWORK_SAID not in ended.stderr
