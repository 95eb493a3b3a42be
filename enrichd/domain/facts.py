"""What one source says about one field, and why a field has no value.

A keyless source (a company's website, RDAP, Gravatar) answers with a list of `Fact`; whatever it
could not say is a `Missing` with a reason in snake_case. Merging many facts into one record is
`domain/merging.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Json: TypeAlias = Any
"""A JSON value: None, bool, int, float, str, list of Json, or dict of str to Json."""

Entity: TypeAlias = Literal["person", "company"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One value that one source gave for one field."""

    entity: Entity
    field: str
    """The field's camelCase path in the data model: `name`, `location.city`, `socialProfiles`."""
    value: Json
    confidence: float
    """0 to 1, as the source's own rule says (JSON-LD .85, OpenGraph .6, footer link .7)."""
    source: str
    """How it was said: `json-ld`, `microdata`, `opengraph`, `meta`, `footer`, `rdap`, …"""
    source_url: str | None = None
    observed_at: str | None = None
    """ISO 8601, when the source says since when it holds; None if it does not."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a field, or a whole source when `field` is `*`, has no value."""

    entity: Entity
    field: str
    reason: str
    """Snake_case and stable: `dns_timeout`, `network_unreachable`, `robots_disallowed`."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One source's whole answer."""

    facts: Sequence[Fact] = field(default_factory=tuple)
    missing: Sequence[Missing] = field(default_factory=tuple)
