"""Logs: one event a line, nothing secret in it, components' levels, and never an error back."""

from __future__ import annotations

import errno
import gc
import hashlib
import io
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from pydantic import SecretStr
from rich.console import Console
from rich.progress import Progress

from enrichd.logs import configure_logs, get_logger, redact_text, register_secret
from enrichd.logs.loggers import LibraryHandler
from enrichd.logs.redaction import ITEMS_MAX, TEXT_MAX
from enrichd.settings import Settings

CANARY = "canary-77aa31c0d9"


@pytest.fixture(autouse=True)
def _restore_logs() -> Iterator[None]:
    root = logging.getLogger()
    level = root.level
    yield
    configure_logs("warning")
    root.setLevel(level)
    root.removeHandler(library_handler())
    structlog.contextvars.clear_contextvars()


def library_handler() -> LibraryHandler:
    (handler,) = (h for h in logging.getLogger().handlers if isinstance(h, LibraryHandler))
    return handler


class Log:
    """A stream to log to, and what was written to it."""

    def __init__(self, level: str = "info", format: Any = "json", debug: str | None = None) -> None:
        self.stream = io.StringIO()
        configure_logs(level, format, debug, self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


def logged(**fields: Any) -> dict[str, Any]:
    """Log one event and return its fields as they were written."""
    log = Log()
    get_logger("queue").info("job_claimed", **fields)
    (event,) = log.events
    return {name: event[name] for name in list(event)[4:]}


def test_an_event_is_one_json_object_with_time_level_and_component() -> None:
    log = Log()

    structlog.contextvars.bind_contextvars(worker="w1")
    get_logger("queue").bind(lane="hunter").warning("claim_lost", job_id="7f3a", attempt=2)

    (event,) = log.events
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", event.pop("timestamp"))
    assert event == {
        "level": "warning",
        "logger": "enrichment:queue",
        "event": "claim_lost",
        "worker": "w1",
        "lane": "hunter",
        "job_id": "7f3a",
        "attempt": 2,
    }


def test_before_it_is_configured_only_warnings_go_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("warning")
    get_logger("early").info("nothing")
    get_logger("early").warning("something")

    written = capsys.readouterr()
    assert written.out == ""
    assert [json.loads(line)["event"] for line in written.err.splitlines()] == ["something"]


@pytest.mark.parametrize(
    ("debug", "heard"),
    [
        (None, set()),
        ("enrichment:*", {"queue", "provider", "provider:hunter"}),
        ("*", {"queue", "provider", "provider:hunter"}),
        ("enrichment:queue,enrichment:provider", {"queue", "provider", "provider:hunter"}),
        ("enrichment:queue other", {"queue"}),
        ("enrichment:*,-enrichment:provider", {"queue"}),
        ("1", set()),
        ("express:*", set()),
    ],
)
def test_debug_turns_on_the_components_it_names(debug: str | None, heard: set[str]) -> None:
    log = Log(debug=debug)

    for component in ("queue", "provider", "provider:hunter"):
        get_logger(component).debug("seen")

    assert {event["logger"].removeprefix("enrichment:") for event in log.events} == heard


def test_a_logger_taken_early_follows_a_later_configuration() -> None:
    logger = get_logger("queue")
    assert get_logger("enrichment:queue") is logger
    quiet = Log("error")
    logger.warning("unheard")
    loud = Log("debug")
    logger.debug("heard")

    assert quiet.text == ""
    assert [event["event"] for event in loud.events] == ["heard"]


def test_a_level_that_is_off_costs_next_to_nothing() -> None:
    Log("info")
    logger = get_logger("queue")
    gc.disable()
    try:
        best = min(_seconds_of_10_000_debug_events(logger) for _ in range(5))
    finally:
        gc.enable()

    assert best / 10_000 < 2e-6


def _seconds_of_10_000_debug_events(logger: Any) -> float:
    started = time.perf_counter()
    for _ in range(10_000):
        logger.debug("job_claimed", job_id="7f3a", attempt=1)
    return time.perf_counter() - started


def test_what_libraries_log_goes_the_same_way() -> None:
    log = Log("info")

    library = logging.getLogger("some.library")
    library.info("unheard")
    library.warning("key %s of %s", "whsec_abcdef0123", "ada@northwind.test")
    # Straight to the handler: pytest's own one refuses such a record.
    library_handler().handle(
        logging.LogRecord("some.library", logging.ERROR, "x.py", 1, "not %d %d", (1,), None)
    )

    assert [(event["logger"], event["level"]) for event in log.events] == [
        ("some.library", "warning"),
        ("some.library", "error"),
    ]
    assert log.events[0]["event"].startswith("key whsec_*** of a…@sha256:")
    assert log.events[1]["event"] == "not %d %d"


def test_configuring_twice_does_not_write_twice() -> None:
    Log()
    log = Log()

    logging.getLogger("some.library").warning("once")

    assert len(log.events) == 1


@pytest.mark.parametrize(
    "name",
    [
        *("password", "api_key", "apiKey", "APIKey", "X-Api-Key", "Authorization", "clientSecret"),
        *("access_token", "dsn", "Set-Cookie", "SUPABASE_ANON_KEY", "service_role_key", "secrets"),
    ],
)
def test_a_value_is_hidden_by_its_name_however_deep(name: str) -> None:
    fields = {name: CANARY, "request": {"parts": [{name: {"a": [CANARY]}}, {name: 123456}]}}

    assert logged(**fields) == {name: "***", "request": {"parts": [{name: "***"}, {name: "***"}]}}


def test_names_that_only_sound_secret_are_kept() -> None:
    fields = {
        "tokens": 3,
        "token_count": 4,
        "idempotency_key": "k1",
        "api_key_id": "a1",
        "password": None,
        "monkey": "m",
    }

    assert logged(**fields) == fields


JWT = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZSJ9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("sent Bearer abcdef123, ok", "sent Bearer ***, ok"),
        ("Authorization: Basic a2V5Og== and on", "Authorization: *** and on"),
        ("signed with whsec_MfKQ9r8GKYqrTwjU", "signed with whsec_***"),
        ("sb_secret_N7UND0UgjKTVK", "sb_secret_***"),
        (f"got {JWT}.", "got ***"),
        ("postgresql://app:p/w@x@db:5432/leads", "postgresql://app:***@db:5432/leads"),
        ("postgres://app@db.example.com/leads", "postgres://app@db.example.com/leads"),
        ("via http://me:pw@proxy.test:80/", "via http://me:***@proxy.test:80/"),
        ("host=db password='a b' user=app", "host=db password=*** user=app"),
        ("GET /v2?api_key=abc&domain=x.test", "GET /v2?api_key=***&domain=x.test"),
        ('{"apiKey": "abc", "n": 1}', '{"apiKey": ***, "n": 1}'),
        (r"{\"client_secret\":\"abc\"}", r"{\"client_secret\":***}"),
        ("HUNTER_API_KEY=abc", "HUNTER_API_KEY=***"),
        ("failed\nDETAIL:  Key (email)=(x) exists.\nrest", "failed\nDETAIL: ***\nrest"),
        ("0190b4b2-1111-7000-8000-aaaaaaaaaaaa", "0190b4b2-1111-7000-8000-aaaaaaaaaaaa"),
        ("2026-10-09T10:00:00Z took: 3 s", "2026-10-09T10:00:00Z took: 3 s"),
    ],
)
def test_a_value_is_hidden_by_its_look(text: str, written: str) -> None:
    assert logged(note=text) == {"note": written}


