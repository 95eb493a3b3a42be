"""Addresses as keyed hashes: to find a person again without keeping who it is."""

from __future__ import annotations

import hashlib
import hmac

from enrichd.domain.emails import Address, canonical_key, parse_address


def email_hmac(pepper: bytes, address: str | Address) -> bytes:
    """Return HMAC-SHA256 of an address, the same for all spellings of one mailbox."""
    parsed = parse_address(address) if isinstance(address, str) else address
    text = canonical_key(parsed) if isinstance(parsed, Address) else parsed.text.casefold()
    return hmac.digest(pepper, text.encode("utf-8", "replace"), hashlib.sha256)
