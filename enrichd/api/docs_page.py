"""The API as one page that people read: plain HTML, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from typing import Any

from enrichd.api.openapi import SCHEMAS, Schema

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: #2563eb; }
@media (prefers-color-scheme: dark) { :root { --accent: #8ab4ff; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1.5rem; }
code { font: .9em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
a { color: var(--accent); }
h1 { margin: 0; } h2 { margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); }
nav ul { columns: 20rem 2; padding-left: 0; list-style: none; }
section { border: 1px solid var(--line); border-radius: .5rem; }
section { margin: 1rem 0; padding: 0 1rem 1rem; }
section h3 { margin: .8rem 0 .2rem; font-weight: 500; }
section h3 b { display: inline-block; min-width: 4.5rem; color: var(--accent); }
h4 { margin: 1rem 0 .2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; }
td { border-top: 1px solid var(--soft); }
td:first-child code { white-space: nowrap; }
@media (max-width: 40rem) {
  body { padding: 1rem; } ul { padding-left: 1.2rem; }
  table, tbody, tr, td { display: block; }
  tr { border-top: 1px solid var(--soft); padding: .4rem 0; }
  td { border: 0; padding: 0; }
}
.must { font-size: .8em; border: 1px solid var(--line); border-radius: .3rem; padding: 0 .3rem; }
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = (
    f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)


def page_of(document: Schema) -> bytes:
    """Return the page of an OpenAPI document; its policy is POLICY."""
    return "".join(parts_of(document)).encode()


def parts_of(document: Schema) -> Iterator[str]:
    """Yield the page from top to bottom."""
    info = document["info"]
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} API</h1><p>{prose(info['description'])}</p>"
        f"<p>Version <code>{escape(info['version'])}</code>."
        ' For programs: <a href="openapi.json">openapi.json</a>.</p>'
    )
    yield "<nav><h2>Routes</h2><ul>"
    for path, method, operation in operations_of(document):
        name = f"{method} {path}"
        yield f'<li><a href="#{operation["operationId"]}"><code>{escape(name)}</code></a></li>'
    yield (
        '</ul><p><a href="#payloads">Payloads of the job types</a>'
        ' · <a href="#shapes">Shapes</a></p></nav><main><h2>What each takes and gives</h2>'
    )
    for path, method, operation in operations_of(document):
        yield from route_of(path, method, operation)
    yield '<h2 id="payloads">Payloads of the job types</h2><ul>'
    for job_type, schema in document["x-enrichd-payloads"].items():
        yield f"<li><code>{escape(job_type)}</code>: {type_of(schema)}</li>"
    yield '</ul><h2 id="shapes">Shapes</h2>'
    for name, schema in document["components"]["schemas"].items():
        yield from shape_of(name, schema)
    yield "</main></body></html>\n"


def operations_of(document: Schema) -> Iterator[tuple[str, str, Schema]]:
    """Yield (path, method, operation)."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method.upper(), operation


def route_of(path: str, method: str, operation: Schema) -> Iterator[str]:
    """Yield one route: its parameters, body and answers."""
    yield (
        f'<section id="{operation["operationId"]}"><h3><b>{method}</b>'
        f"<code>{escape(path)}</code></h3><p>{prose(operation['summary'])}."
        f" {prose(operation['description'])}</p>"
    )
    if operation["parameters"]:
        yield from table(
            "Parameters",
            (
                (
                    f"<code>{escape(one['name'])}</code> {must(one['required'])}",
                    one["in"],
                    type_of(one["schema"]),
                    prose(one.get("description", "")),
                )
                for one in operation["parameters"]
            ),
        )
    if body := operation.get("requestBody"):
        kinds = " or ".join(type_of(part["schema"]) for part in body["content"].values())
        yield f"<h4>Body</h4><p>{kinds}</p>"
    yield from table(
        "Answers",
        (
            (f"<code>{status}</code>", prose(answer["description"]), content_of(answer))
            for status, answer in operation["responses"].items()
        ),
    )
    yield "</section>"


def content_of(answer: Schema) -> str:
    """Return what an answer holds."""
    return ", or ".join(
        f"<code>{escape(kind)}</code>"
        if part["schema"] == {"type": "string"}
        else type_of(part["schema"])
        for kind, part in answer.get("content", {}).items()
    )


def shape_of(name: str, schema: Schema) -> Iterator[str]:
    """Yield one schema: its fields, or its values."""
    yield f'<section id="shape-{escape(name)}"><h3><code>{escape(name)}</code></h3>'
    yield f"<p>{prose(schema.get('description', ''))}</p>"
    if "properties" in schema:
        required = schema.get("required", [])
        yield from table(
            "",
            (
                (
                    f"<code>{escape(field)}</code> {must(field in required)}",
                    type_of(part),
                    prose(part.get("description", "")),
                )
                for field, part in schema["properties"].items()
            ),
        )
    else:
        yield f"<p>{type_of(schema)}</p>"
    yield "</section>"


def table(title: str, rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """Yield a table of cells that are HTML already."""
    yield (f"<h4>{title}</h4>" if title else "") + '<div class="wide"><table>'
    for cells in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</table></div>"


def must(is_required: bool) -> str:
    """Return the mark of what must be there."""
    return '<span class="must">required</span>' if is_required else ""


def type_of(schema: Any) -> str:
    """Return a schema in a few words, with links to others."""
    if not isinstance(schema, dict) or not schema:
        return "any JSON"
    if ref := schema.get("$ref"):
        name = escape(ref.removeprefix(SCHEMAS))
        return f'<a href="#shape-{name}"><code>{name}</code></a>'
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(type_of(part) for part in schema[key]))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " · ".join(f"<code>{escape(str(value))}</code>" for value in values)
    kind = str(schema.get("type", "any JSON"))
    if kind == "array":
        kind = f"array of {type_of(schema.get('items') or schema.get('prefixItems'))}"
    elif "additionalProperties" in schema and isinstance(schema["additionalProperties"], dict):
        kind = f"object of {type_of(schema['additionalProperties'])}"
    elif "format" in schema:
        kind = escape(schema["format"])
    return kind + limits_of(schema)


LIMITS = {
    "minimum": "from {}",
    "maximum": "to {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
}


def limits_of(schema: Schema) -> str:
    """Return what bounds a value, and its default."""
    parts = [text.format(spelt(schema[key])) for key, text in LIMITS.items() if key in schema]
    if schema.get("default") not in (None, [], {}, ""):
        parts.append(f"default {spelt(schema['default'])}")
    return f" ({escape(', '.join(parts))})" if parts else ""


def spelt(value: object) -> str:
    """Return a value as JSON has it, text without its quotes and a whole number without a point."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)


def prose(text: str) -> str:
    """Return text with its `code` marked."""
    pieces = escape(text).split("`")
    return "".join(
        f"<code>{piece}</code>" if odd % 2 else piece for odd, piece in enumerate(pieces)
    )
