def rows_of(ended):
    return {row["name"]: row for row in ended.document["settings"]}


def test_where_each_setting_came_from_is_shown_and_no_secret(offline, clean_settings, monkeypatch):
    (clean_settings / ".env").write_text("HUNTER_API_KEY=canary-key\nJOB_TIMEOUT=5000\n")
    monkeypatch.setenv("WORKER_COUNT", "7")

    ended = offline("config", "--json", "--database-url", "postgresql://me:canary@127.0.0.1:1/x")
    shown = offline("config", "--database-url", "postgresql://me:canary@127.0.0.1:1/x").stdout

    rows = rows_of(ended)
    assert rows["WORKER_COUNT"] == {
        "name": "WORKER_COUNT",
        "value": "7",
        "source": "environment",
        "isDefault": False,
    }
    assert rows["JOB_TIMEOUT"]["source"] == ".env line 2"
    assert rows["DATABASE_URL"]["source"] == "command line"
    assert rows["CRON_SECRET"]["value"] is None
    assert "canary" not in ended.stdout + shown
    assert shown.index("WORKER_COUNT") < shown.index("POLL_INTERVAL")


def test_warnings_are_shown(offline, monkeypatch):
    monkeypatch.setenv("WORKER_COUTN", "7")

    ended = offline("config", "--json")

    assert "did you mean WORKER_COUNT?" in ended.stderr
    assert ended.document["warnings"] == [ended.stderr.removeprefix("warning: ").strip()]


def test_a_wrong_setting_is_named_on_a_line_of_its_own(offline, monkeypatch):
    monkeypatch.setenv("WORKER_COUNT", "many")
    monkeypatch.setenv("JOB_TIMEOUT", "long")

    ended = offline("config")

    assert ended.exit_code == 2
    assert '\n  WORKER_COUNT: "many" (from environment)' in ended.stderr
    assert ended.stderr.count("JOB_TIMEOUT") == 1
