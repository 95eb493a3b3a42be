"""The OpenAPI 3.1 document, made of the table of routes and its models: what the code does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import TypeAdapter

from enrichd import __version__
from enrichd.api.job_models import ApiModel
from enrichd.api.problems import TITLES
from enrichd.api.routing import Access, NoQuery, Route
from enrichd.domain import payloads

Schema: TypeAlias = dict[str, Any]

SCHEMAS = "#/components/schemas/"
JSON = "application/json"
PROBLEM_JSON = "application/problem+json"

ABOUT = """\
Jobs that enrich leads in the background. JSON is camelCase, unknown fields are refused, times are
ISO 8601 with a time zone. A key belongs to one workspace and sees nothing of another: what belongs
to somebody else answers 404, like what is not there. Errors are problem details (RFC 9457) with a
`code` for programs and, for a bad body, the `path` of each bad field."""

ACCESS = {
    Access.READ: "A key with the scope `read`.",
    Access.WRITE: "A key with the scope `write`.",
    Access.ADMIN: "A key with the scope `admin`.",
    Access.CRON: "`Authorization: Bearer` with `CRON_SECRET`.",
    Access.SIGNED: "The provider's own signature, or the token in the address.",
    Access.OPEN: "Open to everybody.",
}
PATH_PARAMETERS: Mapping[str, Schema] = {
    "id": {"type": "string", "format": "uuid"},
}
TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": 200}


class FieldProblem(ApiModel):
    """One wrong field."""

    path: str
    """Its dotted path, `payload.emails.3`."""
    problem: str


class ProblemDetails(ApiModel):
    """What went wrong."""

    type: str
    title: str
    status: int
    code: str
    """Machine-readable, snake_case."""
    detail: str
    """One sentence."""
    request_id: str
    """Also in the header X-Request-Id: the log knows more under it."""
    hint: str | None = None
    errors: Sequence[FieldProblem] = ()


class Schemas:
    """Collects the schemas of all models, to refer to each from wherever it is used."""

    def __init__(self, types: Iterable[Any]) -> None:
        adapters = {id(one): TypeAdapter(one) for one in types}
        found, definitions = TypeAdapter.json_schemas(
            [(key, "validation", adapter) for key, adapter in adapters.items()],
            ref_template=SCHEMAS + "{model}",
        )
        self._by_type = {key: schema for (key, _), schema in found.items()}
        self.components: Schema = definitions.get("$defs", {})

    def of(self, wanted: Any) -> Schema:
        """Return a type's schema, most often a reference."""
        return self._by_type[id(wanted)]

    def properties_of(self, wanted: Any) -> tuple[Schema, Sequence[str]]:
        """Return a model's fields and the names of those that must be there."""
        schema = self.of(wanted)
        if "$ref" in schema:
            schema = self.components[schema["$ref"].removeprefix(SCHEMAS)]
        return schema.get("properties", {}), schema.get("required", [])


def document_of(routes: Sequence[Route]) -> Schema:
    """Return the OpenAPI document of these routes."""
    schemas = Schemas([*types_of(routes), ProblemDetails, *payloads.MODELS.values()])
    paths: dict[str, Schema] = {}
    for route in sorted(routes, key=lambda one: (one.path, one.method)):
        paths.setdefault(route.template, {})[route.method.lower()] = operation_of(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "enrichd", "version": __version__, "description": ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, enr_…"},
                "cron": {"type": "http", "scheme": "bearer", "description": "CRON_SECRET"},
            },
        },
        "x-enrichd-payloads": {
            name: schemas.of(model) for name, model in sorted(payloads.MODELS.items())
        },
    }


def types_of(routes: Iterable[Route]) -> Iterator[Any]:
    """Yield every type that a route names."""
    for route in routes:
        yield route.query
        if route.body is not None:
            yield route.body
        for answer in route.answers.values():
            yield from (one for one in alternatives(answer) if not isinstance(one, str))


def alternatives(answer: Any) -> tuple[Any, ...]:
    """Return what an answer may be: models, and names of media types."""
    if answer is None:
        return ()
    return answer if isinstance(answer, tuple) else (answer,)


