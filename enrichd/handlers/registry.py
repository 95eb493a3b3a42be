"""Which handler runs which job type, and how plug-ins join in.

A handler is an `async def handler(payload, context)` that returns an outcome or a dict, the result.
It is found by the job's type; its payload model is found the same way in `domain/payloads.py`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import BaseModel

from enrichd.domain import payloads
from enrichd.domain.outcomes import Outcome
from enrichd.errors import InvalidSetting
from enrichd.handlers.context import JobContext

Handler: TypeAlias = Callable[[Any, JobContext], Awaitable[Outcome | Mapping[str, Any]]]
Payload = TypeVar("Payload", bound=BaseModel)
TypedHandler: TypeAlias = Callable[[Payload, JobContext], Awaitable[Outcome | Mapping[str, Any]]]

PROVIDERS_GROUP: Final = "enrichd.providers"
"""The entry points of installed packages that bring a provider: a module, or something in it."""

HANDLERS: dict[str, Handler] = {}


def handles(model: type[Payload]) -> Callable[[TypedHandler[Payload]], TypedHandler[Payload]]:
    """Register the decorated handler for the job type whose payload is `model`."""
    return handler_of(payloads.type_of(model))


def handler_of(job_type: str) -> Callable[[TypedHandler[Payload]], TypedHandler[Payload]]:
    """Register the decorated handler for a job type. Raises ValueError for a second one."""

    def register(handler: TypedHandler[Payload]) -> TypedHandler[Payload]:
        if HANDLERS.get(job_type, handler) is not handler:
            raise ValueError(f"job type {job_type!r} has a handler already")
        HANDLERS[job_type] = handler
        return handler

    return register


def load_handlers(plugins: Iterable[str] = ()) -> None:
    """Import the built-in handlers and the plug-ins' modules, which register themselves."""
    for name in BUILT_IN:
        importlib.import_module(f"enrichd.handlers.{name}")
    load_plugins(plugins)


def load_plugins(names: Iterable[str]) -> None:
    """Import the modules of `ENRICHD_PLUGINS`, then what is installed under PROVIDERS_GROUP.

    Raises InvalidSetting naming the module or the package that cannot be imported.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise InvalidSetting(
                f"ENRICHD_PLUGINS: cannot import {name!r}: {type(error).__name__}: {error}",
                hint="Give modules that Python can import from here, separated by commas.",
            ) from error
    for point in importlib.metadata.entry_points(group=PROVIDERS_GROUP):
        try:
            point.load()
        except Exception as error:
            package = point.dist.name if point.dist else "a package"
            raise InvalidSetting(
                f"{package}: cannot load its provider {point.name!r}, {point.value}:"
                f" {type(error).__name__}: {error}",
                hint=f"Mend or uninstall {package}.",
            ) from error


BUILT_IN = (
    "single_lead",
    "batch_leads",
    "email_validation",
    "company_update",
    "social_discovery",
)
