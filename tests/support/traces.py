"""A person to erase, and everything in a database that still tells of her."""

from __future__ import annotations

import subprocess

import psycopg

ADA, BOB = "a.da+news@gmail.com", "bob@acme.com"
NAME = "Quillfeather"
TRACES = ("a.da", "ada@", "ada%40", NAME.lower())


def dumped(dsn: str) -> str:
    """Return the whole database as text, in lower case."""
    made = subprocess.run(["pg_dump", "--inserts", dsn], capture_output=True, check=False)
    if made.returncode:
        # An older pg_dump than the server: everything that it would have shown, by hand.
        with psycopg.connect(dsn) as conn:
            tables = conn.execute(
                "select format('%I', tablename) from pg_tables where schemaname = 'public'"
            ).fetchall()
            assert tables
            return "\n".join(
                str(row)
                for (table,) in tables
                for row in conn.execute(f"select t::text from {table} t").fetchall()  # noqa: S608
            ).lower()
    return made.stdout.decode().lower()


def traces(dsn: str) -> list[str]:
    text = dumped(dsn)
    return [line for line in text.splitlines() if any(trace in line for trace in TRACES)]
