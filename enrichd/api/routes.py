"""All routes: importing this module fills the table."""

from __future__ import annotations

from enrichd.api import enqueueing, job_list, jobs
from enrichd.api.routing import ROUTES

MODULES = (enqueueing, job_list, jobs)

__all__ = ["MODULES", "ROUTES"]
