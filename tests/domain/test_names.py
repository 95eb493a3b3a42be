"""Names: which part is which."""

from __future__ import annotations

import pytest

from enrichd.domain.names import fold_name, split_name


@pytest.mark.parametrize(
    ("full", "parts"),
    [
        ("Ada Quill", ("Ada", "Quill")),
        ("Quill, Ada", ("Ada", "Quill")),
        ("Dr. Ada van der Quill, PhD", ("Ada", "van der Quill")),
        ("Prof. Dr. Ada Quill", ("Ada", "Quill")),
        ("Ada Maria Quill Jr.", ("Ada", "Quill")),
        ("Ada", ("Ada", None)),
        ("", (None, None)),
        (",", (None, None)),
        ("Van Morrison", ("Van", "Morrison")),
    ],
)
def test_a_full_name_is_split_into_first_and_last(full, parts):
    assert split_name(full) == parts


def test_letters_become_those_of_mail_addresses():
    assert fold_name("Jörg Ñuñez-Ødegård Weiß Łukasz") == "joerg nunez-odegard weiss lukasz"
