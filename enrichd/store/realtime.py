"""Supabase Realtime inside the database: `realtime.send`, where a database has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import orjson

from enrichd.store.database import Connection

CAN_SEND: LiteralString = """
    select coalesce(has_function_privilege(
                        to_regprocedure('realtime.send(jsonb,text,text,boolean)')::oid, 'execute')
                    and has_schema_privilege(to_regnamespace('realtime')::oid, 'usage'), false)
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One broadcast."""

    topic: str
    event: str
    payload: dict[str, Any]
    is_private: bool


async def can_send(conn: Connection) -> bool:
    """Say whether this database has Realtime and our role may send."""
    row = await (await conn.execute(CAN_SEND)).fetchone()
    return bool(row and row[0])


# Without the annotation of the other statements, because few databases have the function. What it
# cannot do it says in a WARNING, so a broadcast never fails its caller.
SEND: Final = """
    select realtime.send(message.payload::jsonb, message.event, message.topic, message.is_private)
      from unnest(%(payloads)s::text[], %(events)s::text[], %(topics)s::text[],
                  %(privates)s::bool[]) as message(payload, event, topic, is_private)
"""


async def send(conn: Connection, messages: Sequence[Message]) -> None:
    """Broadcast messages in one statement."""
    await conn.execute(
        SEND,
        {
            "payloads": [orjson.dumps(message.payload).decode() for message in messages],
            "events": [message.event for message in messages],
            "topics": [message.topic for message in messages],
            "privates": [message.is_private for message in messages],
        },
    )
