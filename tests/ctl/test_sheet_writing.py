import csv
import json
import os
import subprocess
import sys

import pytest

from enrichd.ctl.sheet_reading import open_sheet
from enrichd.ctl.sheet_writing import SheetWriter
from enrichd.domain.sheet_cells import neutral
from enrichd.errors import InvalidFile

RESULT = {"outcome": "complete", "person": {"email": "a@x.de"}}


@pytest.fixture
def trip(tmp_path):
    """Read a list and write it with RESULT for each good row; the text that was written."""

    def trip(content, fields=("email",), result=RESULT, name="in.csv", out="out.csv", **options):
        source, target = tmp_path / name, tmp_path / out
        source.write_bytes(content if isinstance(content, bytes) else content.encode())
        with (
            open_sheet(str(source)) as sheet,
            SheetWriter(str(target), sheet, fields, **options) as writer,
        ):
            for row in sheet:
                assert writer.write(row, result)
            assert not target.exists() or target == source
            writer.commit()
        assert not target.with_name(target.name + ".partial").exists()
        return target.read_bytes().decode()

    return trip


def test_the_users_own_columns_stay_and_the_results_follow(trip):
    assert trip('Notiz;E-Mail;Notiz\r\n"a;b";x@y.de; c \r\n\r\n"say ""hi""";z@y.de\r\n') == (
        "Notiz;E-Mail;Notiz;enriched_email\r\n"
        '"a;b";x@y.de; c ;a@x.de\r\n'
        '"say ""hi""";z@y.de;;a@x.de\r\n'
    )


def test_a_result_column_never_takes_the_name_of_an_own_one(trip):
    text = trip("email,Enriched_Email,enriched_email_2\na@x.de,,\n")
    assert text.splitlines()[0] == "email,Enriched_Email,enriched_email_2,enriched_email_3"


@pytest.mark.parametrize(
    ("content", "start"),
    [
        ("email\na@x.de\n".encode("utf-8-sig"), "\ufeffemail,"),
        ("email\na@x.de\n".encode("utf-16"), "\ufeffemail,"),
        ("email,x\na@x.de,ü\n".encode("cp1252"), "email,"),
        (b"sep=;\r\nemail;x\r\na@x.de;1\r\n", "sep=;\r\nemail;x;"),
        (b"a@x.de\nb@x.de\n", "email,enriched_email\na@x.de,"),
    ],
)
def test_the_file_begins_as_the_one_that_was_read(trip, content, start):
    assert trip(content).startswith(start)


def test_a_bad_row_is_written_in_its_place_with_its_reason(trip):
    text = trip(
        f'email,x\na@x.de,1\nn/a,2\nb@x.de,3,4\nc@x.de,"{"x" * 200_000}"\n',
        fields=("outcome", "error"),
        result=None,
    )
    assert list(csv.reader(text.splitlines()))[1:] == [
        ["a@x.de", "1", "", ""],
        ["n/a", "2", "failed",
         "line 3: nothing to look up: no email, domain, company or LinkedIn URL"],
        ["b@x.de", "3", "failed", "line 4: 3 cells, but the header has 2: a missing quote?", "4"],
        ["", "", "failed", "line 5: cell too large (at most 128 KiB a cell, 1 MiB a row)"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1", "+1+1", "-1+1", "@SUM(A1)", "\tx", "\rx", "\n=x", "＝1", "＋1+1", "－1+1", "＠x",
        " =1", "\u200b=1", "\ufeff=1", "\x00=1", '=HYPERLINK("http://x")', "=cmd|' /C calc'!A0",
        "-2+3+cmd|' /C calc'!A0", "+49-30-123", "+1 (415) 555", "-1e5", "--", "-A1", "+49 30 1 2\n",
    ],
)  # fmt: skip
def test_what_may_run_as_a_formula_is_text(cell):
    assert neutral(cell) == "'" + cell


@pytest.mark.parametrize(
    "cell",
    ["", "x", "a=b", "-", "-1", "+1", "-1.5", "-1,5", "-1.234,50", "-5%", "+49 30 1234567", "'=1"],
)
def test_plain_text_and_numbers_are_left_alone(cell):
    assert neutral(cell) == cell


def test_formulas_are_text_in_every_column_and_raw_leaves_the_users_own(trip):
    content = "email,=own\na@x.de,=1+1\n"
    result = {"person": {"email": "=evil()"}}

    assert trip(content, result=result) == ("email,'=own,enriched_email\na@x.de,'=1+1,'=evil()\n")
    assert trip(content, result=result, raw=True, out="raw.csv") == (
        "email,=own,enriched_email\na@x.de,=1+1,'=evil()\n"
    )


def test_json_lines_keep_the_text_of_each_object(trip):
    content = '{"email": "a@x.de", "n": 1.10, "n": 2}\n{"enrichment":1}\noops\n{ }\n'
    lines = trip(content, name="in.jsonl", out="out.jsonl").splitlines()

    assert lines[0] == (
        '{"email": "a@x.de", "n": 1.10, "n": 2,"enrichment":{"outcome":"complete",'
        '"person":{"email":"a@x.de"}}}'
    ).replace('"enrichment":{', '"enrichment_2":{')
    assert [list(json.loads(line)) for line in lines[1:]] == [
        ["enrichment", "enrichment_2"], ["input", "enrichment_2"], ["enrichment_2"],
    ]  # fmt: skip


