"""Merging: who is believed, what stays as an alternative, and that order does not matter."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrichd.domain.facts import Entity, Fact
from enrichd.domain.merging import INPUT, ITEMS_MAX, Candidate, merge

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SEEN = "2026-11-01T00:00:00Z"


def said(
    field: str,
    value: Any,
    confidence: float = 0.5,
    *,
    by: str = "acme",
    source: str = "api",
    entity: Entity = "company",
    rank: int = 1,
    observed_at: str | None = None,
) -> Candidate:
    fact = Fact(entity, field, value, confidence, source, observed_at=observed_at)
    return Candidate(fact, by, "enrichCompany", SEEN, rank=rank)


def supplied(field: str, value: Any, entity: Entity = "company") -> Candidate:
    return Candidate(Fact(entity, field, value, 1.0, INPUT), INPUT, INPUT, SEEN, rank=-1)


def merged(*candidates: Candidate, entity: Entity = "company", **options: Any) -> dict[str, Any]:
    record = merge(entity, candidates, as_of=NOW, **options)
    return record.to_json() if record else {}


def test_the_more_confident_value_wins_and_the_other_is_kept():
    answer = merged(said("name", "Acme Ltd", 0.6, by="a"), said("name", "Acme", 0.9, by="b"))

    assert answer["name"] == "Acme"
    assert answer["provenance"]["name"] == {
        "value": "Acme",
        "provider": "b",
        "operation": "enrichCompany",
        "source": "api",
        "confidence": 0.9,
        "fetchedAt": SEEN,
        "alternatives": [
            {
                "value": "Acme Ltd",
                "provider": "a",
                "source": "api",
                "confidence": 0.6,
                "fetchedAt": SEEN,
            }
        ],
    }


def test_two_sources_that_agree_outweigh_a_better_one():
    answer = merged(
        said("name", "ACME  Inc.", 0.6, by="a"),
        said("name", "Acme, Inc", 0.6, by="b", rank=2),
        said("name", "Other", 0.8, by="c"),
    )

    assert answer["name"] == "ACME Inc."
    assert answer["provenance"]["name"]["confidence"] == pytest.approx(1 - 0.4 * 0.4)


def test_one_source_that_repeats_itself_backs_its_value_once():
    answer = merged(said("name", "Acme", 0.6), said("name", "acme", 0.6), said("name", "Acme", 0.5))

    assert answer["provenance"]["name"]["confidence"] == 0.6


def test_of_equal_values_the_earlier_provider_wins():
    answer = merged(said("name", "B", by="b", rank=2), said("name", "A", by="a", rank=1))

    assert answer["name"] == "A"


def test_a_year_old_fact_weighs_half():
    old = said("name", "Old", 0.8, observed_at="2025-11-01T00:00:00Z")
    answer = merged(old, said("name", "New", 0.5, by="b"))

    assert answer["name"] == "New"
    assert merged(old)["provenance"]["name"]["confidence"] == 0.4


def test_a_distrusted_provider_loses():
    trusted = said("name", "A", 0.6)
    distrusted = replace(said("name", "B", 0.9, by="b"), prior=0.5)

    assert merged(trusted, distrusted)["name"] == "A"


def test_what_the_caller_supplied_wins_unless_told_otherwise():
    candidates = (supplied("name", "Mine"), said("name", "Theirs", 0.4))

    assert merged(*candidates)["name"] == "Mine"
    assert merged(*candidates, overwrite=True)["name"] == "Theirs"
    assert merged(supplied("name", "Mine"), overwrite=True)["name"] == "Mine"


def test_an_address_is_never_mixed_of_two_places():
    answer = merged(
        said("location", {"city": "Berlin", "country": "DE", "street": "A 1"}, 0.6, by="a"),
        said("location", {"city": "Paris", "country": "FR", "postalCode": "75001"}, 0.9, by="b"),
        said("location", {"city": "berlin", "postalCode": "10115"}, 0.1, by="c"),
    )

    assert answer["location"] == {"city": "Paris", "country": "FR", "postalCode": "75001"}


def test_a_gap_in_an_address_is_filled_by_a_source_that_agrees_with_it():
    answer = merged(
        said("location", {"city": "Berlin", "country": "Germany"}, 0.9, by="a"),
        said("location", {"city": "BERLIN", "postalCode": "10115"}, 0.5, by="b"),
        said("location", {"street": "Elsewhere 1"}, 0.5, by="c"),
    )

    assert answer["location"] == {"city": "Berlin", "country": "Germany", "postalCode": "10115"}


def test_a_supplied_address_is_not_moved_by_a_source():
    answer = merged(
        supplied("location.raw", "Oakland, CA", "person"),
        said("location", {"raw": "Leeds", "city": "Leeds"}, 0.9, entity="person"),
        entity="person",
    )

    assert answer["location"]["raw"] == "Oakland, CA"


def test_lists_are_united_by_their_items_keys():
    answer = merged(
        said("phones", ["+49 30 123", {"number": "004930123", "type": "work"}], 0.5, by="a"),
        said("phones", [{"number": "+49-30-999"}], 0.9, by="b"),
        said("tags", ["Tools", "rockets"], by="a"),
        said("tags", ["tools"], by="b"),
    )

    assert answer["phones"] == [
        {"number": "+49-30-999"},
        {"number": "+49 30 123", "type": "work"},
    ]
    assert [tag.casefold() for tag in answer["tags"]] == ["tools", "rockets"]
    assert answer["provenance"]["phones[0]"]["provider"] == "b"


def test_one_profile_in_three_spellings_is_one_profile():
    answer = merged(
        said("socialProfiles", {"url": "http://twitter.com/acme?lang=en"}, 0.7, source="footer"),
        said("socialProfiles", ["https://x.com/Acme"], 0.8, source="json-ld"),
        said("socialProfiles", [{"url": "javascript:alert(1)"}], 0.9, source="json-ld"),
    )

    [profile] = answer["socialProfiles"]
    assert (profile["network"], profile["handle"], profile["source"]) == ("x", "acme", "json-ld")
    assert profile["confidence"] == pytest.approx(0.94)


def test_a_list_is_bounded():
    answer = merged(said("tags", [f"tag {number}" for number in range(500)]))

    assert len(answer["tags"]) == ITEMS_MAX


def test_a_head_count_gives_the_size_class_and_a_foreign_class_stays_as_it_was_said():
    assert merged(said("employeeCount", 120))["employeeRange"] == "51-200"
    foreign = merged(said("employeeRange", "51-250"))
    assert foreign["employeeRangeRaw"] == "51-250"
    assert "employeeRange" not in foreign


def test_nothing_usable_is_no_record():
    assert merge("company", [said("name", "  "), said("foundedYear", "soon")], as_of=NOW) is None


FIELDS = st.sampled_from(
    ["name", "foundedYear", "tags", "phones", "location.city", "location.street", "location", "x"]
)
VALUES = st.one_of(
    st.sampled_from(["Acme", "acme", "ACME.", "Berlin", "+49 30 1", "2001"]),
    st.integers(1900, 2030),
    st.lists(st.sampled_from(["a", "A", "b", "+1 2"]), max_size=3),
    st.fixed_dictionaries(
        {}, optional={"city": st.sampled_from(["Rome", "Bonn"]), "street": st.just("S")}
    ),
    st.text(max_size=5),
    st.none(),
)
CANDIDATES = st.builds(
    said,
    FIELDS,
    VALUES,
    st.floats(0, 1),
    by=st.sampled_from(["a", "b", INPUT]),
    source=st.sampled_from(["api", "json-ld", INPUT]),
    rank=st.integers(0, 3),
    observed_at=st.sampled_from([None, "2024-02-29", "not a date", "2030-01-01T00:00:00Z"]),
)


def test_facts_that_weigh_nothing_do_not_depend_on_their_order():
    old = said("name", "Acme", 0.0, observed_at="2024-02-29")
    new = said("name", "Acme", 0.0, observed_at=None)

    assert merged(old, new) == merged(new, old)


@settings(max_examples=150, deadline=None)
@given(st.lists(CANDIDATES, max_size=10), st.randoms(use_true_random=False), st.booleans())
def test_the_order_of_facts_and_repeating_them_change_nothing(candidates, random, overwrite):
    shuffled = [*candidates, *candidates[: len(candidates) // 2]]
    random.shuffle(shuffled)

    assert merged(*shuffled, overwrite=overwrite) == merged(*candidates, overwrite=overwrite)


@settings(max_examples=100, deadline=None)
@given(st.lists(CANDIDATES, max_size=8))
def test_every_confidence_is_a_probability_and_every_value_has_its_provenance(candidates):
    record = merge("company", candidates, as_of=NOW)

    for path, entry in (record.provenance if record else {}).items():
        assert 0 <= entry["confidence"] <= 1
        assert record.value_at(path.partition("[")[0]) is not None
