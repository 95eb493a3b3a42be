"""The payloads of the five job types, and the table of all types.

JSON is camelCase, fields are snake_case; unknown fields are refused. A new type is one model and
one handler: `register(name, Model)` here, `@handles(Model)` there, or both at once by
`enrichd.plugin.job_type`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from enrichd.errors import FieldProblem, InvalidPayload

BATCH_LEADS_MAX = 10_000
EMAILS_MAX = 10_000

ShortText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=512)]
LeadId = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    StringConstraints(min_length=1, max_length=200),
]
ProviderId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_#.:-]{0,99}$")]


class EnrichmentType(StrEnum):
    """What is wanted for a lead."""

    EMAIL = "email"
    COMPANY = "company"
    SOCIAL = "social"
    PERSON = "person"


class Verdict(StrEnum):
    """How sure an email address is."""

    VALID = "valid"
    INVALID = "invalid"
    RISKY = "risky"
    UNKNOWN = "unknown"


class FillMode(StrEnum):
    """What becomes of values that the caller supplied."""

    OVERWRITE = "overwrite"
    """A source's value takes their place."""
    FILL_EMPTY = "fillEmpty"
    """They stay; the rest is filled."""
    SKIP_EXISTING = "skipExisting"
    """They stay, and a type whose main fields they are is not looked up at all."""


class CamelModel(BaseModel):
    """camelCase outside, snake_case inside, unknown fields refused.

    The text below a field describes it in OpenAPI.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )


class StopRule(CamelModel):
    """When a waterfall has found enough: every condition that is given must hold."""

    required_fields: tuple[ShortText, ...] = ()
    """Field paths such as `email`, `company.name`, `person.title`."""
    min_confidence: Annotated[float, Field(ge=0, le=1)] = 0.5
    """A guessed address has 0.3: it ends no search unless it is wished to."""
    email_verdicts: tuple[Verdict, ...] = ()
    """Accepted verdicts of the email; empty accepts any."""
    accept_catch_all: bool = True


class LeadInput(CamelModel):
    """What is known of a lead; empty text counts as unknown."""

    id: LeadId | None = None
    email: Annotated[str, StringConstraints(max_length=2048)] | None = None
    first_name: Annotated[str, StringConstraints(max_length=512)] | None = None
    last_name: Annotated[str, StringConstraints(max_length=512)] | None = None
    full_name: Annotated[str, StringConstraints(max_length=512)] | None = None
    company_name: Annotated[str, StringConstraints(max_length=512)] | None = None
    domain: Annotated[str, StringConstraints(max_length=512)] | None = None
    linkedin_url: Annotated[str, StringConstraints(max_length=2048)] | None = None
    phone: Annotated[str, StringConstraints(max_length=512)] | None = None
    title: Annotated[str, StringConstraints(max_length=512)] | None = None
    location: Annotated[str, StringConstraints(max_length=512)] | None = None


class Sourcing(CamelModel):
    """What every job type takes: where to ask, when to stop, what it may cost."""

    provider_id: ProviderId = "builtin"
    """Whom to ask first; `builtin` needs no key."""
    fallback_providers: Annotated[tuple[ProviderId, ...], Field(max_length=20)] = ()
    """Whom to ask then, in this order."""
    stop_rule: StopRule | None = None
    max_credits: Annotated[Decimal, Field(ge=0, le=1_000_000)] | None = None
    """What the job may cost at most."""
    fill_mode: FillMode = FillMode.FILL_EMPTY
    infer_email: bool = False
    """Have the likeliest address checked by a provider that verifies, before one that finds."""
    race: bool = False
    """Go on to the next provider while one's answer is still to come, in place of waiting."""


ALL_TYPES = tuple(EnrichmentType)
EnrichmentTypes = Annotated[tuple[EnrichmentType, ...], Field(min_length=1, max_length=4)]


class SingleLeadEnrichment(Sourcing):
    """One lead."""

    lead_id: LeadId
    enrichment_types: EnrichmentTypes = ALL_TYPES
    input_data: LeadInput = LeadInput()


