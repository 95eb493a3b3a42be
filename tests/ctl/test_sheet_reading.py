import io
import os
import subprocess
import sys
import threading
import tracemalloc

import pytest

from enrichd.ctl import sheet_records
from enrichd.ctl.sheet_reading import BadRow, SheetRow, open_sheet
from enrichd.errors import InvalidFile


@pytest.fixture
def read(tmp_path):
    """Read a file's content: the sheet and its rows."""

    def read(content, name="leads.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with open_sheet(str(path), **options) as sheet:
            return sheet, list(sheet)

    return read


def reasons(rows):
    return [(row.line, getattr(row, "reason", "ok")) for row in rows]


def test_a_row_has_its_line_its_cells_and_its_lead(read):
    sheet, rows = read("E-Mail;Firma;Notiz\r\n anna@x.de ;Müller & Co;7\r\n")

    assert rows == [
        SheetRow(2, [" anna@x.de ", "Müller & Co", "7"],
                 {"email": "anna@x.de", "companyName": "Müller & Co"})
    ]  # fmt: skip
    assert (sheet.format, sheet.delimiter, sheet.encoding) == ("csv", ";", "UTF-8")
    assert (sheet.header, sheet.columns) == (
        ["E-Mail", "Firma", "Notiz"], {"email": 0, "companyName": 1},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("codec", "label"),
    [
        ("utf-8-sig", "UTF-8 with a byte order mark"),
        ("utf-16", "UTF-16 with a byte order mark"),
        ("utf-16-le", "UTF-16-LE (assumed)"),
        ("utf-16-be", "UTF-16-BE (assumed)"),
        ("cp1252", "Windows-1252 (assumed)"),
    ],
)
def test_every_usual_encoding_is_read_and_said(read, codec, label):
    sheet, rows = read("email,Firma\na@x.de,Müller\n".encode(codec))

    assert rows[0].cells == ["a@x.de", "Müller"]
    assert sheet.encoding == label
    assert any(label in note for note in sheet.notes) == ("assumed" in label)


def test_a_byte_that_cannot_be_read_costs_its_row_only(read):
    _, rows = read(b"email,name\na@x.de,M\xc3\xbcller\nb@x.de,M\xfcller\nc@x.de,Anna\n")

    assert reasons(rows) == [
        (2, "ok"), (3, "some bytes do not fit the encoding of the file"), (4, "ok"),
    ]  # fmt: skip
    assert rows[1].cells == ["b@x.de", "Müller"]


def test_lines_are_counted_as_an_editor_counts_them(read):
    sheet, rows = read('sep=;\nemail;note\n\na@x.de;"one\ntwo"\r\n;;\n\nb@x.de;x\rc@x.de;y\n')

    assert [(row.line, row.cells) for row in rows] == [
        (4, ["a@x.de", "one\ntwo"]), (8, ["b@x.de", "x"]), (9, ["c@x.de", "y"]),
    ]  # fmt: skip
    assert (sheet.blank_count, sheet.row_count, sheet.bad_count) == (3, 3, 0)


def test_ragged_rows_are_padded_or_reported_with_all_their_cells(read):
    _, rows = read("email,name,city\na@x.de\nb@x.de,B,Bonn,,\nc@x.de,Acme, Inc,Rome\n")

    assert [row.cells for row in rows[:2]] == [["a@x.de", "", ""], ["b@x.de", "B", "Bonn"]]
    assert rows[2] == BadRow(
        4, "4 cells, but the header has 3: a missing quote?", ["c@x.de", "Acme", " Inc", "Rome"]
    )


def test_a_row_without_anything_to_look_up_keeps_its_cells(read):
    _, rows = read("email,name\nn/a,Anna\n")
    assert rows == [
        BadRow(2, "nothing to look up: no email, domain, company or LinkedIn URL", ["n/a", "Anna"])
    ]


@pytest.mark.parametrize(
    "cell",
    [
        '"' + "x" * 5_000_000 + '"',
        "x" * 5_000_000,
        '"' + 'x"",\n' * 1_000_000 + '"',
        '"' * 3_000_000,
    ],
    ids=["quoted", "plain", "lines and quotes", "nothing but quotes"],
)
def test_a_huge_cell_is_one_bad_row_and_the_next_is_read(read, cell):
    _, rows = read(f"email,note,city\na@x.de,{cell},Bonn\nb@x.de,x,Rome\n")

    assert reasons(rows) == [(2, sheet_records.TOO_LARGE), (3 + cell.count("\n"), "ok")]
    assert rows[0].cells is None
    assert rows[1].cells == ["b@x.de", "x", "Rome"]


def test_the_largest_cell_that_is_allowed_is_read(read):
    _, rows = read(f"email,note\na@x.de,{'x' * sheet_records.CELL_CHARS_MAX}\n")
    assert reasons(rows) == [(2, "ok")]


def test_a_quote_that_never_closes_costs_its_line_only(read):
    lines = [f"p{number}@x.de,Anna,Bonn\n" for number in range(100)]
    lines[10] = 'p10@x.de,"Anna,Bonn\n'
    lines[90] = 'p90@x.de,"Schmidt, Anna",Bonn\n'
    _, rows = read("email,name,city\n" + "".join(lines))

    assert [row.line for row in rows] == list(range(2, 102))
    assert [row.reason for row in rows if isinstance(row, BadRow)] == [sheet_records.NEVER_CLOSED]
    assert rows[10].cells == ["p10@x.de", '"Anna', "Bonn"]
    assert rows[90].cells == ["p90@x.de", "Schmidt, Anna", "Bonn"]


def test_many_open_quotes_do_not_cost_hours(read):
    _, rows = read("email,name\n" + 'a","\n' * 5_000)
    assert len(rows) == sheet_records.RECOVERIES_MAX + 1


def test_zero_bytes_do_no_harm(read):
    _, rows = read(b"email,name\na@x.de,An\0na\n")
    assert rows == [SheetRow(2, ["a@x.de", "An\0na"], {"email": "a@x.de", "fullName": "An na"})]


def test_a_header_may_repeat_its_names(read):
    sheet, rows = read("email,Notiz,Notiz,\na@x.de,1,2,3\n")
    assert sheet.header == ["email", "Notiz", "Notiz", ""]
    assert rows[0].cells == ["a@x.de", "1", "2", "3"]


def test_a_header_alone_is_a_list_of_nobody(read):
    sheet, rows = read("email;Firma")
    assert (rows, sheet.header) == ([], ["email", "Firma"])


def test_a_file_without_a_header_is_read_by_content(read):
    sheet, rows = read("anna.schmidt@acme.de,Anna,Schmidt\njan.becker@foo.de,Jan,Becker\n")

    assert not sheet.has_header
    assert sheet.header == ["email", "firstName", "lastName"]
    assert rows[0] == SheetRow(
        1, ["anna.schmidt@acme.de", "Anna", "Schmidt"],
        {"email": "anna.schmidt@acme.de", "firstName": "Anna", "lastName": "Schmidt"},
    )  # fmt: skip
    assert "has no header" in sheet.notes[0]


def test_the_map_names_a_column_of_ones_own(read):
    _, rows = read("Mail pro,Email\na@x.de,b@y.de\n", mapping={"email": "Mail pro"})
    assert rows[0].lead == {"email": "a@x.de"}


def test_json_lines_are_read_with_their_line_numbers(read):
    sheet, rows = read(
        '{"email": "a@x.de", "company": {"name": "Acme"}, "n": 1.10}\n\nnot json\n[1]\n{"n": 2}\n',
        name="leads.jsonl",
    )
    assert sheet.format == "jsonl"
    assert rows[0] == SheetRow(
        1, {"email": "a@x.de", "company": {"name": "Acme"}, "n": 1.1},
        {"email": "a@x.de", "companyName": "Acme"},
        '{"email": "a@x.de", "company": {"name": "Acme"}, "n": 1.10}',
    )  # fmt: skip
    assert [row.line for row in rows] == [1, 3, 4, 5]
    assert [row.reason.split(":")[0] for row in rows[1:]] == [
        "not JSON", "not a JSON object", "nothing to look up",
    ]  # fmt: skip


def test_a_huge_json_line_is_one_bad_row(read):
    _, rows = read('{"email":"a@x.de"}\n{"x":"' + "x" * 5_000_000 + '"}\n{"email":"b@x.de"}\n')
    assert reasons(rows) == [(1, "ok"), (2, sheet_records.TOO_LARGE), (3, "ok")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (",,\n,,\n", "holds no row"),
        ("Foo,Bar\n1,2\n", "No column of .* is recognised .* Foo, Bar"),
        ('[\n{"email": "a@x.de"}]', "one JSON array"),
        ('{"x": \n', "No line at the start of"),
        (",".join(f"c{n}" for n in range(3000)), "has 3000 columns"),
        (b"PK\x03\x04", "Excel"),
    ],
)
def test_a_file_that_is_no_lead_list_says_so(read, content, message):
    with pytest.raises(InvalidFile, match=message):
        read(content)


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(InvalidFile, match="is a directory"):
        open_sheet(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(tmp_path):
    path = tmp_path / "leads.csv"
    path.write_text("email\n")
    path.chmod(0)
    with pytest.raises(InvalidFile, match="no permission"):
        open_sheet(str(path))


def test_a_pipe_is_read_like_a_file():
    code = "from enrichd.ctl.sheet_reading import open_sheet\n"
    code += "print([row.lead['email'] for row in open_sheet('-')][-1])"
    text = "email;name\n" + "".join(f"p{n}@x.de;Müller\n" for n in range(20_000))
    done = subprocess.run(
        [sys.executable, "-c", code], input=text.encode(), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == "p19999@x.de"


def test_a_long_list_is_read_in_little_memory(tmp_path):
    fifo = str(tmp_path / "leads")
    os.mkfifo(fifo)

    def feed():
        with open(fifo, "w") as pipe:
            pipe.write("email,company\n")
            for number in range(60_000):
                pipe.write(f"person{number}@example.com,{'Acme ' * 20}\n")

    writer = threading.Thread(target=feed)
    writer.start()
    tracemalloc.start()
    try:
        with open_sheet(fifo) as sheet:
            assert sum(1 for _ in sheet) == 60_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        writer.join(timeout=10)
    assert peak < 4_000_000


def test_standard_input_stays_open(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"email\na@x.de\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    with open_sheet("-") as sheet:
        assert [row.lead for row in sheet] == [{"email": "a@x.de"}]
    assert not stdin.closed
