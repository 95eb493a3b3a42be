import subprocess
import sys

import pytest

from tests.ctl.conftest import ESCAPES


def test_jobs_are_listed_newest_first(enrichctl, a_job):
    old, new = a_job("completed"), a_job("dead_letter", error={"type": "boom", "message": "bang"})

    ended = enrichctl("list")

    heading, first, second = ended.stdout.splitlines()
    assert heading.split()[:3] == ["Id", "Status", "Type"]
    assert first.split()[1] == "dead_letter"
    assert "boom: bang" in first
    assert str(new).startswith(first.split()[0])
    assert str(old).startswith(second.split()[0])


def test_every_id_that_is_shown_names_its_job(enrichctl):
    lines = '{"type": "email_validation", "payload": {"emails": ["a@b.co"]}}\n' * 50
    enrichctl("enqueue", "--from", "-", stdin=lines.encode())

    for filters in ([], ["--status", "pending"], ["--limit", "3"]):
        for row in enrichctl("list", *filters).stdout.splitlines()[1:]:
            assert enrichctl("show", row.split()[0]).exit_code == 0


def test_filters_and_pages(enrichctl, a_job):
    jobs = [a_job("pending"), a_job("failed", tags=["x"]), a_job("dead_letter"), a_job("pending")]

    def ids(*words):
        return [line["id"] for line in enrichctl("list", "--json", *words).lines]

    newest_first = [str(job) for job in reversed(jobs)]
    assert ids() == newest_first
    assert ids("--status", "failed,dead-letter") == newest_first[1:3]
    assert ids("--status", "failed", "--status", "dead_letter") == newest_first[1:3]
    assert ids("--tag", "x") == newest_first[2:3]
    assert ids("--type", "company_data_update") == []
    assert ids("--limit", "2") == newest_first[:2]
    assert ids("--limit", "2", "--before", newest_first[1]) == newest_first[2:]


def test_a_provider_s_jobs_are_found_whoever_s_key_they_go_with(enrichctl, a_job):
    common = a_job("pending", provider_id="hunter")
    own = a_job("failed", provider_id="hunter#default")
    a_job("pending", provider_id="pdl#default")
    a_job("pending", provider_id="hunter#default", workspace_id="acme")

    def ids(*words):
        return {line["id"] for line in enrichctl("list", "--json", *words).lines}

    assert ids("--provider", "hunter") == {str(common), str(own)}
    assert ids("--provider", "hunter#default") == {str(own)}
    assert ids("--provider", "hunt") == set()


def test_a_cut_list_says_how_to_go_on(enrichctl, a_job):
    jobs = [a_job() for _ in range(3)]

    ended = enrichctl("list", "--limit", "2")

    before = ended.stderr.split()[-1]
    rest = enrichctl("list", "--json", "--before", before).lines
    assert [line["id"] for line in rest] == [str(jobs[0])]


def test_json_lines_have_the_shape_of_the_api_without_what_was_not_read(enrichctl, a_job):
    a_job("scheduled")

    (line,) = enrichctl("--json", "list").lines

    assert line["status"] == "scheduled"
    assert line["maxRetries"] == 3
    assert line["scheduledAt"] == "2100-01-01T00:00:00+00:00"
    assert not {"payload", "result"} & line.keys()


def test_an_empty_list_says_so_to_people_only(enrichctl):
    assert enrichctl("list").stdout == "There are no jobs in workspace default.\n"
    assert enrichctl("list", "--json").stdout == ""
    assert (
        "Did you mean --type email_validation?"
        in enrichctl("list", "--type", "email_validaton").stdout
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--status", "pendin"], "did you mean pending?"),
        (["--staus", "pending"], "--status"),
        (["--limit", "0"], "0 is not in the range"),
        (["--before", "zz"], "not a job id"),
    ],
)
def test_wrong_words_are_a_usage_error(enrichctl, words, told):
    ended = enrichctl("list", *words)

    assert ended.exit_code == 2
    assert told in ended.stderr


def test_hostile_text_never_reaches_the_terminal(enrichctl, a_job):
    a_job("failed", error={"type": ESCAPES, "message": ESCAPES}, tags=[ESCAPES], type=ESCAPES)

    for words in (["list"], ["list", "--json"], ["metrics"], ["metrics", "--json"]):
        shown = enrichctl(*words).stdout
        assert shown.replace("\n", "").isprintable()


def test_a_database_that_is_away_is_5(offline):
    ended = offline("list")

    assert ended.exit_code == 5
    assert ended.stderr.startswith("error: PostgreSQL cannot be reached")


def test_a_reader_that_leaves_is_no_error(process, a_job):
    for _ in range(20):
        a_job()
    with process("list", "--json", "--limit", "1000", bufsize=0) as child:
        child.stdout.close()
        _, stderr = child.communicate()
    assert (child.returncode, stderr) == (0, b"")

    with process("list", stdin=subprocess.DEVNULL) as child:
        child.stdout.close()
        stderr = child.stderr.read()
    assert (child.returncode, stderr) == (0, b"")


def test_debug_shows_where_an_error_comes_from(process):
    with process("show", "0000000", "--debug") as child:
        _, stderr = child.communicate()
    assert child.returncode == 3
    assert b"Traceback" in stderr
    assert b"JobNotFound" in stderr


def test_listing_loads_no_http_library():
    code = (
        "import sys, enrichd.ctl.main, enrichd.ctl.commands.list;"
        "print({'httpx', 'aiohttp', 'selectolax', 'dns'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