class BatchLeadEnrichment(Sourcing):
    """Many leads in one job: ids with their data in `inputData`, or whole leads in `leads`."""

    lead_ids: Annotated[tuple[LeadId, ...], Field(max_length=BATCH_LEADS_MAX)] = ()
    """Either these or `leads`."""
    leads: Annotated[tuple[LeadInput, ...], Field(max_length=BATCH_LEADS_MAX)] = ()
    """One without an `id` is known by its place, `#3` for the third."""
    enrichment_types: EnrichmentTypes = ALL_TYPES
    input_data: Mapping[LeadId, LeadInput] = Field(default_factory=dict)
    """What is known of the leads in `leadIds`, by id."""

    @model_validator(mode="after")
    def _names_its_leads_once(self) -> BatchLeadEnrichment:
        if not self.lead_ids and not self.leads:
            raise ValueError("give leadIds or leads, at least one lead")
        if self.lead_ids and self.leads:
            raise ValueError("give leadIds or leads, not both")
        unknown = set(self.input_data) - set(self.lead_ids)
        if unknown and self.lead_ids:
            raise ValueError(
                f"inputData has leads that leadIds does not name: {sorted(unknown)[:5]}"
            )
        return self


class EmailValidation(Sourcing):
    """Addresses to check, without any other enrichment."""

    emails: Annotated[
        tuple[Annotated[str, StringConstraints(max_length=2048)], ...],
        Field(min_length=1, max_length=EMAILS_MAX),
    ]


class CompanyDataUpdate(Sourcing):
    """A company's facts, by its domain or the caller's own id with a domain in `inputData`."""

    company_id: LeadId | None = None
    domain: ShortText | None = None
    input_data: LeadInput = LeadInput()

    @model_validator(mode="after")
    def _names_a_company(self) -> CompanyDataUpdate:
        if not (self.company_id or self.domain):
            raise ValueError("give companyId or domain")
        return self


class SocialProfileDiscovery(Sourcing):
    """A lead's social profiles."""

    lead_id: LeadId
    input_data: LeadInput = LeadInput()


MODELS: dict[str, type[BaseModel]] = {
    "single_lead_enrichment": SingleLeadEnrichment,
    "batch_lead_enrichment": BatchLeadEnrichment,
    "email_validation": EmailValidation,
    "company_data_update": CompanyDataUpdate,
    "social_profile_discovery": SocialProfileDiscovery,
}

Model = TypeVar("Model", bound=BaseModel)


def register(job_type: str, model: type[Model]) -> type[Model]:
    """Add a job type. Raises ValueError when the name has another model already."""
    if MODELS.get(job_type, model) is not model:
        raise ValueError(f"job type {job_type!r} is registered already")
    MODELS[job_type] = model
    return model


def type_of(model: type[BaseModel]) -> str:
    """Return the job type that `model` is registered for."""
    return next(name for name, registered in MODELS.items() if registered is model)


def model_for(job_type: str) -> type[BaseModel]:
    """Return the payload model of a job type. Raises InvalidPayload naming close matches."""
    model = MODELS.get(job_type)
    if model is None:
        close = difflib.get_close_matches(job_type, MODELS, n=1)
        known = ", ".join(sorted(MODELS))
        raise InvalidPayload(
            f"unknown job type {job_type[:80]!r}",
            fields=[FieldProblem("type", "unknown job type")],
            hint=f"Did you mean {close[0]}?" if close else f"Known types: {known}.",
        )
    return model


def parse(job_type: str, payload: Mapping[str, Any] | str | bytes) -> BaseModel:
    """Return a payload as its model; text is parsed as JSON.

    Raises InvalidPayload with the dotted path of every wrong field.
    """
    model = model_for(job_type)
    try:
        if isinstance(payload, (str, bytes)):
            return model.model_validate_json(payload)
        return model.model_validate(payload)
    except ValidationError as error:
        problems = [
            FieldProblem(".".join(map(str, part["loc"])), part["msg"])
            for part in error.errors(include_url=False, include_context=False, include_input=False)[
                :20
            ]
        ]
        shown = "; ".join(map(str, problems[:5]))
        raise InvalidPayload(
            f"the payload does not fit {job_type}: {shown}", fields=problems
        ) from None


def cost_of(payload: BaseModel) -> int:
    """Return how many leads a payload stands for: what fair sharing charges its workspace."""
    if isinstance(payload, BatchLeadEnrichment):
        return max(len(payload.lead_ids), len(payload.leads), 1)
    if isinstance(payload, EmailValidation):
        return max(len(payload.emails) // 10, 1)
    return 1
