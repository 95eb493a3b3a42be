"""The questions that a provider may answer."""

from __future__ import annotations

from enum import StrEnum


class Operation(StrEnum):
    """A question that a provider may answer."""

    FIND_EMAIL = "findEmail"
    VERIFY_EMAIL = "verifyEmail"
    ENRICH_PERSON = "enrichPerson"
    ENRICH_COMPANY = "enrichCompany"
    FIND_SOCIAL_PROFILES = "findSocialProfiles"
