"""What a job found: its leads page by page, and the whole result as JSON or CSV."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, StringConstraints

from enrichd.api.cursors import cursor_of, place_of
from enrichd.api.job_models import ApiModel, ItemDocument
from enrichd.api.job_shapes import item_of
from enrichd.api.jobs import id_of, not_found
from enrichd.api.messages import JSON_TYPE, Answer, Stream, json_response
from enrichd.api.problems import Problem
from enrichd.api.routing import Access, Call, route
from enrichd.api.transactions import in_workspace
from enrichd.domain.jobs import TERMINAL, Job
from enrichd.domain.result_fields import DEFAULT_FIELDS, chosen_fields, column_values
from enrichd.domain.sheet_cells import neutral, quoted
from enrichd.errors import FieldProblem, Invalid, Refused
from enrichd.store import item_pages, job_reads
from enrichd.store.database import Connection
from enrichd.store.item_pages import PAGE_MAX
from enrichd.store.items import Item

CSV_TYPE = "text/csv; charset=utf-8"
KEY_COLUMNS = ("key", "status")
ROWS_IN_A_PIECE = 500


class ItemsQuery(ApiModel):
    """Which leads."""

    status: Literal["completed", "failed"] | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX)] = 100
    cursor: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = None
    """The nextCursor of the page before."""


class ItemsPage(ApiModel):
    """Finished leads of a batch, by key."""

    items: Sequence[ItemDocument]
    next_cursor: str | None


@route("GET", "/jobs/{id}/items", Access.READ, query=ItemsQuery, answers={200: ItemsPage})
async def list_items(call: Call) -> Answer:
    """List the leads of a batch that have ended, also while the rest still runs."""
    job_id = id_of(call)
    query: ItemsQuery = call.query
    after = "" if query.cursor is None else place_of(query.cursor)

    async def work(conn: Connection) -> Sequence[Item]:
        found = await item_pages.page(
            conn,
            workspace_id=call.workspace_id,
            job_id=job_id,
            after=after,
            status=query.status,
            limit=query.limit + 1,
        )
        if not found:
            # No lead, or no such job.
            there = await job_reads.statuses(conn, workspace_id=call.workspace_id, ids=[job_id])
            if not there:
                raise not_found(job_id)
        return found

    found = await in_workspace(call, work)
    shown = found[: query.limit]
    is_cut = len(found) > len(shown)
    return json_response(
        {
            "items": [item_of(item) for item in shown],
            "nextCursor": cursor_of(shown[-1].item_key) if is_cut else None,
        }
    )


class ResultQuery(ApiModel):
    """In which form."""

    format: Literal["json", "csv"] | None = None
    """Absent: what the Accept header prefers, JSON if it has no wish."""
    fields: Annotated[str, StringConstraints(min_length=1, max_length=2000)] | None = None
    """The columns of a CSV by commas, or `all`."""


class ResultDocument(ApiModel):
    """The result of a job that has ended, with every lead of a batch."""

    id: str
    status: str
    result: Any
    error: Any
    items: Sequence[ItemDocument] | None = None


@route(
    "GET",
    "/jobs/{id}/result",
    Access.READ,
    query=ResultQuery,
    answers={200: (ResultDocument, "text/csv")},
    headers={"Accept": "`text/csv` asks for CSV where `format` is absent."},
)
async def result(call: Call) -> Answer:
    """Read the whole result of a job that has ended, as JSON or as a sheet."""
    query: ResultQuery = call.query
    is_csv = query.format == "csv" or (
        query.format is None and "text/csv" in call.request.header("accept").lower()
    )
    fields = chosen(query.fields)
    job_id = id_of(call)

    async def work(conn: Connection) -> tuple[Job, Sequence[Item]]:
        job = await job_reads.get(conn, workspace_id=call.workspace_id, job_id=job_id)
        if job is None:
            raise not_found(job_id)
        if job.status not in TERMINAL:
            raise Refused(
                f"job {job_id} is {job.status}: it has no result yet",
                hint="What a batch has finished so far is at /items.",
            )
        return job, await leads_of(conn, call, job)

    job, items = await in_workspace(call, work)
    pages = pages_of(call, job, items)
    if is_csv:
        name = f'attachment; filename="{job_id}.csv"'
        headers = {"Content-Type": CSV_TYPE, "Content-Disposition": name}
        return Stream(200, sheet(job, pages, fields), headers)
    return Stream(200, document(job, bool(items), pages), {"Content-Type": JSON_TYPE})


def chosen(text: str | None) -> Sequence[str]:
    """Return the columns that are wanted. Raises Problem 422 naming the nearest of a wrong one."""
    try:
        return chosen_fields(text) if text else DEFAULT_FIELDS
    except Invalid as error:
        problem = error.message.removeprefix("--")
        raise Problem(
            422,
            "invalid_query",
            f"The query is wrong: {problem}",
            fields=[FieldProblem("fields", problem)],
            hint=error.hint,
        ) from None


async def leads_of(conn: Connection, call: Call, job: Job, after: str = "") -> Sequence[Item]:
    """Return a page of a job's leads."""
    return await item_pages.page(conn, workspace_id=call.workspace_id, job_id=job.id, after=after)


