"""Bodies as they travel: how large and slow one may be, and how an answer is compressed.

The aiohttp transport and the ASGI one share these, so that both refuse and pack alike.
"""

from __future__ import annotations

import zlib
from typing import Final

from uuid_utils.compat import uuid7

from enrichd.api.messages import Answer, Response, Stream
from enrichd.api.problems import problem

BODY_BYTES_MAX: Final = 2 << 20
"""A payload may have 1 MiB, and stands in a body with the rest of its job."""
BODY_S: Final = 15.0
"""How long a whole body may take, however it drips."""
PIECE_S: Final = 20.0
"""How long one piece of a stream may wait for a client that does not read."""
GZIP_BYTES_MIN: Final = 1024
GZIP_LEVEL: Final = 4
ASIDE_BYTES_MIN: Final = 128 * 1024
"""Compressing more than this would hold up everybody else: another thread does it."""
COMPRESSIBLE: Final = ("application/json", "application/problem+json", "text/")

HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""What every answer says about its use; a route's own word counts more."""


def refused(status: int, code: str, detail: str) -> Response:
    """Return the answer after which the connection is closed: what is left of the body stays."""
    request_id = str(uuid7())
    answer = problem(status, code, detail, request_id=request_id)
    answer.headers |= {"Connection": "close", "X-Request-Id": request_id}
    return answer


def slow_body() -> Response:
    """Return the answer to a body that takes too long."""
    return refused(408, "slow_body", f"The body took longer than {BODY_S:g} s.")


def broken_body() -> Response:
    """Return the answer to a body that cannot be decoded, or is not whole."""
    return refused(400, "broken_body", "The body is not what its headers say.")


def large_body() -> Response:
    """Return the answer to a body that is too large, packed or not."""
    return refused(413, "body_too_large", f"The body has more than {BODY_BYTES_MAX:,} bytes.")


def is_worth_packing(answer: Response) -> bool:
    """Say whether compressing a whole answer helps."""
    kind = answer.headers.get("Content-Type", "")
    return len(answer.body) >= GZIP_BYTES_MIN and kind.startswith(COMPRESSIBLE)


def is_packed(accepted: str, answer: Stream) -> bool:
    """Say whether a stream is compressed: a document is, events must not wait for each other."""
    kind = answer.headers.get("Content-Type", "")
    if not kind.startswith(COMPRESSIBLE) or kind.startswith("text/event-stream"):
        return False
    vary_by_encoding(answer)
    return takes_gzip(accepted)


def vary_by_encoding(answer: Answer) -> None:
    """Tell caches that another Accept-Encoding gets another answer."""
    answer.headers["Vary"] = ", ".join(
        filter(None, (answer.headers.get("Vary"), "Accept-Encoding"))
    )


def takes_gzip(accepted: str) -> bool:
    """Say whether an Accept-Encoding header allows gzip: named, or by `*`, and not with q=0."""
    allowed: bool | None = None
    for part in accepted.lower().split(",")[:20]:
        coding, _, quality = part.partition(";")
        name = coding.strip()
        is_wanted = quality.replace(" ", "").removeprefix("q=").strip("0.") != "" or not quality
        if name in ("gzip", "x-gzip"):
            return is_wanted
        if name == "*":
            allowed = is_wanted
    return bool(allowed)


def gzipped(body: bytes) -> bytes:
    """Compress, without a time stamp: the same answer is the same bytes."""
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()
