"""Loggers, levels by component, and the one way from an event to a line.

Every event, from our own loggers or from a library's `logging`, goes through the same steps: time,
level, exception, redaction, line. Loggers are structlog's filtering loggers, on which a level that
is off is an empty method.
"""

from __future__ import annotations

import fnmatch
import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from io import TextIOWrapper
from typing import Any, Literal, TextIO, TypeAlias, cast

import orjson
import structlog
from structlog.typing import FilteringBoundLogger, WrappedLogger

from enrichd.logs.redaction import redact_mapping, redact_text, text_of

Event: TypeAlias = MutableMapping[str, Any]
LogFormat: TypeAlias = Literal["json", "console", "auto"]

NAMESPACE = "enrichment:"
FRAMES_MAX = 50
TRACEBACK_MAX = 16_384

# Characters some readers take for a line's end, or that turn a terminal's text around. Inside a
# JSON string \uXXXX means the same character, so nothing is lost.
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_COLORS = {"debug": 2, "info": 32, "warning": 33, "error": 31, "critical": 35}


def get_logger(component: str) -> FilteringBoundLogger:
    """Return the logger of a component; the same one every time, following `configure_logs`.

    What is bound to it (`log.bind(job_id=…)`) keeps the level of the moment of binding.
    """
    name = NAMESPACE + component.removeprefix(NAMESPACE)
    if name not in _loggers:
        bound = cast(Any, _filtering_class(name))
        _loggers[name] = bound(_destination, _steps, {"logger": name})
    return _loggers[name]


def configure_logs(
    level: str = "info",
    format: LogFormat = "auto",
    debug: str | None = None,
    stream: TextIO | None = None,
) -> None:
    """Set what is logged, how and where to, for this process; may be called again.

    `debug` is a list like `enrichment:queue,enrichment:provider` or `enrichment:*`; those
    components log at debug level whatever `level` says, and `-enrichment:http` takes one out.
    `auto` is console on a terminal and JSON lines elsewhere; `stream` is standard error unless
    given.
    """
    _levels.common = logging.getLevelNamesMapping()[level.upper()]
    _levels.patterns = tuple(re.split(r"[\s,]+", debug or ""))
    _destination.stream = stream
    _line.format = format
    for name, logger in _loggers.items():
        # Swapping the class keeps the loggers that modules hold, and costs nothing at each call;
        # structlog's own lazy proxy would either freeze the first level or rebuild at every event.
        logger.__class__ = cast(Any, _filtering_class(name))
    _route_libraries(_levels.common)


class Levels:
    """Which component logs from which level."""

    def __init__(self) -> None:
        self.common = logging.WARNING
        self.patterns: tuple[str, ...] = ()

    def of(self, name: str) -> int:
        included = [p for p in self.patterns if p and not p.startswith("-")]
        excluded = [p[1:] for p in self.patterns if p.startswith("-")]
        is_debugged = _matches(name, included) and not _matches(name, excluded)
        return logging.DEBUG if is_debugged else self.common


class Destination:
    """Writes lines and never raises: a broken pipe, a closed file, a full disk lose the line."""

    def __init__(self) -> None:
        self.stream: TextIO | None = None

    def write(self, line: str) -> None:
        stream = self.stream if self.stream is not None else sys.stderr
        if stream is None:  # a daemon without standard error
            return
        try:
            # Past the text layer: its encoding may be the terminal's, JSON is UTF-8. One flush a
            # line, so that lines of several processes on one pipe do not mix. Not past a stand-in,
            # which keeps lines off a progress bar.
            if isinstance(stream, TextIOWrapper):
                stream.buffer.write(f"{line}\n".encode("utf-8", "backslashreplace"))
                stream.buffer.flush()
            else:
                stream.write(f"{line}\n")
                stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = write

    def is_terminal(self) -> bool:
        try:
            stream = self.stream if self.stream is not None else sys.stderr
            return stream is not None and stream.isatty()
        except ValueError:  # closed
            return False


