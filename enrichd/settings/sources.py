"""Where variables are written: reads every layer and remembers where each text stood.

A file that cannot be read as what it is stops the start. What merely looks odd (a line of `.env`
that is none, a near miss of one of our names in the environment) becomes a warning, because those
places are shared with others.
"""

from __future__ import annotations

import io
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dotenv.parser import parse_stream
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource
from rapidfuzz.distance import OSA

from enrichd.errors import FieldProblem
from enrichd.settings import providers

CONFIG_VARIABLE = "ENRICHD_CONFIG"
FILE_SUFFIX = "_FILE"
SIZE_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Raw:
    """A variable as it was found."""

    text: str = field(repr=False)
    written: str
    """Its name as the person wrote it: `WORKER_COUNT`, `worker.count`, `DATABASE_URL_FILE`."""
    source: str
    """Where: `environment`, `.env line 3`, `enrichd.toml`."""


@dataclass(frozen=True, slots=True)
class Layer:
    values: dict[str, Raw]
    is_ours: bool = False
    """Only enrichd reads it, so an unknown name in it is a mistake."""


@dataclass(slots=True)
class Findings:
    """What was wrong or odd on the way; everything is gathered, so that one start shows it all."""

    problems: list[FieldProblem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class LayerSource(PydanticBaseSettingsSource):
    """Hands one layer to pydantic-settings, a provider's variables gathered under its id."""

    def __init__(
        self, settings_cls: type[BaseSettings], layer: Layer, ids: Collection[str]
    ) -> None:
        super().__init__(settings_cls)
        self._layer = layer
        self._ids = ids

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = str(field.validation_alias)
        raw = self._layer.values.get(variable)
        return raw and raw.text, variable, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, field_info in self.settings_cls.model_fields.items():
            text, variable, _ = self.get_field_value(field_info, name)
            if text is not None:
                found[variable] = text
        by_id: dict[str, dict[str, str]] = {}
        for variable, raw in self._layer.values.items():
            if (parts := providers.split(variable)) and parts[0] in self._ids:
                by_id.setdefault(parts[0], {})[parts[1].lower()] = raw.text
        return found | {"providers": by_id}


def read_layers(
    env: Mapping[str, str], directory: Path, overrides: Mapping[str, str], findings: Findings
) -> list[Layer]:
    """Read all layers, strongest first. An empty value counts as not set."""
    layers = [
        Layer(_plain(overrides, "command line")),
        Layer(_plain(env, "environment")),
        Layer(_dotenv(directory / ".env", findings)),
    ]
    if (named := winner(layers, CONFIG_VARIABLE)) is not None:
        path = _path(directory, named.text)
        if os.path.isfile(path):
            layers.append(Layer(_toml(path, named.text, findings), is_ours=True))
        else:
            findings.problems.append(
                FieldProblem(named.written, f"names no file (from {named.source})")
            )
    layers.append(Layer(_toml(directory / "enrichd.toml", "enrichd.toml", findings), is_ours=True))
    return layers


def winner(layers: Sequence[Layer], variable: str) -> Raw | None:
    return next((layer.values[variable] for layer in layers if variable in layer.values), None)


def provider_ids(layers: Sequence[Layer]) -> frozenset[str]:
    """Say which ids the layers set anything for, besides the known ones."""
    found = set(providers.KNOWN)
    for layer in layers:
        for variable, raw in layer.values.items():
            parts = providers.split(variable)
            if parts is None:
                continue
            provider_id, suffix = parts
            # VITE_BASE_URL=/static is somebody else's and must not stop our start, so only what
            # could be a key or a URL makes a stranger a provider.
            is_key = suffix == "API_KEY" and re.fullmatch("[!-~]+", raw.text)
            is_base = suffix == "BASE_URL" and re.match("https?://", raw.text)
            if layer.is_ours or is_key or is_base:
                found.add(provider_id)
    return frozenset(found)


def read_secret_files(
    layers: Sequence[Layer], secrets: Collection[str], directory: Path, findings: Findings
) -> None:
    """Put the content of the file that `NAME_FILE` names in the place of `NAME`, layer by layer.

    A file is opened only if no stronger layer has the variable. A stranger's `…_API_KEY_FILE` that
    cannot be read is a warning; one of ours stops the start.
    """
    decided: set[str] = set()
    for layer in layers:
        for written, raw in list(layer.values.items()):
            variable = written.removesuffix(FILE_SUFFIX)
            if written == variable or not is_secret(variable, secrets) or variable in decided:
                continue
            if variable in layer.values:
                problem = f"is set beside {variable} (both from {raw.source}); leave one out"
                findings.problems.append(FieldProblem(raw.written, problem))
                continue
            content, problem = _secret_file(_path(directory, raw.text))
            if content:
                source = f"{raw.source}, file"
                layer.values[variable] = Raw(content, raw.written, source)
            elif _is_known(variable, secrets) or layer.is_ours:
                findings.problems.append(
                    FieldProblem(raw.written, f"{problem} (from {raw.source})")
                )
            else:
                findings.warnings.append(f"{raw.written} {problem}; it is ignored")
        decided |= layer.values.keys()


def check_names(
    layers: Sequence[Layer],
    variables: Collection[str],
    secrets: Collection[str],
    ids: Collection[str],
    findings: Findings,
) -> None:
    """Find names that mean nothing: all of them in our own files, near misses of ours elsewhere."""
    known = {*variables, *(providers.variable(i, s) for i in ids for s in providers.SUFFIXES)}
    known |= {name + FILE_SUFFIX for name in known if is_secret(name, secrets)}
    for layer in layers:
        for variable, raw in layer.values.items():
            if variable in known:
                continue
            meant = _nearest(variable, known)
            hint = f"did you mean {meant}?" if meant else "docs/configuration.md lists them all"
            if layer.is_ours:
                problem = f"is not a setting (from {raw.source}); {hint}"
                findings.problems.append(FieldProblem(raw.written, problem))
            elif meant:
                findings.warnings.append(
                    f"{raw.written} (from {raw.source}) is not a setting; {hint}"
                )


def _plain(given: Mapping[str, str], source: str) -> dict[str, Raw]:
    return {name: Raw(text.strip(), name, source) for name, text in given.items() if text.strip()}


def _dotenv(path: Path, findings: Findings) -> dict[str, Raw]:
    """Read `.env`; quotes, comments and `export` as usual, `${…}` is left as it stands.

    Nothing is expanded, as in systemd's EnvironmentFile: a password may hold a dollar sign.
    """
    found: dict[str, Raw] = {}
    for binding in parse_stream(io.StringIO(_file_text(path, ".env", findings))):
        # A binding starts with the blank lines before it.
        lead = binding.original.string
        line = binding.original.line + lead[: len(lead) - len(lead.lstrip())].count("\n")
        if binding.error:
            findings.warnings.append(f".env line {line} is not NAME=value; it is ignored")
        elif binding.key and binding.value and binding.value.strip():
            raw = Raw(binding.value.strip(), binding.key, f".env line {line}")
            found[binding.key] = raw
    return found


def _toml(path: Path, shown: str, findings: Findings) -> dict[str, Raw]:
    """Read TOML; names may be lower case, and `[hunter] api_key` stands for HUNTER_API_KEY."""
    try:
        document = tomllib.loads(_file_text(path, shown, findings))
    except tomllib.TOMLDecodeError as error:
        findings.problems.append(FieldProblem(shown, f"is not TOML: {error}"))
        return {}
    found: dict[str, Raw] = {}
    for keys, value in _leaves(document):
        written = ".".join(keys)
        variable = "_".join(keys).upper().replace("-", "_")
        text = _scalar_text(value)
        if text is None:
            kind = type(value).__name__
            problem = (
                f"is a {kind} (from {shown}); it must be text, a number, true, false or a list"
            )
            findings.problems.append(FieldProblem(written, problem))
        elif variable in found:
            problem = f"is the same as {found[variable].written} (both from {shown}); leave one out"
            findings.problems.append(FieldProblem(written, problem))
        elif text.strip():
            found[variable] = Raw(text.strip(), written, shown)
    return found


def _leaves(
    table: dict[str, Any], keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in table.items():
        # Three levels are one more than any name needs; deeper tables are refused as values.
        if isinstance(value, dict) and len(keys) < 3:
            yield from _leaves(value, (*keys, key))
        else:
            yield (*keys, key), value


def _scalar_text(value: object) -> str | None:
    match value:
        case bool():
            return "on" if value else "off"
        case str() | int() | float():
            return str(value)
        case list():
            items = [_scalar_text(item) for item in value if not isinstance(item, list)]
            texts = [item for item in items if item is not None]
            return ",".join(texts) if len(texts) == len(value) else None
        case _:
            return None


def _path(directory: Path, written: str) -> Path:
    # os.path, here and for isfile: pathlib raises on an unknown ~user, a forbidden directory and
    # on a text that is no path at all, such as the secret itself in the place of its file.
    return directory / os.path.expanduser(written)


def _file_text(path: Path, shown: str, findings: Findings) -> str:
    if not os.path.isfile(path):
        return ""
    try:
        if path.stat().st_size <= SIZE_BYTES_MAX:
            return path.read_text(encoding="utf-8")
        problem = f"is larger than {SIZE_BYTES_MAX} bytes"
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    findings.problems.append(FieldProblem(shown, problem))
    return ""


def _secret_file(path: Path) -> tuple[str, str]:
    """Return the content without its last newline and, if there is none, what is wrong."""
    findings = Findings()
    if not os.path.isfile(path):
        return "", "names no file"
    content = _file_text(path, "", findings).rstrip("\r\n")
    if findings.problems:
        return "", f"names a file that {findings.problems[0].problem}"
    return content, "" if content else "names an empty file"


def is_secret(variable: str, secrets: Collection[str]) -> bool:
    return variable in secrets or providers.is_secret(variable)


def _is_known(variable: str, secrets: Collection[str]) -> bool:
    parts = providers.split(variable)
    return variable in secrets or (parts is not None and parts[0] in providers.KNOWN)


def _nearest(name: str, known: Collection[str]) -> str | None:
    """Find the name that was probably meant: at most two slips away, and long enough to be sure."""
    if not 8 <= len(name) <= 80:
        return None
    slips = {other: OSA.distance(name.upper(), other, score_cutoff=2) for other in known}
    nearest = min(sorted(slips), key=lambda other: slips[other])
    return nearest if slips[nearest] <= 2 else None
