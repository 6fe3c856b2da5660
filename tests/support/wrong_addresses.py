"""Addresses of brokers that no device may store."""

from typing import Any

WRONG_ADDRESSES: list[dict[str, Any]] = [
    *({"host": host} for host in (None, 7, ["b.example"], "", " ", "b.example\r\n", "b\0", "bäcker.example")),
    {"host": "b" * 254},
    *({"port": port} for port in (None, "8883", 8883.5, True, 0, -1, 65536)),
    *({"tls": tls} for tls in (None, "false", 0)),
]
"""What is wrong with each: members of `mqtt` in the answer to a bind or a token refresh."""
