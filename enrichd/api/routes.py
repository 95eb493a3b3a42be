"""All routes: importing this module fills the table."""

from __future__ import annotations

from enrichd.api import (
    about,
    enqueueing,
    events,
    incoming,
    job_bulk,
    job_list,
    jobs,
    process,
    provider_routes,
    results,
    webhook_routes,
)
from enrichd.api.routing import ROUTES

MODULES = (
    about,
    enqueueing,
    events,
    incoming,
    job_bulk,
    job_list,
    jobs,
    process,
    provider_routes,
    results,
    webhook_routes,
)

__all__ = ["MODULES", "ROUTES"]
