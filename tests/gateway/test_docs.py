"""docs/health-and-metrics.md names every route, check, metric and label there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from enrichd import metrics
from enrichd.gateway.server import application
from tests.gateway.conftest import a_gateway
from tests.support.factories import a_worker

PAGE = (Path(__file__).parents[2] / "docs" / "health-and-metrics.md").read_text()


def table_under(heading: str) -> dict[str, list[str]]:
    """Return the rows of the first table after a heading, by what is in backticks first."""
    rows: dict[str, list[str]] = {}
    for line in PAGE.split(heading, 1)[1].splitlines():
        if line.startswith("| `"):
            first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[first.strip(" `")] = cells
        elif rows:
            break
    return rows


def test_every_metric_is_in_the_tables_with_its_labels():
    told = table_under("### Kept by") | table_under("### Asked at")

    assert {name: re.findall(r"`(\w+)`", cells[0]) for name, cells in told.items()} == {
        metric.name: list(metric.labels) for metric in metrics.METRICS
    }


def test_every_name_on_the_page_is_a_metric():
    names = set(re.findall(r"enrichd_\w+", PAGE))

    assert names == {metric.name for metric in metrics.METRICS}


async def test_every_route_is_in_the_table(database_url):
    async with a_gateway(database_url) as gateway:
        told = [name.removeprefix("GET ") for name in table_under("# Health and metrics")]
        for path in told:
            assert (await gateway.get(path)).status_code in (200, 503)
        assert gateway.paths == sorted(told)


async def test_every_check_is_in_the_table(gateway, conn):
    worker = await a_worker(conn)
    await conn.execute("update enrichment_workers set turned_at = now() where id = %s", [worker.id])

    checks = (await gateway.get("/health")).json()["checks"]

    assert list(checks) == list(table_under("## `/health`"))


def test_an_application_has_the_limits_that_are_told():
    assert "| body | 1 MiB |" in PAGE
    assert application([])._client_max_size == 1 << 20
