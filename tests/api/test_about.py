"""The API's own description: every route, answers as their models say, a page without scripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from enrichd.api import docs_page
from enrichd.api.routes import ROUTES
from enrichd.api.routing import Access
from tests.api.conftest import a_body, enqueued
from tests.support.factories import a_job

DOCS = Path(__file__).parents[2] / "docs" / "http-api.md"


@pytest.fixture
async def document(served):
    return (await served.client(None).get("/openapi.json")).json()


async def test_every_route_is_in_the_document(document):
    told = {(method.upper(), path) for path, item in document["paths"].items() for method in item}

    assert document["openapi"] == "3.1.0"
    assert told == {(route.method, route.template) for route in ROUTES}


async def test_every_reference_leads_somewhere(document, served):
    text = (await served.client(None).get("/openapi.json")).text
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', text))

    assert names
    assert names <= document["components"]["schemas"].keys()


async def test_operation_ids_are_unique(document):
    ids = [op["operationId"] for item in document["paths"].values() for op in item.values()]

    assert len(ids) == len(set(ids))


async def test_unknown_fields_are_refused_in_the_document_too(document):
    for name in ("JobToEnqueue", "JobChange", "BulkMove", "JobDetails"):
        assert document["components"]["schemas"][name]["additionalProperties"] is False


async def test_a_list_is_bounded_by_its_items(document):
    def schemas(part):
        if isinstance(part, dict):
            yield part
        for below in part.values() if isinstance(part, dict) else part:
            if isinstance(below, dict | list):
                yield from schemas(below)

    arrays = [part for part in schemas(document) if part.get("type") == "array"]

    assert arrays
    assert not [part for part in arrays if "maxLength" in part or "minLength" in part]


async def test_what_stands_below_a_field_describes_it(document):
    shapes = document["components"]["schemas"]
    parameters = document["paths"]["/api/enrichment/events"]["get"]["parameters"]

    assert shapes["BatchLeadEnrichment"]["properties"]["leads"]["description"]
    assert shapes["JobToEnqueue"]["properties"]["priority"]["description"]
    assert all(one.get("description") for one in parameters)


async def test_keys_are_asked_for_where_they_are(document):
    for route in ROUTES:
        operation = document["paths"][route.template][route.method.lower()]
        has_key = {"key": []} in operation["security"]
        assert has_key == (route.access in (Access.READ, Access.WRITE, Access.ADMIN))


async def test_answers_fit_their_models(http, conn):
    job = await enqueued(http)
    ended = await a_job(conn, status="completed", workspace_id="team-a", result={"a": 1})
    asked = [
        ("POST", "/jobs", "/jobs", [a_body(), a_body()]),
        ("POST", "/jobs", "/jobs", a_body()),
        ("GET", "/jobs", "/jobs?counts=true", None),
        ("GET", "/jobs/metrics", "/jobs/metrics", None),
        ("GET", "/jobs/{id}", f"/jobs/{ended.id}", None),
        ("GET", "/jobs/{id}/items", f"/jobs/{ended.id}/items", None),
        ("GET", "/jobs/{id}/result", f"/jobs/{ended.id}/result", None),
        ("PUT", "/jobs/{id}", f"/jobs/{job['id']}", {"priority": 2}),
        ("DELETE", "/jobs/{id}", f"/jobs/{job['id']}", None),
        ("POST", "/jobs/{id}/retry", f"/jobs/{job['id']}/retry", None),
        ("POST", "/jobs/bulk", "/jobs/bulk", {"action": "cancel", "ids": [job["id"]]}),
    ]
    by_name = {(route.method, route.path): route for route in ROUTES}
    for method, path, target, body in asked:
        answer = await http.request(method, target, json=body)
        told = by_name[method, path].answers[answer.status_code]
        model = told[0] if isinstance(told, tuple) else told
        TypeAdapter(model).validate_json(answer.content)


async def test_the_page_needs_nothing_but_itself(served):
    answer = await served.client(None).get("/docs")

    page = answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == docs_page.POLICY
    assert not re.search(r"<script|<link|<img|<iframe| style=| on\w+=|https?://", page)
    assert all(f"<code>{route.template}</code>" in page for route in ROUTES)
    anchors = set(re.findall(r'href="#([^"]+)"', page))
    assert anchors <= set(re.findall(r'id="([^"]+)"', page))


async def test_the_page_spells_values_as_json_does(served):
    page = (await served.client(None).get("/docs")).text

    assert "boolean (default false)" in page
    assert "number (from 0, to 1000000)" in page
    assert not re.search(r"default (True|False|None)", page)


def test_every_route_is_described_for_operators():
    told = set(re.findall(r"`(GET|POST|PUT|DELETE) (/api/enrichment/[^`?]+)`", DOCS.read_text()))

    assert told == {(route.method, route.template) for route in ROUTES}
