"""The example of a certificate of reset in the OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

_SHA256: Final = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
_CLAIMS: Final[dict[str, Any]] = {
    "iss": "gw_01JD3M0000000000000000000G",
    "iat": 1_763_626_563,
    "jti": "cert_01JD3N0A1B2C3D4E5F6G7H8J9M",
    "sub": "dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB",
    "project_id": "proj_01JD3M0000000000000000000A",
    "number": 17,
    "addendum_to": None,
    "outcome": "executed",
    "device": {"serial_number": "BP-010417", "model": "bota_pin", "firmware_version": "1.4.2"},
    "end_user": {"hash": "t7Yd0Lr2q9QmB3c8vN1xZk5fGh6jPwSa4eUoIiTzE3w"},
    "request": {
        "at": "2025-11-20T08:16:00.000Z",
        "actor": "key_01JD3M0000000000000000000B",
        "actor_name": "backend",
        "reason": "Returned by ward 3, goes to repair.",
        "request_id": "req_5f2a9c01d4e87b3c6a90f1e2",
        "recordings": "wipe",
    },
    "generation": {"before": 3, "after": 4},
    "grant": {"kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "jti": "cmd_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"},
    "delivered_at": "2025-11-20T08:16:01.000Z",
    "executed_at": "2025-11-20T08:16:03.000Z",
    "finished_at": "2025-11-20T08:16:03.000Z",
    "wiped": ["device_token", "pairing", "wifi_networks", "recordings"],
    "kept": ["serial_number", "cellular_apn", "last_command_id"],
    "recordings": {"wiped": 12, "kept": 0},
    "technique": {"device_token": "overwritten", "recordings": "key_destroyed"},
    "late": None,
    "receipt": {"alg": "HMAC-SHA256", "verified": True, "late": False},
    "gateway": {
        "token_revoked_at": "2025-11-20T08:16:03.000Z",
        "sessions_closed_at": None,
        "retained_cleared_at": None,
    },
    "previous": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}
CERTIFICATE_EXAMPLES: Final[dict[str, Any]] = {
    "ResetCertificate": {
        "id": _CLAIMS["jti"],
        "created_at": "2025-11-20T08:16:03.000Z",
        "claims": _CLAIMS,
        "jws": "<JWS>",
        "sha256": _SHA256,
        "addenda": [],
    },
    "get_certificate application/jose": "<JWS>",
    "get_certificate text/html": '<!doctype html>\n<html lang="en">…</html>\n',
}