@pytest.mark.parametrize(
    "text",
    [
        "Ada.Quill+x@Northwind.test",
        "/v3/ada.quill+x@northwind.test",
        "ada.quill+x%40northwind.test",
    ],
)
def test_an_email_address_becomes_a_letter_and_a_hash(text: str) -> None:
    digest = hashlib.sha256(b"ada.quill+x@northwind.test").hexdigest()[:8]

    assert logged(note=f"<{text}>")["note"].endswith(f"a…@sha256:{digest}>")


def test_addresses_in_other_scripts_are_hashed_too() -> None:
    assert redact_text("to jürgen@müller.example") == redact_text("to JÜRGEN@müller.example")
    assert "rgen" not in redact_text("to jürgen@müller.example")


def test_a_registered_secret_is_hidden_in_every_form() -> None:
    secret = f'{CANARY}/"ü" &'
    register_secret(secret)
    register_secret("test")

    log = Log()
    forms = [secret, json.dumps({"k": secret}), "canary-77aa31c0d9%2F%22%C3%BC%22%20%26"]
    get_logger("queue").info(f"event {secret}", forms=forms, **{f"k {secret}": 1}, word="test")

    assert CANARY not in log.text
    assert log.events[0]["word"] == "test"


def test_no_secret_setting_shows_in_a_log(tmp_path: Path) -> None:
    env = {
        "DATABASE_URL": f"postgresql://app:{CANARY}%2F1@db/leads",
        "CRON_SECRET": f"{CANARY}-cron-secret",
        "SUPABASE_SERVICE_ROLE_KEY": f"{CANARY}-role",
        "HUNTER_API_KEY": f"{CANARY}-hunter",
        "HUNTER_WEBHOOK_SECRET": f"{CANARY}-webhook",
    }
    settings = Settings.load(env, directory=tmp_path)
    for secret in settings.secrets():
        register_secret(secret)
    for format in ("json", "console"):
        log = Log("debug", format)
        logger = get_logger("queue")
        logger.info("settings_read", settings=settings, env=env, rows=settings.in_force())
        logger.info("lines_shown", lines=[f"{name}: {value}" for name, value in env.items()])
        try:
            raise ConnectionError(f"cannot use {' '.join(env.values())}")
        except ConnectionError:
            logger.exception("database_lost")

        assert log.text.count("database_lost") == 1
        assert CANARY not in log.text


