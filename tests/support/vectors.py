"""The test vectors of the protocol, docs/vectors.json: commands with the answer that a device gives to each."""

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "docs" / "vectors.json"
VECTORS: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
COMMANDS: list[dict[str, Any]] = VECTORS["commands"]
NAMES = [each["name"] for each in COMMANDS]
RESETS_WITH_RECORDINGS = [each for each in COMMANDS if "executed" in each]
"""Resets that say what becomes of the recordings that the device has."""
WRITTEN_FOR: dict[str | None, set[str]] = {
    "stale_generation": {"last_commands"},
    "expired": {"last_commands"},
    "invalid_params": {"last_commands"},
    "invalid_grant_key": {"last_commands", "last_sequences"},
}
"""What a device writes to its flash at a refusal with this code; nothing at any other."""


def payload(vector: dict[str, Any]) -> bytes:
    """Return the bytes that arrive."""
    blanks: int = vector.get("trailing_blanks", 0)
    return str(vector["payload"]).encode() + b" " * blanks


def wiped_area(vector: dict[str, Any]) -> dict[str, Any]:
    """Return what a bound device has in the area that a reset wipes."""
    key = {**VECTORS["grant_key"], "x": vector.get("grant_key_x", VECTORS["grant_key"]["x"])}
    mqtt = {"host": "mqtt.example.com", "port": 8883, "tls": True, "topic_prefix": ""}
    pairing = {
        "device_id": VECTORS["device_id"],
        "binding_generation": VECTORS["binding_generation"],
        "end_user_id": None,
        "grant_key": key,
        "mqtt": mqtt,
    }
    return {"pairing": pairing, "device_token": VECTORS["device_token"]}


def kept_area(vector: dict[str, Any]) -> dict[str, Any]:
    """Return what it has in the other area."""
    last = vector.get("last_sequences")
    sequences = {"generation": VECTORS["binding_generation"], "last": last}
    recordings = {"recordings": vector["recordings"]} if vector.get("recordings") else {}
    return {"last_sequences": sequences, **recordings} if last else recordings


def expected(vector: dict[str, Any]) -> list[tuple[str, str | None]]:
    """Return status and error code of each acknowledgement; a command other than a reset is executed at once."""
    answer = vector["answer"]
    if answer is None:
        return []
    if answer == "invalid_grant_key":  # the grant was good, so the command was accepted
        return [("delivered", None), ("failed", answer)]
    if answer != "delivered":
        return [("failed", answer)]
    if vector["topic"] == "factory_reset":
        return [("delivered", None)]
    return [("delivered", None), ("executed", None)]
