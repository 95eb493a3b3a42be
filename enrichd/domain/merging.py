"""Many sources' facts become one record per person and company.

A candidate is a fact with where and when it was got. Per field, candidates with an equal normalised
value back each other; the best backed value wins and the others stay as alternatives in its
provenance. Lists are united by a key per item, an address comes from one source, and what the
caller supplied wins unless `overwrite` says otherwise. The answer depends only on the set of
candidates: not on their order, not on repetitions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from operator import attrgetter

from enrichd.domain.facts import Entity, Fact, Json
from enrichd.domain.fields import (
    ADDRESS_FIELDS,
    OBJECT_LISTS,
    clean,
    employee_range,
    equality_key,
    is_list,
)

HALF_LIFE_DAYS = 365.0
ITEMS_MAX = 50
ALTERNATIVES_MAX = 8
INPUT = "input"
"""The provider name of what the caller supplied."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fact with who gave it, when, and at what cost."""

    fact: Fact
    provider: str
    operation: str
    fetched_at: str
    """ISO 8601."""
    rank: int = 0
    """The provider's place in the order; the lower one wins a tie."""
    prior: float = 1.0
    """How far this provider is trusted for this field, 0 to 1."""
    request_id: str | None = None
    cost_credits: Decimal = Decimal(0)
    cached: bool = False

    @property
    def is_given(self) -> bool:
        """True for a value that the caller supplied itself."""
        return self.provider == INPUT and self.fact.source == INPUT


@dataclass(frozen=True, slots=True)
class Record:
    """A merged person or company: nested values, and per field path who said so."""

    values: Mapping[str, Json]
    provenance: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)

    def value_at(self, path: str) -> Json:
        """Return the value at a dotted path, or None."""
        value: Json = self.values
        for part in path.split("."):
            if not isinstance(value, Mapping):
                return None
            value = value.get(part)
        return value

    def confidence_at(self, path: str) -> float:
        """Return a path's confidence, the best below it for a list or an address, 0 if empty."""
        return max((entry["confidence"] for entry in self._entries(path)), default=0.0)

    @property
    def has_findings(self) -> bool:
        """True if a source, and not the caller alone, said something that stands."""
        return any(
            (entry["provider"] != INPUT and entry["confidence"] > 0) or "alternatives" in entry
            for entry in self.provenance.values()
        )

    def _entries(self, path: str) -> Iterator[Mapping[str, Json]]:
        for known, entry in self.provenance.items():
            if known == path or known.startswith((path + ".", path + "[")):
                yield entry

    def to_json(self) -> dict[str, Json]:
        """Return the values with `provenance` by field path."""
        return {
            **self.values,
            "provenance": {path: dict(entry) for path, entry in self.provenance.items()},
        }


@dataclass(frozen=True, slots=True)
class Weighed:
    """One candidate's value for one path, cleaned and weighed."""

    candidate: Candidate
    path: str
    value: Json
    key: str
    """Equal for values that say the same."""
    score: float
    order: tuple[object, ...]
    """A sort key that puts the best first and never leaves two different values tied."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Candidates that say the same, best first."""

    members: tuple[Weighed, ...]
    """One a source."""
    score: float
    everything: tuple[Weighed, ...]
    """What repeats itself too: two items with one key may know different things."""

    @property
    def best(self) -> Weighed:
        return self.members[0]

    def order(self) -> tuple[object, ...]:
        given = not self.best.candidate.is_given
        return (given, -self.score, self.best.candidate.rank, self.best.key)


def merge(
    entity: Entity, candidates: Iterable[Candidate], *, as_of: datetime, overwrite: bool = False
) -> Record | None:
    """Return the record of one entity, or None when no candidate has a usable value for it.

    `as_of` is the moment that ages are counted from. With `overwrite` a supplied value stands only
    where no source says anything.
    """
    weighed = (
        one
        for candidate in candidates
        if candidate.fact.entity == entity
        for one in weigh(candidate, as_of=as_of)
    )
    return merge_weighed(entity, weighed, overwrite=overwrite)


