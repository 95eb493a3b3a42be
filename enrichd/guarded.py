"""Sockets that go only where an address guard lets them.

`aiohttp.TCPConnector` asks its `socket_factory` for every socket with the address it is about to
connect to. So names, literals, `localhost`, a redirect and a name that changed its answer all meet
the same guard, at the last moment, and TLS still checks the name.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, TypeAlias

MayConnect: TypeAlias = Callable[[str, int], bool]
"""Say whether a connection to this address and port is allowed."""


class AddressRefused(OSError):
    """The guard's answer to a socket towards an address that is not allowed."""

    def __init__(self) -> None:
        # The text is the same for every address: of many alike, aiohttp raises one as it is.
        super().__init__(errno.EACCES, "address refused")


def guarded_sockets(may_connect: MayConnect) -> Callable[[tuple[Any, ...]], socket.socket]:
    """Return a socket factory that raises AddressRefused for what the guard does not allow."""

    def make(addr_info: tuple[Any, ...]) -> socket.socket:
        family, kind, proto, _, address = addr_info
        if not may_connect(address[0], address[1]):
            raise AddressRefused
        return socket.socket(family=family, type=kind, proto=proto)

    return make


def is_refusal(error: BaseException) -> bool:
    """Say whether an error, or what aiohttp wrapped in it, is the guard's."""
    return "address refused" in str(error)
