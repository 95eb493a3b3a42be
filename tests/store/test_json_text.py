"""Whatever a handler returns goes into a real jsonb column and can be read back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from types import MappingProxyType

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enrichd.store.json_text import dumps, loads

pytestmark = pytest.mark.queue

texts = st.text(st.characters(exclude_categories=()), max_size=20)  # surrogates and NUL included
numbers = st.one_of(st.integers(), st.integers(-(10**4_000), 10**4_000), st.floats())
leaves = st.one_of(st.none(), st.booleans(), texts, numbers)
keys = st.one_of(texts, st.integers(), st.booleans(), st.none())


def containers(part):
    return st.one_of(st.lists(part, max_size=4), st.dictionaries(keys, part, max_size=4))


values = st.recursive(leaves, containers, max_leaves=25)


@pytest.fixture
def stored(database_url):
    """Give `stored(text)`: what jsonb gives back as text."""
    with psycopg.connect(database_url, autocommit=True) as conn:

        def store(text):
            [back] = conn.execute("select %s::jsonb::text", [text]).fetchone()
            return back

        yield store


@given(value=values)
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_value_is_stored_and_read_back(stored, value):
    text = dumps(value)

    back = stored(text)

    assert as_floats(loads(back)) == as_floats(loads(text))
    json.loads(back)  # other programs can read it too


def as_floats(value):
    """Make every number a float: jsonb writes 4.7e16 without its exponent, as an integer."""
    match value:
        case bool() | str() | None:
            return value
        case dict():
            return {key: as_floats(part) for key, part in value.items()}
        case list():
            return [as_floats(part) for part in value]
        case _:
            return float(value)


def nested(depth):
    value = "\0"
    for _ in range(depth):
        value = {"a": value, "b": 1}
    return value


@pytest.mark.parametrize("depth", [10, 63, 64, 65, 250, 1_000, 10_000, 100_000])
def test_depth_is_no_danger(stored, depth):
    assert loads(stored(dumps(nested(depth)))) is not None


def test_what_contains_itself_is_refused_at_once():
    root = {"children": []}
    for name in "abc":
        root["children"].append({"name": name, "parent": root})

    with pytest.raises(ValueError, match="contains itself"):
        dumps(root)


def test_the_same_part_twice_is_not_a_cycle(stored):
    part = {"text": "a\0b"}
    assert loads(stored(dumps({"x": part, "y": [part, part]}))) == {
        "x": {"text": "ab"}, "y": [{"text": "ab"}, {"text": "ab"}],
    }  # fmt: skip


@dataclass
class Lead:
    name: str


def test_each_kind_of_trouble_is_mended_in_its_own_way():
    value = {
        "nul": "a\0b",
        "surrogate": "a\ud800b",
        "large": 2**70,
        "huge": 10**5_000,
        "nan": math.nan,
        "inside": Lead("Ada\0"),
        "mapping": MappingProxyType({"a": 1}),
        "tuple": (1, 2),
        5: "number",
        None: "none",
        True: "true",
    }
    assert loads(dumps(value)) == {
        "nul": "ab",
        "surrogate": "a\ufffdb",
        "large": str(2**70),
        "huge": "(integer too large)",
        "nan": None,
        "inside": {"name": "Ada"},
        "mapping": {"a": 1},
        "tuple": [1, 2],
        "5": "number",
        "null": "none",
        "true": "true",
    }


@pytest.mark.parametrize("value", [{1, 2}, object(), {"a": [object()]}, b"bytes", 1j])
def test_what_is_no_json_is_a_type_error(value):
    with pytest.raises(TypeError):
        dumps(value)


@pytest.mark.parametrize("text", ["9" * 5_000, "[" * 5_000 + "]" * 5_000, "not JSON", ""])
def test_what_cannot_be_read_comes_back_without_an_error(text):
    assert loads(text) is not None
    assert loads(None) is None