def weigh(candidate: Candidate, *, as_of: datetime) -> list[Weighed]:
    """Return the usable values of a candidate, each with its path and weight."""
    fact = candidate.fact
    weight = candidate.prior * fact.confidence * _freshness(candidate, as_of)
    score = min(max(weight, 0.0), 1.0)
    return [
        Weighed(
            candidate,
            path,
            value,
            equality_key(path, value),
            score,
            (
                not candidate.is_given,
                -score,
                candidate.rank,
                candidate.provider,
                fact.source,
                fact.source_url or "",
                candidate.operation,
                candidate.fetched_at,
                # Two facts without weight tie whatever their age.
                fact.observed_at or "",
                candidate.request_id or "",
                candidate.cost_credits,
                candidate.cached,
                _text(value),
            ),
        )
        for path, value in clean(fact.entity, fact.field, fact.value)
    ]


def merge_weighed(
    entity: Entity, weighed: Iterable[Weighed], *, overwrite: bool = False
) -> Record | None:
    """Return the record of one entity out of what was weighed before, and of it alone."""
    by_path: dict[str, list[Weighed]] = {}
    for one in weighed:
        by_path.setdefault(one.path, []).append(one)
    if not by_path:
        return None
    if overwrite:
        by_path = {path: _without_given(scored) for path, scored in by_path.items()}

    values: dict[str, Json] = {}
    provenance: dict[str, Mapping[str, Json]] = {}
    for path in sorted(by_path):
        if path in ADDRESS_FIELDS:
            continue
        groups = _groups(by_path[path])
        if is_list(path):
            _put_list(values, provenance, path, groups[:ITEMS_MAX])
        else:
            _put(values, path, groups[0].best.value)
            provenance[path] = _provenance(groups)
    address = {path: scored for path, scored in by_path.items() if path in ADDRESS_FIELDS}
    for path, group in _one_address(address):
        _put(values, path, group[0].best.value)
        provenance[path] = _provenance(group)
    _derive(entity, values, provenance)
    return Record(values, provenance) if values else None


def _derive(
    entity: Entity, values: dict[str, Json], provenance: dict[str, Mapping[str, Json]]
) -> None:
    """Fill what follows from another field; it rests on what that field rests on."""
    if entity == "company" and "employeeCount" in values and "employeeRange" not in values:
        values["employeeRange"] = employee_range(values["employeeCount"])
        grounds = provenance["employeeCount"]
        provenance["employeeRange"] = _resting_on(grounds, values["employeeRange"])
    has_both_names = entity == "person" and "firstName" in values and "lastName" in values
    if has_both_names and "fullName" not in values:
        values["fullName"] = f"{values['firstName']} {values['lastName']}"
        provenance["fullName"] = _resting_on(provenance["lastName"], values["fullName"])


def _resting_on(grounds: Mapping[str, Json], value: Json) -> dict[str, Json]:
    kept = {name: part for name, part in grounds.items() if name != "alternatives"}
    return {**kept, "value": value}


def _freshness(candidate: Candidate, as_of: datetime) -> float:
    """Halve a fact's weight for every year since it was observed."""
    text = candidate.fact.observed_at or candidate.fetched_at
    try:
        observed = datetime.fromisoformat(text)
    except ValueError:
        return 1.0
    if observed.tzinfo is None:
        observed = observed.replace(tzinfo=UTC)
    age_days = (as_of - observed).total_seconds() / 86_400
    # A fact of this hour is fresh: no dust of a thousandth in every number.
    return 1.0 if age_days < 1 else math.pow(0.5, age_days / HALF_LIFE_DAYS)


def _without_given(scored: list[Weighed]) -> list[Weighed]:
    return [one for one in scored if not one.candidate.is_given] or scored


_order = attrgetter("order")


def _groups(scored: Iterable[Weighed]) -> list[_Group]:
    """Return the distinct values, the best backed first.

    A source that says the same thing twice (on two pages, in two answers) backs it once.
    """
    by_key: dict[str, dict[tuple[str, str], Weighed]] = {}
    said: dict[str, list[Weighed]] = {}
    for one in scored:
        said.setdefault(one.key, []).append(one)
        voices = by_key.setdefault(one.key, {})
        voice = (one.candidate.provider, one.candidate.fact.source)
        if voice not in voices or one.order < voices[voice].order:
            voices[voice] = one
    groups = []
    for key, voices in by_key.items():
        members = tuple(sorted(voices.values(), key=_order))
        # In sorted order, so that the same set gives the same float to the last bit.
        doubt = math.prod(1.0 - member.score for member in members)
        everything = tuple(sorted(said[key], key=_order))
        groups.append(_Group(members, round(1.0 - doubt, 6), everything))
    return sorted(groups, key=_Group.order)


