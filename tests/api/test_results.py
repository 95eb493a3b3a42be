"""A job's leads page by page, and its whole result as JSON or CSV."""

from __future__ import annotations

import csv
import io

import pytest

from enrichd.store import item_pages
from tests.support.factories import a_job

PERSON = {"outcome": "complete", "person": {"email": "a@x.de", "fullName": "=HYPERLINK(1)"}}


async def a_batch(conn, leads: int, *, status: str = "completed", workspace_id: str = "team-a"):
    job = await a_job(conn, status=status, workspace_id=workspace_id, progress_total=leads)
    await conn.execute(
        """
        insert into enrichment_job_items (job_id, item_key, workspace_id, status, result, error)
        select %s, 'lead-' || lpad(n::text, 5, '0'), %s,
               case when n %% 3 = 0 then 'failed' else 'completed' end,
               case when n %% 3 = 0 then null
                    else jsonb_build_object('outcome', 'complete',
                                            'person', jsonb_build_object('email', n || '@x.de'))
               end,
               case when n %% 3 = 0
                    then '{"type": "provider_down", "message": "=boom, \\"sir\\""}'::jsonb end
          from generate_series(1, %s) as n
        """,
        [job.id, workspace_id, leads],
    )
    return job


async def items_of(http, job, **query):
    found, cursor = [], None
    for _ in range(1000):
        params = {**query, **({"cursor": cursor} if cursor else {})}
        page = (await http.get(f"/jobs/{job.id}/items", params=params)).json()
        found += page["items"]
        cursor = page["nextCursor"]
        if cursor is None:
            return found
    raise AssertionError("the list has no end")


@pytest.mark.parametrize("limit", [1, 4, 12, 13])
async def test_items_come_by_key_page_by_page(http, conn, limit):
    job = await a_batch(conn, 12, status="processing")

    found = await items_of(http, job, limit=limit)

    assert [item["key"] for item in found] == [f"lead-{n:05}" for n in range(1, 13)]
    assert found[0]["result"]["person"]["email"] == "1@x.de"


@pytest.mark.parametrize("cursor", ["x", "AA", "YQBi", "_w"])
async def test_a_cursor_that_was_not_given_is_named(http, conn, cursor):
    job = await a_batch(conn, 1)

    answer = await http.get(f"/jobs/{job.id}/items", params={"cursor": cursor})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_query")
    assert [part["path"] for part in answer.json()["errors"]] == ["cursor"]


async def test_items_by_state(http, conn):
    job = await a_batch(conn, 9)

    found = await items_of(http, job, limit=2, status="failed")

    assert [item["key"] for item in found] == ["lead-00003", "lead-00006", "lead-00009"]


async def test_another_workspaces_leads_are_not_there(served, http, conn):
    job = await a_batch(conn, 3, workspace_id="team-b")

    for path in ("items", "result"):
        assert (await http.get(f"/jobs/{job.id}/{path}")).status_code == 404
        assert (await served.client("key-b").get(f"/jobs/{job.id}/{path}")).status_code == 200


async def test_the_result_of_one_lead(http, conn):
    job = await a_job(conn, status="completed", workspace_id="team-a", result=PERSON)

    found = (await http.get(f"/jobs/{job.id}/result")).json()

    assert found == {"id": str(job.id), "status": "completed", "result": PERSON, "error": None}


async def test_a_batch_comes_whole_in_pieces(http, conn, monkeypatch):
    monkeypatch.setattr("enrichd.api.results.PAGE_MAX", 5)
    monkeypatch.setattr(item_pages, "PAGE_MAX", 4)
    job = await a_batch(conn, 23)

    found = (await http.get(f"/jobs/{job.id}/result")).json()
    sheet = (await http.get(f"/jobs/{job.id}/result", params={"format": "csv"})).text

    assert [item["key"] for item in found["items"]] == [f"lead-{n:05}" for n in range(1, 24)]
    assert len(list(csv.reader(io.StringIO(sheet)))) == 24


async def test_a_sheet_runs_no_formula(http, conn):
    job = await a_batch(conn, 3)

    answer = await http.get(
        f"/jobs/{job.id}/result",
        params={"fields": "email,error"},
        headers={"Accept": "text/csv, */*;q=0.1"},
    )

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="{job.id}.csv"'
    assert list(csv.reader(io.StringIO(answer.text))) == [
        ["key", "status", "email", "error"],
        ["lead-00001", "completed", "1@x.de", ""],
        ["lead-00002", "completed", "2@x.de", ""],
        ["lead-00003", "failed", "", '\'=boom, "sir"'],
    ]


async def test_verdicts_have_a_row_each(http, conn):
    result = {"results": [{"email": "+a@x.de", "verdict": "valid"}, {"email": None}]}
    job = await a_job(conn, status="completed", workspace_id="team-a", result=result)

    answer = await http.get(
        f"/jobs/{job.id}/result", params={"format": "csv", "fields": "email_verdict"}
    )

    assert list(csv.reader(io.StringIO(answer.text))) == [
        ["key", "status", "email_verdict"],
        ["'+a@x.de", "completed", "valid"],
        ["", "completed", ""],
    ]


async def test_a_failed_job_says_why_in_its_sheet(http, conn):
    error = {"type": "provider_denied", "message": "no key"}
    job = await a_job(conn, status="failed", workspace_id="team-a", error=error)

    answer = await http.get(
        f"/jobs/{job.id}/result", params={"format": "csv", "fields": "outcome,error"}
    )

    assert list(csv.reader(io.StringIO(answer.text)))[1] == [
        str(job.id),
        "failed",
        "failed",
        "no key",
    ]


async def test_what_runs_has_no_result_yet(http, conn):
    job = await a_batch(conn, 3, status="processing")

    answer = await http.get(f"/jobs/{job.id}/result")

    assert answer.status_code == 409
    assert "is processing" in answer.json()["detail"]


@pytest.mark.parametrize("fields", ["emial", " , ", "email,nothing"])
async def test_a_wrong_column_is_named(http, conn, fields):
    job = await a_batch(conn, 1)

    answer = await http.get(f"/jobs/{job.id}/result", params={"fields": fields})

    assert answer.status_code == 422
    assert [part["path"] for part in answer.json()["errors"]] == ["fields"]


async def test_a_large_result_is_compressed(http, conn):
    job = await a_batch(conn, 700)

    packed = await http.get(f"/jobs/{job.id}/result")
    plain = await http.get(f"/jobs/{job.id}/result", headers={"Accept-Encoding": "identity"})

    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.json() == plain.json()
    assert len(packed.json()["items"]) == 700