def operation_of(route: Route, schemas: Schemas) -> Schema:
    """Return one operation."""
    operation: Schema = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "description": ACCESS[route.access],
        "tags": [route.path.strip("/").partition("/")[0]],
        "security": security_of(route.access),
        "parameters": list(parameters_of(route, schemas)),
        "responses": responses_of(route, schemas),
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.is_body_optional,
            "content": {JSON: {"schema": schemas.of(route.body)}},
        }
    elif route.access is Access.SIGNED:
        # Whatever the sender sends; a signature is over its bytes.
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": {}}}}
    return operation


def operation_id(route: Route) -> str:
    """Return a name that is the route's own, for generated clients: `postJobsIdRetry`."""
    words: list[str] = re.findall(r"[a-z]+", f"{route.method.lower()} {route.path.lower()}")
    return words[0] + "".join(word.capitalize() for word in words[1:])


def security_of(access: Access) -> list[Schema]:
    """Return what a caller must show."""
    match access:
        case Access.READ | Access.WRITE | Access.ADMIN:
            return [{"key": []}]
        case Access.CRON:
            return [{"cron": []}]
        case _:
            return []


def parameters_of(route: Route, schemas: Schemas) -> Iterator[Schema]:
    """Yield what stands in the path, the query and the headers."""
    for name in re.findall(r"{(\w+)}", route.path):
        schema = PATH_PARAMETERS.get(name, TEXT)
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    if route.query is not NoQuery:
        properties, required = schemas.properties_of(route.query)
        for name, schema in properties.items():
            yield {
                "name": name,
                "in": "query",
                "required": name in required,
                "schema": without_null(schema),
                **described(schema.get("description")),
            }
    for name, text in route.headers.items():
        yield {
            "name": name,
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": text,
        }


def without_null(schema: Schema) -> Schema:
    """Return a schema for a parameter: it is left out, never null."""
    kept = [part for part in schema.get("anyOf", []) if part != {"type": "null"}]
    rest = {k: v for k, v in schema.items() if k not in ("anyOf", "default", "title")}
    if "default" in schema and schema["default"] is not None:
        rest["default"] = schema["default"]
    if len(kept) == 1:
        return {**kept[0], **rest}
    return {**rest, "anyOf": kept} if kept else rest


def described(text: str | None) -> Schema:
    """Return the description, if there is one."""
    return {"description": text} if text else {}


def responses_of(route: Route, schemas: Schemas) -> Schema:
    """Return every answer: those that are told by the route, and the problems that may come."""
    responses: Schema = {}
    for status, answer in route.answers.items():
        content: Schema = {}
        for one in alternatives(answer):
            if isinstance(one, str):
                content[one] = {"schema": {"type": "string"}}
            else:
                content[JSON] = {"schema": schemas.of(one)}
        responses[str(status)] = {"description": MEANINGS.get(status, "Done")}
        if content:
            responses[str(status)]["content"] = content
    for status in problems_of(route):
        responses[str(status)] = {
            "description": TITLES[status],
            "content": {PROBLEM_JSON: {"schema": {"$ref": SCHEMAS + "ProblemDetails"}}},
        }
    return responses


MEANINGS = {
    200: "Done",
    201: "Made",
    202: "Begun, not done yet",
    204: "Done, nothing to say",
    304: "As it was",
}


def problems_of(route: Route) -> Iterator[int]:
    """Yield the statuses of the problems that a route may answer with."""
    if route.body is not None:
        yield from (400, 408, 413, 415)
    elif route.access is Access.SIGNED:
        yield from (400, 404, 408, 409, 413)
    if route.access is not Access.OPEN:
        yield from (401, 403, 429)
    if "{" in route.path and route.access is not Access.SIGNED:
        yield 404
        yield 409
    if "webhook_id" in getattr(route.body, "model_fields", ()):
        yield 404
    if "If-Match" in route.headers:
        yield 412
    yield from (422, 503)