def test_an_exception_is_told_without_the_values_of_variables() -> None:
    log = Log()
    key_of_a_local = CANARY[::-1]
    try:
        try:
            raise ValueError("Bearer abcdef123 for ada@northwind.test\nDETAIL: row")
        except ValueError as error:
            raise RuntimeError("outer") from error
    except RuntimeError as error:
        get_logger("queue").error("run_failed", exc_info=error, error=error)

    (event,) = log.events
    assert len(log.text.splitlines()) == 1
    assert event["error"] == "RuntimeError: outer"
    assert "ValueError: Bearer *** for a…@sha256:" in event["exception"]
    assert "DETAIL: ***" in event["exception"]
    assert "test_logs.py" in event["exception"]
    assert key_of_a_local not in log.text


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Color(StrEnum):
    RED = "red"


def test_any_value_can_be_logged() -> None:
    cyclic: dict[str, Any] = {}
    cyclic["self"] = cyclic
    fields: Mapping[str, Any] = {
        "hostile": Hostile(),
        "key": {Hostile(): 1, 2: b"\xff", ("a",): {1}},
        "cyclic": cyclic,
        "huge": 2**70,
        "nan": float("nan"),
        "lone": "\udcff",
        "enum": Color.RED,
        "id": UUID(int=1),
        "hidden": SecretStr(CANARY),
        "long": "x" * 100_000,
        "many": list(range(1000)),
    }

    found = logged(**fields)

    assert found["hostile"] == "<Hostile whose text failed: RuntimeError>"
    assert found["huge"] == "an integer of 71 bits"
    assert (found["nan"], found["lone"], found["enum"]) == (None, "\\udcff", "red")
    assert (found["id"], found["hidden"]) == (str(UUID(int=1)), "**********")
    assert len(found["long"]) < TEXT_MAX + 50
    assert found["many"][ITEMS_MAX:] == ["… 1000 in all"]
    assert CANARY not in json.dumps(found)


@pytest.mark.parametrize("format", ["json", "console"])
def test_no_value_can_forge_a_line(format: str) -> None:
    forged = 'x\n2026-01-01 fake\r\x1b[2J\x85\u2028\u202e\x7f"}'
    log = Log("info", format)

    get_logger("queue").info(forged, note=forged, nested=[forged], **{forged: 1})

    assert log.text.endswith("\n")
    assert len(log.text.splitlines()) == 1
    assert log.text[:-1].isprintable()
    if format == "json":
        assert log.events[0]["note"] == forged


def test_a_traceback_on_the_console_is_indented_below_its_event() -> None:
    log = Log("info", "console")
    try:
        raise ValueError("x\n2026-01-01T00:00:00Z info forged\x1b[2J")
    except ValueError:
        get_logger("queue").exception("run_failed")

    first, *rest = log.text.split("\n")[:-1]
    assert "run_failed" in first
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "format", "is_json"),
    [
        (io.StringIO(), "auto", True),
        (Terminal(), "auto", False),
        (Terminal(), "json", True),
        (io.StringIO(), "console", False),
    ],
)
def test_the_format_follows_the_stream_unless_it_is_chosen(
    stream: io.StringIO, format: Any, is_json: bool
) -> None:
    configure_logs("info", format, None, stream)

    get_logger("queue").info("job_claimed", note="two words")

    assert stream.getvalue().startswith("{") is is_json
    assert ("\x1b[" in stream.getvalue()) is (isinstance(stream, Terminal) and not is_json)


def test_json_is_utf_8_whatever_the_stream_s_encoding() -> None:
    binary = io.BytesIO()
    configure_logs("info", "json", None, io.TextIOWrapper(binary, encoding="latin-1"))

    get_logger("queue").info("job_claimed", name="Zoë 東京")

    assert json.loads(binary.getvalue().decode("utf-8"))["name"] == "Zoë 東京"


def test_a_line_goes_above_a_progress_bar_and_not_into_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr("sys.stderr", terminal)
    configure_logs("info", "console")
    console = Console(file=terminal, force_terminal=True, width=60)

    with Progress(console=console, auto_refresh=False) as progress:
        progress.add_task("enriching", total=10)
        progress.refresh()
        get_logger("queue").info("breaker_opened")

    assert isinstance(terminal.buffer, io.BytesIO)
    lines = terminal.buffer.getvalue().decode().splitlines()
    (line,) = [line for line in lines if "breaker_opened" in line]
    assert "enriching" not in line


class FullDisk(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_stream_that_cannot_be_written_costs_the_line_only() -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (closed, FullDisk()):
        configure_logs("info", "auto", None, stream)
        get_logger("queue").info("lost")
        logging.getLogger("some.library").warning("lost")


def test_a_broken_pipe_costs_the_line_only() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    pipe = os.fdopen(writer, "w", encoding="utf-8")
    configure_logs("info", "json", None, pipe)

    get_logger("queue").info("lost")
    get_logger("queue").info("lost", note="x" * 100_000)

    with pytest.raises(BrokenPipeError):
        pipe.close()


@pytest.mark.parametrize(
    "text",
    [
        *("a" * 100_000, "a." * 50_000, "a@" * 50_000, "\n" * 100_000, "postgres://:" * 8_000),
        *("password " * 10_000, "eyJ" * 30_000, "password=\"'" * 9_000, "://a:" * 20_000),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_text_is_searched_in_bounded_time(text: str) -> None:
    started = time.perf_counter()
    redact_text(text)

    assert time.perf_counter() - started < 1.0
