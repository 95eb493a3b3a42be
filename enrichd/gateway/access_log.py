"""The access log: one line for each answer of the API, with nothing in it that must stay secret.

A path is shown as its route's template: ids are left to those who want them. Of a query only the
names are told, of headers nothing, of the caller the key's public id and the address.
"""

from __future__ import annotations

from typing import Literal

from aiohttp import web

from enrichd.api.messages import Answer, Response
from enrichd.gateway.clients import client_of
from enrichd.logs import get_logger

PATH_CHARS_MAX = 200
NAMES_MAX = 20

Detail = Literal["off", "route", "path"]

log = get_logger("access")


class AccessLog:
    """Writes lines in the wanted detail: none, with the route's template, or with the path."""

    def __init__(self, detail: Detail) -> None:
        self._detail = detail

    def write(self, incoming: web.Request, answer: Answer, took_s: float) -> None:
        """Write an answer's line."""
        if self._detail == "off":
            return
        fields: dict[str, object] = {
            "method": incoming.method[:20],
            "route": answer.route,
            "status": answer.status,
            "took_ms": round(took_s * 1000, 1),
            "client": client_of(incoming),
            "request_id": answer.headers.get("X-Request-Id", ""),
        }
        if answer.key_id:
            fields["key"] = answer.key_id
        if isinstance(answer, Response):
            fields["bytes"] = len(answer.body)
        if self._detail == "path":
            fields["path"] = incoming.path[:PATH_CHARS_MAX]
        if incoming.query_string:
            names = list(dict.fromkeys(incoming.query))[:NAMES_MAX]
            fields["query"] = ",".join(name[:40] for name in names)
        log.info("request_answered", **fields)
