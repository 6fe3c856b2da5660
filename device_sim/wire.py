"""Wire format of the contract as a device writes and reads it. It is separate from the gateway's code on purpose.

A difference between the two then shows in tests.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from device_sim.strict_json import read_json

COMMAND_TYPES = ("factory_reset", "start_recording", "stop_recording", "trigger_upload", "reboot", "set_grant_key")
SECOND_MS = 1000
ONLINE = b'{"status":"online"}'
OFFLINE = b'{"status":"offline"}'
_EPOCH = datetime.fromtimestamp(0, UTC)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


class MalformedError(Exception):
    """The payload of a command does not follow section 3 of the contract."""


@dataclass(frozen=True)
class Topics:
    """The names of one device's topics (section 3 of the contract)."""

    device_id: str
    prefix: str = ""

    def of(self, what: str) -> str:
        """Return the full name of `heartbeat`, `status`, `errors`, …."""
        return f"{self.prefix}devices/{self.device_id}/{what}"

    def command(self, command_type: str) -> str:
        """Return the topic of retained commands of one type."""
        return self.of(f"commands/{command_type}")

    def ack(self, command_type: str) -> str:
        """Return the topic of acknowledgements of one type."""
        return self.of(f"commands/{command_type}/ack")

    def subscriptions(self) -> list[str]:
        """Return the full name of every topic to subscribe to. Some brokers send no retained messages to a wildcard."""
        return [*(self.command(each) for each in COMMAND_TYPES), self.of("errors")]


@dataclass(frozen=True)
class Command:
    """A command as it arrived. It is trusted only after the check of its grant."""

    id: str
    type: str
    params: Mapping[str, Any]
    binding_generation: int
    expires_at: int | None  # milliseconds since the epoch
    grant_token: str


def parse_command(payload: bytes) -> Command:
    """Parse the payload of a command.

    Raises:
        MalformedError: it is not a JSON object, too long or ambiguous, or a field is missing or of another type.
    """
    try:
        raw = read_json(payload, finite=False)
        return Command(
            id=_text(raw["id"]),
            type=_text(raw["type"]),
            params=_object(raw["params"]),
            binding_generation=_integer(raw["binding_generation"]),
            expires_at=None if raw.get("expires_at") is None else milliseconds(_text(raw["expires_at"])),
            grant_token=_text(raw["grant_token"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedError(f"{type(error).__name__}: {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, got {type(value).__name__}")
    value.encode()  # JSON can encode half of a surrogate pair, which no text may contain
    return value


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, got {type(value).__name__}")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected an integer, got {type(value).__name__}")
    return value


def milliseconds(text: str) -> int:
    """Return milliseconds since the epoch from RFC 3339 with an offset or `Z`; smaller fractions are cut off.

    Raises:
        ValueError: it has another form, or no offset.
    """
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"{text!r} is no RFC 3339 time with an offset")
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)


def rfc3339(at: int) -> str:
    """Return milliseconds since the epoch as `2026-11-01T12:00:00.000Z`."""
    moment = datetime.fromtimestamp(at // SECOND_MS, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at % SECOND_MS:03d}Z"


def encode(value: Mapping[str, Any]) -> bytes:
    """Return compact JSON with the fields in the order given, without absent ones."""
    present = {name: each for name, each in value.items() if each is not None}
    return json.dumps(present, separators=(",", ":"), ensure_ascii=False).encode()


def receipt(token: str, command_id: str, status: str, generation: int) -> str:
    """Return base64url(HMAC-SHA256(SHA-256(token), "command_id|status|binding_generation")), no padding (section 3)."""
    key = hashlib.sha256(token.encode()).digest()
    digest = hmac.new(key, f"{command_id}|{status}|{generation}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def mqtt_password(token: str) -> str:
    """Return base64url(HMAC-SHA256(token, "mqtt")) without padding (section 1)."""
    digest = hmac.new(token.encode(), b"mqtt", hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def refresh_key(token: str) -> str:
    """Return the Idempotency-Key for a refresh of this token.

    It is derived from the token. So it is in flash as long as the token is, without another write, and the refresh of
    the next token has another key.
    """
    word = hmac.new(token.encode(), b"refresh", hashlib.sha256).digest()
    return base64.urlsafe_b64encode(word).rstrip(b"=").decode()


def acknowledgement(
    command_id: str,
    status: str,
    *,
    receipt: str,
    result: Mapping[str, Any] | None = None,
    error: Mapping[str, str] | None = None,
) -> bytes:
    """Return the payload of `commands/{type}/ack`."""
    return encode({"command_id": command_id, "status": status, "result": result, "error": error, "receipt": receipt})
