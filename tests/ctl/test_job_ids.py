from uuid import UUID

import pytest

from enrichd.ctl.job_ids import prefix_of, short
from enrichd.errors import Invalid
from enrichd.store.job_views import shared_digits

ID = UUID("01a20a33-3bea-7514-82e1-963dc9085dd3")


@pytest.mark.parametrize("text", ["01A20A33", "01a2-0a33", "0-1a20a33", " 01a20a33-"])
def test_case_and_hyphens_do_not_matter(text):
    assert prefix_of(text) == "01a20a33"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("01a", "too short"),
        ("01xz", "not a job id"),
        ("", "not a job id"),
        ("----", "not a job id"),
        ("٠١٢٣", "not a job id"),
        (f"{ID}0", "has 33 digits; an id has 32"),
        ("completed", "is a state, not an id"),
    ],
)
def test_what_cannot_begin_an_id_is_refused(text, told):
    with pytest.raises(Invalid, match=told):
        prefix_of(text)


def test_a_shortened_id_keeps_its_hyphens():
    assert [short(ID, digits) for digits in (4, 8, 9, 12, 13, 32)] == [
        "01a2",
        "01a20a33",
        "01a20a33-3",
        "01a20a33-3bea",
        "01a20a33-3bea-7",
        str(ID),
    ]


def test_digits_shared_from_the_left():
    assert shared_digits(ID, ID) == 32
    assert shared_digits(ID, UUID("01a20a33-3bea-7514-82e1-963dc9085dd4")) == 31
    assert shared_digits(ID, UUID("f1a20a33-3bea-7514-82e1-963dc9085dd3")) == 0


def test_an_ambiguous_beginning_names_the_candidates(enrichctl, a_job):
    one = a_job(id="aaaa0000-0000-4000-8000-000000000001")
    two = a_job(id="aaaa0000-0000-4000-8000-000000000002")

    ended = enrichctl("show", "aaaa")

    assert ended.exit_code == 2
    assert str(one) in ended.stderr
    assert str(two) in ended.stderr
    assert enrichctl("show", str(two)[:36]).exit_code == 0


def test_an_id_of_another_workspace_is_not_found(enrichctl, a_job):
    job_id = a_job(workspace_id="theirs")

    ended = enrichctl("show", str(job_id))

    assert ended.exit_code == 3
    assert "in workspace default" in ended.stderr
    assert enrichctl("show", str(job_id), "-w", "theirs").exit_code == 0
