"""Guessing addresses from names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrichd.domain.emails import Address, parse_address
from enrichd.providers.patterns import CANDIDATES_MAX, guesses, pattern_of


def test_the_most_usual_patterns_come_first():
    assert [guess.address for guess in guesses("Ada", "Quill", "acme.com")] == [
        "ada.quill@acme.com",
        "aquill@acme.com",
        "ada@acme.com",
        "adaquill@acme.com",
        "a.quill@acme.com",
        "ada_quill@acme.com",
        "adaq@acme.com",
        "quill@acme.com",
    ]


def test_a_companys_known_pattern_goes_first():
    first, *_ = guesses("Ada", "Quill", "acme.com", known_pattern="{last}{f}")

    assert (first.address, first.pattern) == ("quilla@acme.com", "{last}{f}")


@pytest.mark.parametrize(
    ("first", "last", "local"),
    [
        ("Jörg", "Müßig", "joerg.muessig"),
        ("Anna-Maria", "O'Neill", "annamaria.oneill"),
        ("Łukasz", "Ñúñez", "lukasz.nunez"),
        ("Ada", "van der Quill", "ada.vanderquill"),
    ],
)
def test_names_are_written_as_addresses_write_them(first, last, local):
    assert guesses(first, last, "acme.com")[0].address == f"{local}@acme.com"


def test_a_name_without_latin_letters_has_no_guess():
    assert guesses("太郎", "山田", "acme.com") == []
    assert pattern_of("taro@acme.com", "太郎", "山田") is None


def test_a_known_address_shows_its_pattern():
    assert pattern_of("A.Quill@acme.com", "Ada", "Quill") == "{f}.{last}"
    assert pattern_of("hello@acme.com", "Ada", "Quill") is None


@given(st.text(max_size=80), st.text(max_size=80))
def test_every_guess_is_an_address_and_there_is_none_twice(first, last):
    made = [guess.address for guess in guesses(first, last, "acme.com")]

    assert len(set(made)) == len(made) <= CANDIDATES_MAX
    assert all(isinstance(parse_address(address), Address) for address in made)