def _put_list(
    values: dict[str, Json],
    provenance: dict[str, Mapping[str, Json]],
    path: str,
    groups: Sequence[_Group],
) -> None:
    """Write a united list: objects with provenance per item, plain values with one for the list."""
    if path not in OBJECT_LISTS:
        _put(values, path, [group.best.value for group in groups])
        provenance[path] = {**_provenance(groups), "value": [g.best.value for g in groups]}
        return
    items = []
    for index, group in enumerate(groups):
        item: dict[str, Json] = {}
        for one in group.everything:
            for name, part in one.value.items():
                item.setdefault(name, part)
        if path == "socialProfiles":
            item["source"] = group.best.candidate.fact.source
            item["confidence"] = round(group.score, 4)
        items.append(item)
        provenance[f"{path}[{index}]"] = {**_provenance([group]), "value": item.get("url", item)}
    _put(values, path, items)


def _one_address(by_path: Mapping[str, list[Weighed]]) -> list[tuple[str, list[_Group]]]:
    """Return (path, groups with the winner first) of an address that no two places are mixed into.

    What the caller supplied stays. Of the sources, the one with the most weight in total gives the
    address; another fills a gap only if it agrees with everything that stands so far and shares at
    least one part with it.
    """
    sets: dict[tuple[int, str, str, str], dict[str, list[Weighed]]] = {}
    given: dict[str, Weighed] = {}
    for path, scored in by_path.items():
        for one in sorted(scored, key=_order):
            if one.candidate.is_given:
                given.setdefault(path, one)
                continue
            fact = one.candidate.fact
            origin = (
                one.candidate.rank,
                one.candidate.provider,
                fact.source,
                fact.source_url or "",
            )
            sets.setdefault(origin, {}).setdefault(path, []).append(one)
    best_of = {
        origin: {path: _groups(scored)[0].best for path, scored in parts.items()}
        for origin, parts in sets.items()
    }
    by_weight = sorted(
        best_of.items(), key=lambda entry: (-sum(o.score for o in entry[1].values()), entry[0])
    )
    chosen: dict[str, Weighed] = dict(given)
    for _, parts in by_weight:
        comparable = [path for path in parts if path in chosen and path != "location.raw"]
        agrees = all(parts[path].key == chosen[path].key for path in comparable)
        is_first = not any(path not in given for path in chosen)
        if agrees and (comparable or is_first):
            for path, one in parts.items():
                chosen.setdefault(path, one)
    answer = []
    for path in sorted(chosen):
        groups = _groups(by_path[path])
        winner = next(group for group in groups if group.best.key == chosen[path].key)
        winner = replace(
            winner,
            members=(chosen[path], *(one for one in winner.members if one != chosen[path])),
        )
        answer.append((path, [winner, *(g for g in groups if g.best.key != chosen[path].key)]))
    return answer


def _provenance(groups: Sequence[_Group]) -> dict[str, Json]:
    """Return who said the winning value, and everybody else under `alternatives`."""
    winner = groups[0].best
    candidate = winner.candidate
    others = [*groups[0].members[1:], *(one for group in groups[1:] for one in group.members)]
    entry: dict[str, Json] = {
        "value": winner.value,
        "provider": candidate.provider,
        "operation": str(candidate.operation),
        "source": candidate.fact.source,
        "confidence": round(groups[0].score, 4),
        "observedAt": candidate.fact.observed_at,
        "fetchedAt": candidate.fetched_at,
        "sourceUrl": candidate.fact.source_url,
        "requestId": candidate.request_id,
        "costCredits": amount(candidate.cost_credits),
        "cached": candidate.cached,
        "alternatives": [
            {
                "value": one.value,
                "provider": one.candidate.provider,
                "source": one.candidate.fact.source,
                "confidence": round(one.score, 4),
                "fetchedAt": one.candidate.fetched_at,
            }
            for one in others[:ALTERNATIVES_MAX]
        ],
    }
    # Nothing, zero and "no" are left out: most of a result would say that it was free and fresh.
    return {name: part for name, part in entry.items() if part or name in ("value", "confidence")}


def _put(values: dict[str, Json], path: str, value: Json) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
    values[last] = value


def amount(credits: Decimal) -> int | float:
    """Return credits as the shortest JSON number."""
    return int(credits) if credits == credits.to_integral_value() else float(credits)


def _text(value: Json) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
