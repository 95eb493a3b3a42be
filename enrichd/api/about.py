"""What the API is, told by itself: the OpenAPI document and a page made of it."""

from __future__ import annotations

from typing import Any

import orjson

from enrichd.api.docs_page import POLICY, page_of
from enrichd.api.messages import JSON_TYPE, Answer, Response
from enrichd.api.openapi import document_of
from enrichd.api.routing import Access, Call, route

CACHED = "public, max-age=300"


@route("GET", "/openapi.json", Access.OPEN, answers={200: dict[str, Any]})
async def openapi(call: Call) -> Answer:
    """Describe the API for programs, as OpenAPI 3.1."""
    body, _ = told(call)
    return Response(200, body, {"Content-Type": JSON_TYPE, "Cache-Control": CACHED})


@route("GET", "/docs", Access.OPEN, answers={200: "text/html"})
async def docs(call: Call) -> Answer:
    """Describe the API for people, as a page."""
    _, page = told(call)
    return Response(
        200,
        page,
        {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": POLICY,
            "Cache-Control": CACHED,
        },
    )


def told(call: Call) -> tuple[bytes, bytes]:
    """Return the document and the page, made at the first question."""
    known: tuple[bytes, bytes] | None = call.api.parts.get("about")
    if known is None:
        document = document_of(call.api.routes)
        known = call.api.parts["about"] = (orjson.dumps(document), page_of(document))
    return known
