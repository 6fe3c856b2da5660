"""Claims of certificates for the tests of their page."""

import copy
from typing import Any

Json = dict[str, Any]

KID = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
SHA256 = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
_EXECUTED: Json = {
    "iss": "gw_01JD3M0000000000000000000G",
    "iat": 1_795_940_284,
    "jti": "cert_01JD3N0A1B2C3D4E5F6G7H8J9M",
    "number": 7,
    "project_id": "proj_01JD3M0000000000000000000A",
    "sub": "dev_01JD3M5QZ8V9T2R4W6X7Y8Z9AB",
    "outcome": "executed",
    "device": {"serial_number": "BP-010417", "model": "bota_pin", "firmware_version": "1.4.2"},
    "end_user": {"hash": "t7Yd0Lr2q9QmB3c8vN1xZk5fGh6jPwSa4eUoIiTzE3w"},
    "request": {
        "at": "2026-11-29T08:16:00.000Z",
        "actor": "key_01JD3M0000000000000000000B",
        "actor_name": "Returns desk",
        "reason": "Returned by ward 3, goes to refurbishing",
        "request_id": "req_5f2a9c01d4e87b3c6a90f1e2",
        "recordings": "wipe",
    },
    "generation": {"before": 3, "after": 4},
    "grant": {"kid": KID, "jti": "cmd_01JD3M5QZ8V9T2R4W6X7Y8Z9AB"},
    "delivered_at": "2026-11-29T08:16:01.000Z",
    "finished_at": "2026-11-29T08:18:04.000Z",
    "wiped": ["device_token", "pairing", "wifi_networks"],
    "kept": ["serial_number", "cellular_apn", "last_command_id"],
    "technique": {"device_token": "overwritten", "wifi_networks": "deleted", "recordings": "key_destroyed"},
    "recordings": {"wiped": 12, "kept": 0},
    "receipt": {"alg": "HMAC-SHA256", "verified": True, "late": False},
    "gateway": {"token_revoked_at": "2026-11-29T08:18:04.000Z"},
    "previous": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}


def executed(**others: Any) -> Json:
    """Claims of a reset that the device carried out, with these differences."""
    return {**copy.deepcopy(_EXECUTED), **others}


def ended(outcome: str, **others: Any) -> Json:
    """Claims of a reset that ended otherwise: the device reported nothing."""
    silent: Json = {"wiped": [], "kept": [], "technique": {}, "recordings": None, "receipt": None, "delivered_at": None}
    return executed(outcome=outcome, **{**silent, **others})


def of_each_kind() -> dict[str, Json]:
    """One certificate of each outcome, and addenda."""
    before = {"addendum_to": "cert_01JD3N0000000000000000000X"}
    return {
        "Reset executed": executed(),
        "Reset failed": ended("failed"),
        "Reset cancelled": ended("cancelled"),
        "Reset superseded": ended("superseded", end_user=None),
        "Late report: executed": executed(outcome="superseded", late={"status": "executed"}, **before),
        "Late report: failed": ended("cancelled", late={"status": "failed"}, **before),
    }


def largest() -> Json:
    """As much as there can be, with words that are as long as they may get."""
    wide, entries = "W" * 128, [f"{number}_{'w' * 61}" for number in range(10, 74)]
    return executed(
        device={"serial_number": wide, "model": "bota_pin_pro", "firmware_version": "9" * 32},
        request={
            "at": "2026-11-29T08:16:00.000Z",
            "actor": f"user:{'w' * 255}",
            "actor_name": wide,
            "reason": "W" * 200,
            "request_id": "req_5f2a9c01d4e87b3c6a90f1e2",
            "recordings": "keep",
        },
        wiped=entries,
        kept=entries,
        technique=dict.fromkeys(entries, "key_destroyed"),
        recordings={"wiped": 2**53 - 1, "kept": 2**53 - 1},
        late={"status": "executed"},
        addendum_to="cert_01JD3N0000000000000000000X",
    )
