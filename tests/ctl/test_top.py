from uuid_utils.compat import uuid7

from enrichd.ctl.commands.top import Choice, draw
from tests.ctl.test_watch import a_sight


def rows_of(ended):
    return [(row["providerId"], row["type"]) for row in ended.lines[0]["rows"]]


def look(enrichctl, *words):
    return enrichctl("top", "--json", "--count", "1", *words)


def test_rows_are_lanes_types_or_both(enrichctl, a_job):
    a_job("processing", provider_id="hunter", started_at="now", worker_id=uuid7())
    a_job("completed", provider_id="hunter", started_at="now")
    a_job("completed", provider_id="apollo", type="company_data_update", started_at="now")

    both = look(enrichctl)

    assert rows_of(both) == [
        ("hunter", "email_validation"),
        ("apollo", "company_data_update"),
    ]
    hunter = both.lines[0]["rows"][0]
    assert (hunter["running"], hunter["completedPerMinute"]) == (1, 1)
    assert hunter["longestRunSeconds"] >= 0
    assert rows_of(look(enrichctl, "--by", "lane")) == [("hunter", None), ("apollo", None)]
    assert rows_of(look(enrichctl, "--by", "type")) == [
        (None, "email_validation"),
        (None, "company_data_update"),
    ]


def test_a_lane_with_nothing_but_ready_jobs_is_a_row(enrichctl, a_job):
    a_job("pending", provider_id="hunter")

    (row,) = look(enrichctl, "--by", "lane").lines[0]["rows"]

    assert (row["providerId"], row["ready"], row["running"]) == ("hunter", 1, 0)
    assert row["runP50Seconds"] is None
    assert rows_of(look(enrichctl)) == []


def test_what_fails_most_stands_first_if_asked_for(enrichctl, a_job):
    a_job("completed", provider_id="apollo")
    a_job("completed", provider_id="apollo")
    a_job("failed", provider_id="hunter")

    assert rows_of(look(enrichctl, "--by", "lane", "--sort", "failed"))[0] == ("hunter", None)
    assert rows_of(look(enrichctl, "--by", "lane", "--sort", "done"))[0] == ("apollo", None)


def test_keys_group_and_sort():
    choice = Choice("both", "running")

    for key, expected in (
        ("l", ("lane", "running")),
        ("f", ("lane", "failed")),
        ("x", ("lane", "failed")),
        ("b", ("both", "failed")),
    ):
        choice.press(key)
        assert (choice.by, choice.sort) == expected


def test_every_grouping_fits_80_columns_and_140():
    for width, height in ((80, 24), (140, 40), (50, 8)):
        for by in ("both", "lane", "type"):
            lines = draw(a_sight(lanes=50), Choice(by, "running"), width, height)

            assert len(lines) <= height
            assert max(line.cell_len for line in lines) <= width


def test_a_pipe_gets_one_look_as_a_table(enrichctl, a_job):
    a_job("completed", provider_id="hunter")

    shown = enrichctl("top")

    assert shown.exit_code == 0
    assert "hunter  email_validation" in shown.stdout
