"""A gateway child: `python -m tests.gateway.child LINK_FD SLOT [FOLDER]`.

The settings come from the environment; with a folder, metrics are kept there.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from enrichd import metrics
from enrichd.gateway.main import run_gateway
from enrichd.logs import configure_logs, register_secret
from enrichd.settings import Settings


def main(link_fd: str, slot: str, folder: str | None = None) -> int:
    """Run the gateway and return its exit code."""
    settings = Settings.load()
    for secret in settings.secrets():
        register_secret(secret)
    configure_logs(settings.log_level, "json")
    if folder is not None:
        metrics.prepare(Path(folder))
    metrics.allow(job_types=["email_validation", "nap"], providers=["hunter"])
    with socket.socket(fileno=int(link_fd)) as link:
        return run_gateway(settings, link, int(slot))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
