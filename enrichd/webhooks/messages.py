"""The body of a webhook: `{"type": …, "timestamp": …, "data": …}`, the same at every attempt."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import orjson

BODY_BYTES_MAX: Final = 20_000


def body(
    *, event: str, at: datetime, data: str, sequence: int, job_path: str | None = None
) -> bytes:
    """Return the body of an event; `data` is the text of a JSON object.

    `sequence` tells a receiver the order of what it gets. What would make the body too long goes:
    the result first, which is found at `resultPath`, then the error's words.
    """
    stamp = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    head = orjson.dumps({"type": event, "timestamp": stamp})[:-1]
    inner = data.strip()[1:-1].strip().encode()
    comma = b"," if inner else b""
    whole = b'%s,"data":{%s%s"sequence":%d}}' % (head, inner, comma, sequence)
    if len(whole) <= BODY_BYTES_MAX:
        return whole
    fields: dict[str, Any] = orjson.loads(data)
    fields["sequence"] = sequence
    if "result" in fields:
        del fields["result"]
        fields["resultPath"] = job_path
    whole = b'%s,"data":%s}' % (head, orjson.dumps(fields))
    if len(whole) <= BODY_BYTES_MAX:
        return whole
    thin = {key: value for key, value in fields.items() if len(orjson.dumps(value)) < 500}
    return b'%s,"data":%s}' % (head, orjson.dumps(thin))
