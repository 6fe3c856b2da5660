"""Resets as they may be found in the field."""

from collections.abc import Callable
from typing import Any

from gateway.store import Tx
from tests.http.support import Api, Json, body
from tests.support.receipts import receipt_of

MINUTE_MS = 60_000
DAY_MS = 1_440 * MINUTE_MS
REPORT = {
    "wiped": ["device_token", "pairing", "wifi_networks", "recordings"],
    "kept": ["serial_number", "cellular_apn", "last_command_id"],
    "recordings": {"wiped": 12, "kept": 0},
    "technique": {
        "device_token": "overwritten",
        "pairing": "overwritten",
        "wifi_networks": "overwritten",
        "recordings": "key_destroyed",
    },
}
"""What a device says that has wiped everything."""
_OPEN = {"BP-010201": (40 * DAY_MS, "Lost on the way home"), "BP-010202": (9 * DAY_MS, "Returned by ward 3")}
_FINISHED = ("Returned by ward 3, goes to refurbishing", None, "Change of patient", "Returned by ward 5")


async def reset(api: Api, serial: str, **asked: str) -> Json:
    """A device whose reset was requested."""
    bound = await api.bound(serial)
    body(await api.back_end.post(f"/v1/devices/{bound['id']}/reset", json=asked), 200)
    command = body(await api.back_end.get(f"/v1/devices/{bound['id']}/commands"), 200)["data"][0]
    return {**bound, "command": command}


async def answered(api: Api, made: Json, *statuses: str, result: Json | None = None) -> None:
    """What the device says of it."""
    for status in statuses:
        ack = {"status": status, "receipt": receipt_of(made["device_token"], made["command"], status), "result": result}
        path = f"/v1/devices/me/commands/{made['command']['id']}/ack"
        body(await api.as_(made["device_token"]).post(path, json=ack), 200)


async def with_resets(api: Api) -> Json:
    """Have resets of every kind; return one that was executed."""
    for serial, (age, reason) in _OPEN.items():
        made = await reset(api, serial, reason=reason)
        await api.store.write(_request_earlier(made["command"]["id"], age))
    ended = [
        await reset(api, f"BP-0103{number:02}", recordings="wipe", **({} if reason is None else {"reason": reason}))
        for number, reason in enumerate(_FINISHED, 1)
    ]
    first, second, failed, gone = ended
    for each in (first, second):
        await answered(api, each, "delivered")
        await answered(api, each, "executed", result=REPORT)
    await answered(api, failed, "delivered", "failed")
    body(await api.back_end.post(f"/v1/devices/{gone['id']}/commands/{gone['command']['id']}/cancel"), 200)
    await answered(api, await reset(api, "BP-010410", reason="Change of patient"), "delivered")
    return first


def _request_earlier(command_id: str, milliseconds: int) -> Callable[[Tx], Any]:
    return lambda tx: tx.run(
        "UPDATE resets SET requested_at = requested_at - ? WHERE command_id = ?", milliseconds, command_id
    )