async def pages_of(call: Call, job: Job, first: Sequence[Item]) -> AsyncIterator[Sequence[Item]]:
    """Yield a job's leads by the page, each read when the one before was taken.

    No transaction stays open while a client reads slowly.
    """
    page = first
    while page:
        yield page
        if len(page) < PAGE_MAX:
            return
        read = partial(leads_of, call=call, job=job, after=page[-1].item_key)
        page = await in_workspace(call, read)


async def document(
    job: Job, has_items: bool, pages: AsyncIterator[Sequence[Item]]
) -> AsyncIterator[bytes]:
    """Yield the result as JSON."""
    head = orjson.dumps(
        {"id": str(job.id), "status": job.status, "result": job.result, "error": job.error}
    )
    if not has_items:
        yield head
        return
    yield head[:-1] + b',"items":['
    is_first = True
    async for page in pages:
        lines = b",".join(orjson.dumps(item_of(item)) for item in page)
        yield lines if is_first else b"," + lines
        is_first = False
    yield b"]}"


async def sheet(
    job: Job, pages: AsyncIterator[Sequence[Item]], fields: Sequence[str]
) -> AsyncIterator[bytes]:
    """Yield the result as CSV, a row for each lead, with nothing in it that runs as a formula."""
    yield line([*KEY_COLUMNS, *fields])
    has_items = False
    async for page in pages:
        has_items = True
        yield b"".join(
            line([item.item_key, item.status, *cells(item.result, item.error, fields)])
            for item in page
        )
    if not has_items:
        for piece in rows_of(job, fields):
            yield piece


def rows_of(job: Job, fields: Sequence[str]) -> Iterator[bytes]:
    """Yield the rows of a job without leads of its own: its result, or one for each address."""
    given = job.result if isinstance(job.result, Mapping) else None
    verdicts = given.get("results") if given is not None else None
    if not isinstance(verdicts, list):
        key = str(given.get("leadId") or job.id) if given is not None else str(job.id)
        yield line([key, str(job.status), *cells(given, job.error, fields)])
        return
    for start in range(0, len(verdicts), ROWS_IN_A_PIECE):
        yield b"".join(
            line([address_of(verdict), "completed", *cells(wrapped(verdict), None, fields)])
            for verdict in verdicts[start : start + ROWS_IN_A_PIECE]
        )


def wrapped(verdict: object) -> dict[str, Any]:
    """Return a verdict as a lead's result has it."""
    return {"emailVerification": verdict}


def address_of(verdict: object) -> str:
    """Return the address that a verdict is about."""
    return str(verdict.get("email") or "") if isinstance(verdict, Mapping) else ""


def cells(found: object, error: object, fields: Sequence[str]) -> list[str]:
    """Return the text of each field; an error without a result says so itself."""
    message = error.get("message") if isinstance(error, Mapping) else error
    told = None if message is None else str(message)
    return column_values(found if isinstance(found, Mapping) else None, told, fields)


def line(texts: Sequence[str]) -> bytes:
    """Return a line of CSV (RFC 4180), safe to open in a spreadsheet."""
    return (",".join(quoted(neutral(text)) for text in texts) + "\r\n").encode()
