"""TLS of the gateway's own, for those who have no proxy in front."""

from __future__ import annotations

import ssl
from pathlib import Path

from enrichd.errors import InvalidSetting


def tls_of(cert: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """Return what the two files stand for, None without them. Raises InvalidSetting."""
    if cert is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # An empty password: a key that has one must not stop the start with a question.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        reason = "they are no certificate and unencrypted key of each other in PEM"
        if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
            reason = error.strerror or reason
        raise InvalidSetting(
            f"API_TLS_CERT_FILE and API_TLS_KEY_FILE: {cert} and {key} cannot be used: {reason}",
            hint="Give a certificate chain and its key that this user may read.",
        ) from error
    return context