def test_a_list_can_change_its_format(trip):
    assert json.loads(trip("email,x,x\na@x.de,1,2\n", out="out.jsonl")) == {
        "email": "a@x.de", "x": "1", "x_2": "2", "enrichment": RESULT,
    }  # fmt: skip
    content = '{"email":"a@x.de","company":{"name":"Acme"},"tags":[1],"n":5}\n'
    assert trip(content, name="in.jsonl") == (
        "email,company.name,n,enriched_email\na@x.de,Acme,5,a@x.de\n"
    )


def test_a_run_that_stops_leaves_the_old_file_and_no_partial(tmp_path):
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("email\na@x.de\n")
    target.write_text("old")

    def stop_midway():
        with open_sheet(str(source)) as sheet, SheetWriter(str(target), sheet, ["email"]) as writer:
            for row in sheet:
                writer.write(row, RESULT)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_midway()
    assert target.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["in.csv", "out.csv"]


def test_a_list_may_be_written_over_itself_and_keeps_its_mode(trip, tmp_path):
    (tmp_path / "in.csv").touch(mode=0o600)
    assert trip("email\na@x.de\n", out="in.csv") == "email,enriched_email\na@x.de,a@x.de\n"
    assert (tmp_path / "in.csv").stat().st_mode & 0o777 == 0o600


def test_two_runs_do_not_write_one_file(tmp_path):
    source, target = tmp_path / "in.csv", str(tmp_path / "out.csv")
    source.write_text("email\na@x.de\n")
    with open_sheet(str(source)) as sheet, SheetWriter(target, sheet, ["email"]):
        with pytest.raises(InvalidFile, match="Another run is writing"):
            SheetWriter(target, sheet, ["email"])
        assert os.path.exists(target + ".partial")


def test_a_partial_file_is_never_followed_elsewhere(tmp_path):
    source, target, other = tmp_path / "in.csv", tmp_path / "out.csv", tmp_path / "precious"
    source.write_text("email\na@x.de\n")
    other.write_text("precious")
    target.with_name("out.csv.partial").symlink_to(other)
    with open_sheet(str(source)) as sheet, pytest.raises(InvalidFile):
        SheetWriter(str(target), sheet, ["email"])
    assert other.read_text() == "precious"


@pytest.mark.parametrize(("out", "message"), [(".", "directory"), ("no/out.csv", "no folder")])
def test_a_place_that_cannot_be_written_is_explained(tmp_path, out, message):
    source = tmp_path / "in.csv"
    source.write_text("email\na@x.de\n")
    with open_sheet(str(source)) as sheet, pytest.raises(InvalidFile, match=message):
        SheetWriter(str(tmp_path / out), sheet, ["email"])


SCRIPT = """
import resource, signal, sys
from enrichd.ctl.sheet_reading import open_sheet
from enrichd.ctl.sheet_writing import SheetWriter
from enrichd.errors import InvalidFile

source, target, limit = sys.argv[1:]
if int(limit):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
written = 0
try:
    with open_sheet(source) as sheet, SheetWriter(target, sheet, ["email"]) as writer:
        for row in sheet:
            written += 1
            if not writer.write(row, None):
                break
        writer.commit()
except InvalidFile as error:
    sys.exit(error.message)
print(written, file=sys.stderr)
"""


@pytest.fixture
def many_leads(tmp_path):
    path = tmp_path / "many.csv"
    path.write_text("email\n" + "".join(f"p{n}@x.de\n" for n in range(50_000)))
    return path


def run_script(*arguments, **options):
    command = [sys.executable, "-W", "error", "-c", SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, **options)


def test_a_full_disk_is_said_and_leaves_nothing(many_leads, tmp_path):
    done = run_script(many_leads, tmp_path / "out.csv", 100_000)

    assert (done.returncode, done.stderr.strip()) == (
        1, f"There is no room left to write {tmp_path / 'out.csv'}; nothing was kept.",
    )  # fmt: skip
    assert os.listdir(tmp_path) == ["many.csv"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_device_is_written_directly(many_leads):
    assert "no room left" in run_script(many_leads, "/dev/full", 0).stderr
    assert run_script(many_leads, "/dev/null", 0).stderr == "50000\n"
    assert not os.path.isfile("/dev/null")


def test_standard_output_is_a_stream(tmp_path):
    source = tmp_path / "in.csv"
    source.write_text("email\na@x.de\n")
    assert run_script(source, "-", 0).stdout == "email,enriched_email\na@x.de,\n"


def test_a_reader_that_leaves_ends_the_writing_quietly(many_leads):
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(many_leads), "-", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout.readline() == b"email,enriched_email\n"
        running.stdout.close()
        written = int(running.stderr.read())
    assert running.returncode == 0
    assert written < 50_000
