import csv

import pytest

from enrichd.ctl.sheet_dialect import UNUSED_DELIMITER, sniff

HARD = {
    "commas in names": ("company;city\nAcme, Inc.;Berlin\nFoo, Bar, Ltd;Paris\nBaz;Rome\n", ";"),
    "a comma in every row and the header": (
        "Name, Vorname;Firma\nSchmidt, Anna;Acme\nBecker, Jan;Foo\n", ";"),
    "one column": ("email\na@b.de\nc@d.de\n", UNUSED_DELIMITER),
    "one column of names with commas": ("company\nAcme, Inc.\nFoo\nBar, LLC\n", UNUSED_DELIMITER),
    "one column, unknown header": ("Kunden 2024\nAcme, Inc.\nBar, LLC\n", UNUSED_DELIMITER),
    "one column of queries": ("website\nhttps://x.de/?a=1,2;3\nhttps://y.de\n", UNUSED_DELIMITER),
    "decimal commas": ("Artikel;Preis\nA;1,5\nB;2,3\nC;4,1\n", ";"),
    "nothing but decimal commas": ("x;1,5;2,5\ny;1,6;2,7\nz;3,4;4,5\n", ";"),
    "tabs": ("email\tcompany\na@b.de\tAcme, Inc.\n", "\t"),
    "bars": ("email|company\na@b.de|Acme; Inc.\n", "|"),
    "a space before quotes": ('email, company\na@b.de, "Acme, Inc."\n', ","),
    "line ends in cells": ('email;note\na@b.de;"one, 1\ntwo, 2"\nc@d.de;"x, y"\n', ";"),
    "header only": ("Vorname;Nachname;E-Mail\n", ";"),
    "semicolons in quotes": ('"a;b","c;d"\n"e;f","g;h"\n', ","),
    "no header": ("anna@x.de;Anna;Schmidt, M.A.\njan@y.de;Jan;Becker, Dr.\n", ";"),
    "prose": ("email;note\na@b.de;hello, this, is, a, text\nc@d.de;another, text\n", ";"),
    "ragged": ("email,name,city\na@x.de\nb@x.de,B,Bonn,,\nc@x.de,Acme, Inc,Rome\n", ","),
    "one address": ("anna@example.com\n", UNUSED_DELIMITER),
}  # fmt: skip


@pytest.mark.parametrize("name", HARD)
def test_the_delimiter_is_found(name):
    sample, delimiter = HARD[name]
    assert sniff(sample).dialect.delimiter == delimiter


def test_the_sniffer_of_the_csv_module_is_still_no_match_for_these():
    def guess(sample):
        try:
            return csv.Sniffer().sniff(sample).delimiter
        except csv.Error:
            return None

    wrong = [name for name, (sample, want) in HARD.items() if guess(sample) != want]
    assert len(wrong) >= 5


def test_excels_first_line_decides():
    layout = sniff("sep=|\nemail|note\na@b.de|x,y;z\n")
    assert (layout.dialect.delimiter, layout.lines_above, layout.sep_line) == ("|", 1, "sep=|")


def test_notes_above_the_header_are_stepped_over():
    layout = sniff('Notes:\n"You may notice, that"\n\nFirst Name,Last Name,URL,Company\nA,B,C,D\n')
    assert (layout.lines_above, layout.first[0]) == (3, "First Name")


@pytest.mark.parametrize("sample", ["", "\n\n", ",,\n,,\n"])
def test_no_row_is_no_layout(sample):
    assert sniff(sample) is None
