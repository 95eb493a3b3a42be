"""Cross-origin requests from browsers: only from the origins in API_CORS_ORIGINS, none by default.

A key is sent by the page itself in a header, never by the browser on its own, so nothing here has
to do with cookies.
"""

from __future__ import annotations

from collections.abc import Collection

from enrichd.api.messages import Request

TAKEN = (
    "Accept, Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID,"
    " X-Request-Id"
)
SHOWN = "ETag, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id"
KEPT_S = 600


def cors_headers(
    request: Request, origins: Collection[str], methods: Collection[str]
) -> dict[str, str]:
    """Return what a browser must read in an answer to a page of one of the origins."""
    if not origins:
        return {}
    headers = {"Vary": "Origin"}
    origin = request.header("origin")
    if origin.lower() not in origins:
        return headers
    headers |= {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": SHOWN,
    }
    if request.method == "OPTIONS" and request.header("access-control-request-method"):
        headers |= {
            "Access-Control-Allow-Methods": ", ".join(methods),
            "Access-Control-Allow-Headers": TAKEN,
            "Access-Control-Max-Age": str(KEPT_S),
        }
    return headers
