"""Any JSON, and JSON that looks like a provider's record and is not, for hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

# A lone surrogate cannot be sent as text; `faults.HOSTILE` has it as an escape.
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_KEYS = (
    "name fullName givenName email location geo lat lng city employment title seniority phone "
    "linkedin twitter handle followers fuzzy metrics employees employeesRange raised category "
    "naicsCode tags tech site phoneNumbers emailAddresses foundedYear domain domainAliases "
    "indexedAt score sources uri last_seen_on verification status date result smtp_check "
    "first_name position linkedin_url accept_all id parent avatar error type body person company"
)

any_json: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | _TEXTS
    | st.sampled_from(["ada@acme.example", "acme.example", "in/ada", "2026-06-01", "valid"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)
any_record: st.SearchStrategy[Any] = st.recursive(
    any_json,
    lambda inner: st.dictionaries(st.sampled_from(_KEYS.split()), inner, max_size=8),
    max_leaves=12,
)
