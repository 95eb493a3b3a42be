"""The events that webhooks tell of, by name."""

from __future__ import annotations

from typing import Final

from enrichd.errors import FieldProblem, Invalid

EVERY: Final = "*"

JOB_EVENTS: Final = (
    "job.created",
    "job.started",
    "job.progress",
    "job.completed",
    "job.failed",
    "job.dead_letter",
    "job.cancelled",
    "batch.item_completed",
)

ENDPOINT_DISABLED: Final = "endpoint.disabled"
"""Told to the other endpoints of a workspace when one of them was given up."""

ENDPOINT_TEST: Final = "endpoint.test"
"""Sent by hand to one endpoint, whatever it asked for."""

EVENTS: Final = (*JOB_EVENTS, ENDPOINT_DISABLED)
"""What an endpoint may ask for."""


def checked_events(events: list[str]) -> list[str]:
    """Return the events to ask for, each once; raise Invalid for a name that is none.

    None given, or `*` among them, means every event, those of later versions too.
    """
    problems = [
        FieldProblem(f"events.{place}", f"{event!r} is no event; there are: {', '.join(EVENTS)}, *")
        for place, event in enumerate(events)
        if event != EVERY and event not in EVENTS
    ]
    if problems:
        raise Invalid("an event does not exist", fields=problems)
    if not events or EVERY in events:
        return [EVERY]
    return list(dict.fromkeys(events))