class Line:
    """The last step: an event that may be shown becomes a line."""

    def __init__(self, destination: Destination) -> None:
        self.format: LogFormat = "auto"
        self._destination = destination

    def __call__(self, _logger: WrappedLogger, _method: str, event: Event) -> str:
        is_terminal = self._destination.is_terminal()
        if self.format == "json" or (self.format == "auto" and not is_terminal):
            return json_line(event)
        return console_line(event, is_colored=is_terminal)


class LibraryHandler(logging.Handler):
    """Takes what libraries say through `logging` the same way as our own events."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's wrong format string is not our caller's fault
            text = text_of(record.msg)
        event: Any = {"event": text, "logger": record.name, "exc_info": record.exc_info}
        method = record.levelname.lower()
        for step in _steps:
            event = step(None, method, event)
        _destination.write(event)


def render_exception(_logger: WrappedLogger, _method: str, event: Event) -> Event:
    """Put the traceback in the place of `exc_info`: source lines, never the values of variables."""
    error = event.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    elif error and not isinstance(error, BaseException):
        error = sys.exception()
    if isinstance(error, BaseException):
        try:
            lines = traceback.TracebackException.from_exception(error, limit=-FRAMES_MAX).format()
            event["exception"] = "".join(lines).rstrip()
        except Exception:  # noqa: BLE001 - an exception that cannot be shown must still be told of
            event["exception"] = f"{type(error).__name__}: {text_of(error)}"
    return event


def redact_event(_logger: WrappedLogger, _method: str, event: Event) -> Event:
    """Take out secrets and put what every event has first."""
    exception = event.pop("exception", None)
    head = {name: event.pop(name, "") for name in ("timestamp", "level", "logger", "event")}
    redacted = head | {"event": redact_text(text_of(head["event"]))}
    redacted |= {name: value for name, value in redact_mapping(event).items() if name not in head}
    if exception is not None:
        redacted["exception"] = redact_text(text_of(exception), TRACEBACK_MAX)
    return redacted


def json_line(event: Event) -> str:
    line = orjson.dumps(event).decode()
    return _UNSAFE_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


def console_line(event: Event, *, is_colored: bool) -> str:
    """Render for a person: fields behind the event, a traceback indented below it."""
    rest = dict(event)
    timestamp, level, logger, name = (
        rest.pop(key) for key in ("timestamp", "level", "logger", "event")
    )
    exception = rest.pop("exception", None)
    if is_colored:
        level = f"\x1b[{_COLORS.get(level, 0)}m{level:<8}\x1b[0m"
    fields = " ".join(f"{_shown(key)}={_shown(value)}" for key, value in rest.items())
    line = f"{timestamp} {level:<8} {_escaped(logger)} {_escaped(name)} {fields}".rstrip()
    if exception is None:
        return line
    return "\n".join([line, *(f"    {_escaped(part)}" for part in exception.split("\n"))])


def _shown(value: object) -> str:
    if not isinstance(value, str):
        return repr(value)
    is_plain = value.isprintable() and not set(value) & set(" ='\"") and value != ""
    return value if is_plain else repr(value)


def _escaped(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]


def _filtering_class(name: str) -> type[FilteringBoundLogger]:
    return structlog.make_filtering_bound_logger(_levels.of(name))


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, p) or name.startswith(f"{p}:") for p in patterns)


def _route_libraries(level: int) -> None:
    root = logging.getLogger()
    if not any(isinstance(handler, LibraryHandler) for handler in root.handlers):
        root.addHandler(LibraryHandler())
    # httpx tells every request at info level, URL and all: that is for LOG_LEVEL=debug only.
    root.setLevel(logging.DEBUG if level == logging.DEBUG else max(level, logging.WARNING))
    # httpcore tells every header at debug level, and asyncio every selector.
    for noisy in ("httpcore", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.INFO if level == logging.DEBUG else level)


_levels = Levels()
_destination = Destination()
_line = Line(_destination)
_steps: list[Any] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    render_exception,
    redact_event,
    _line,
]
_loggers: dict[str, FilteringBoundLogger] = {}
