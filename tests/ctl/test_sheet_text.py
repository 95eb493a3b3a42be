import io

import pytest

from enrichd.ctl.sheet_text import (
    BLOCK_BYTES,
    LINE_CHARS_MAX,
    TextSource,
    guess_encoding,
    open_bytes,
)
from enrichd.errors import InvalidFile


def source(data: bytes) -> TextSource:
    return TextSource(io.BytesIO(data), "leads.csv")


@pytest.mark.parametrize(
    ("text", "codec"),
    [
        ("Vorname;Firma\nJürgen;Müller GmbH\n", "cp1252"),
        ("Nom,Société\nFrançois,Générale\n", "cp1252"),
        ("Imię;Nazwisko\nŁukasz;Żółć\nGrażyna;Wiśniewska\n", "cp1250"),
        ("Jméno;Firma\nJiří Dvořák;Žižkov\nŠárka Nováková;Plzeň\n", "cp1250"),
        ("Imię;Nazwisko\nŁukasz;Wiśniewski\n", "iso8859_2"),
        ("Nom;Société\nHélène;Générale\n", "mac_roman"),
        ("Имя;Компания\nАнна;Ромашка\n", "cp1251"),
        ("Όνομα;Εταιρεία\nΜαρία;Παπαδοπούλου\n", "cp1253"),
        ("email,name\na@b.de,Jürgen\n", "utf-8"),
    ],
)
def test_an_encoding_is_told_from_a_few_names(text, codec):
    assert text.encode(codec).decode(guess_encoding(text.encode(codec)).codec) == text


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_is_read_with_and_without_a_mark(codec):
    text = "email,name\nanna@example.com,Łucja\n"
    found = source(text.encode(codec))

    assert "".join(found.lines()) == text
    assert found.has_bom == (codec in {"utf-8-sig", "utf-16", "utf-32"})


def test_the_encoding_of_a_file_that_begins_in_ascii_is_decided_at_its_first_other_letter():
    text = "email,name\n" + "a@example.com,Anna\n" * 5000 + "b@example.com,Jürgen\n"
    found = source(text.encode("cp1252"))

    assert found.encoding.label == "UTF-8"
    assert "".join(found.lines()) == text
    assert found.encoding.label == "Windows-1252 (assumed)"


def test_a_letter_cut_by_the_end_of_a_block_is_whole():
    text = "x" * (BLOCK_BYTES - 1) + "é\n" + "ü" * BLOCK_BYTES
    assert "".join(source(text.encode()).lines()) == text


def test_line_ends_are_kept_and_may_be_mixed():
    text = "a\r\nb\nc\rd\u2028e\x0cf\x85g\n\nh"
    assert list(source(text.encode()).lines()) == [
        "a\r\n", "b\n", "c\r", "d\u2028e\x0cf\x85g\n", "\n", "h",
    ]  # fmt: skip


def test_a_line_end_cut_by_the_end_of_a_block_is_one():
    text = "x" * (BLOCK_BYTES - 1) + "\r\nnext\r\n"
    assert [len(line) for line in source(text.encode()).lines()] == [BLOCK_BYTES + 1, 6]


def test_the_line_end_of_a_long_line_is_one_too():
    blocks = LINE_CHARS_MAX // BLOCK_BYTES + 1
    found = source(b"x" * (blocks * BLOCK_BYTES - 1) + b"\r\nnext\n")
    assert [line[-2:] for line in found.lines()] == ["\r\n", "t\n"]


def test_an_endless_line_comes_in_pieces():
    pieces = list(source(b"x" * (3 * LINE_CHARS_MAX) + b"\nnext\n").lines())

    assert max(map(len, pieces)) <= LINE_CHARS_MAX + 2 * BLOCK_BYTES
    assert pieces[-1] == "next\n"


def test_half_a_utf_16_letter_at_the_end_is_marked_as_lost():

    assert "\udcff" in "".join(source("a,b\nc,d".encode("utf-16") + b"x").lines())


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PK\x03\x04rest", "Excel"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "old Excel"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"%PDF-1.7", "PDF"),
        (b"\n<html><table><tr>", "HTML"),
        (bytes(range(256)) * 10, "not a text file"),
    ],
)
def test_what_is_no_table_is_refused_with_what_it_is_and_what_to_do(data, what):
    with pytest.raises(InvalidFile, match=what) as caught:
        source(data)
    assert caught.value.hint


def test_a_missing_file_names_its_neighbours(tmp_path):
    (tmp_path / "Leads.csv").write_text("email\n")
    with pytest.raises(InvalidFile, match="There is no file") as caught:
        open_bytes(str(tmp_path / "leeds.csv"))
    assert str(tmp_path / "Leads.csv") in caught.value.hint


@pytest.mark.parametrize("name", ["", "nowhere/leads.csv", "zzz", "nul\0l"])
def test_a_name_that_cannot_be_opened_is_explained(tmp_path, name):
    with pytest.raises(InvalidFile):
        open_bytes(str(tmp_path / name))
