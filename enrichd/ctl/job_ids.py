"""Ids as people give them: whole, or any unambiguous beginning, with or without hyphens."""

from __future__ import annotations

import re
from uuid import UUID

from enrichd.domain.jobs import JobStatus
from enrichd.errors import FieldProblem, Invalid, JobNotFound
from enrichd.store import job_reads
from enrichd.store.database import Connection

DIGITS_MIN = 4
DIGITS = 32
CANDIDATES_SHOWN = 5

_HEX = re.compile(r"[0-9a-f]+", re.ASCII)


def prefix_of(text: str) -> str:
    """Return the digits of an id or its beginning. Raises Invalid if it cannot be one."""
    digits = text.strip().lower().replace("-", "")
    if not _HEX.fullmatch(digits):
        if text.strip().lower() in set(JobStatus):
            raise wrong(text, "is a state, not an id", hint=f"Did you mean --all --status {text}?")
        raise wrong(text, "is not a job id; it has the digits 0-9, a-f and hyphens")
    if len(digits) < DIGITS_MIN:
        raise wrong(text, f"is too short for the beginning of an id; give {DIGITS_MIN} digits")
    if len(digits) > DIGITS:
        raise wrong(text, f"has {len(digits)} digits; an id has {DIGITS}")
    return digits


def wrong(text: str, problem: str, *, hint: str | None = None) -> Invalid:
    """Return the error for what is no id."""
    shown = text if len(text) <= 50 else f"{text[:50]}…"
    return Invalid(f"{shown!r} {problem}", fields=[FieldProblem("id", problem)], hint=hint)


async def resolve(conn: Connection, *, workspace_id: str, text: str) -> UUID:
    """Return the id of the one job that starts with `text`.

    Raises JobNotFound if there is none, and Invalid naming the candidates if there are several.
    """
    prefix = prefix_of(text)
    found = await job_reads.find_by_prefix(
        conn, workspace_id=workspace_id, prefix=prefix, limit=CANDIDATES_SHOWN + 1
    )
    if not found:
        whole = len(prefix) == DIGITS
        raise JobNotFound(
            f"no job {'is' if whole else 'starts with'} {text} in workspace {workspace_id}",
            hint="enrichctl list shows the jobs; --workspace names another workspace.",
        )
    if len(found) > 1:
        shown = found[:CANDIDATES_SHOWN]
        count = str(len(found)) if len(found) == len(shown) else f"more than {len(shown)}"
        raise Invalid(
            "\n  ".join([f"{text} is the beginning of {count} ids:", *map(str, shown)]),
            fields=[FieldProblem("id", str(job_id)) for job_id in shown],
            hint="Give more of it.",
        )
    return found[0]


async def resolve_all(conn: Connection, *, workspace_id: str, texts: list[str]) -> list[UUID]:
    """Resolve several, each job once, in the order given; the first that cannot be is raised."""
    found = [await resolve(conn, workspace_id=workspace_id, text=text) for text in texts]
    return list(dict.fromkeys(found))


def short(job_id: UUID, digits: int) -> str:
    """Return the first digits of an id with the hyphens in their places."""
    shown, left = "", digits
    for group in str(job_id).split("-"):
        if left <= 0:
            break
        shown += ("-" if shown else "") + group[:left]
        left -= len(group)
    return shown
