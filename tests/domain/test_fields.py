"""Fields: what a value must be to be kept."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enrichd.domain.fields import clean, employee_range, text

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
PATHS = st.sampled_from(
    [
        "name",
        "phones",
        "emails",
        "socialProfiles",
        "location",
        "foundedYear",
        "employeeRange",
        "logoUrl",
        "tags",
        "employmentHistory",
        "domain",
        "company",
        "other",
        "location.lat",
        "a.b",
        "location.x.y",
    ]
)


@pytest.mark.parametrize(
    ("path", "value", "kept"),
    [
        ("name", " Ac\x1b[31mme\u202e ", "Ac [31mme"),
        ("name", {"@value": "Acme"}, None),
        ("foundedYear", "1999", 1999),
        ("foundedYear", 99_999, None),
        ("employeeCount", 12.0, 12),
        ("employeeCount", True, None),
        ("logoUrl", "//cdn.acme.com/l.png", "https://cdn.acme.com/l.png"),
        ("logoUrl", "javascript:alert(1)", None),
        ("location.lat", "52.5", 52.5),
        ("location.lat", 200, None),
        ("email", "no address", None),
    ],
)
def test_a_value_is_made_fit_or_dropped(path, value, kept):
    assert dict(clean("company", path, value)) == ({} if kept is None else {path: kept})


@given(PATHS, JSON)
@example("employmentHistory", {"\x00": False})
@example("location", {"\x00": "x", "ci\ud800ty": "y"})
def test_whatever_a_provider_says_what_is_kept_can_be_stored(path, value):
    for _, kept in clean("company", path, value):
        stored = json.dumps(kept, allow_nan=False)
        assert "\\u0000" not in stored
        stored.encode("utf-8")
        json.loads(stored)


def test_text_has_a_bound():
    assert len(text("x" * 100_000) or "") == 4_000


def test_size_classes_meet_without_a_gap():
    assert [employee_range(n) for n in (0, 10, 11, 10_000, 10_001)] == [
        "1-10",
        "1-10",
        "11-50",
        "5001-10000",
        "10001+",
    ]
