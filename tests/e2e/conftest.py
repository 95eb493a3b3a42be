"""The daemon of a fault test, on a database of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon


@pytest.fixture
def daemon(database_url: str, tmp_path: Path) -> Callable[..., Daemon]:
    """Give `daemon(**environ)`: an `enrichd` to enter, on the test's fresh database."""

    def make(*, url: str | None = database_url, **options: object) -> Daemon:
        return Daemon(url, folder=tmp_path, **options)  # type: ignore[arg-type]

    return make
