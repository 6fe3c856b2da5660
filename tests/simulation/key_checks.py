"""What must hold for the keys that sign and the keys that devices obey (invariants 1 and 2)."""

from __future__ import annotations

import json
from collections.abc import Iterator

from device_sim.binding import Binding
from device_sim.device import State
from gateway.store import View, token_sql
from tests.simulation.device_host import DeviceHost
from tests.simulation.integrator import Finding
from tests.simulation.world import World


def check_keys(world: World) -> Iterator[Finding]:
    """Each device obeys keys of its gateway alone, and among them the one with which the gateway signs for it.

    A restored registry may be of a time before its device took a key. It learns of that from the device's next refusal.
    """
    world.known_keys |= {row["kid"] for row in world.rows("SELECT kid FROM signing_keys")}
    for device in world.devices:
        binding = device.binding
        held = _held(binding)
        if held - world.known_keys:
            yield 2, "a device obeys keys of its gateway alone", f"{device.serial} holds {held - world.known_keys}"
        signer = _signer(world, device, binding)
        if signer is not None and signer not in held and not world.model.tokens_before:
            yield 1, "the gateway signs with a key that the device obeys", f"{device.serial} holds {held}, not {signer}"


def check_failed_grants(world: World) -> Iterator[Finding]:
    """No command that the gateway signed has failed because of its grant, but for those that an intruder altered."""
    for row in world.rows("SELECT * FROM commands WHERE status = 'failed'"):
        code = json.loads(row["error"] or "{}").get("code")
        if code == "grant_invalid" and row["id"] not in world.altered_commands:
            yield 1, "commands signed by the gateway are obeyed", f"{row['id']} ({row['type']}) failed with {code}"


def check_old_keys(world: World) -> Iterator[Finding]:
    """A device that has confirmed a new key obeys that one alone."""
    for device in world.devices:
        newest = world.row(
            """SELECT c.status FROM commands c JOIN devices d ON d.pk = c.device_pk
                WHERE d.id = ? AND c.type = 'set_grant_key' ORDER BY c.id DESC LIMIT 1""",
            device.id,
        )
        is_done = newest is not None and newest["status"] == "executed" and not world.model.tokens_before
        held = _held(device.binding)
        if is_done and len(held) > 1 and _signer(world, device, device.binding) is not None:
            yield 2, "the old key ends", f"{device.serial} still obeys {held}"


def _held(binding: Binding | None) -> set[str]:
    return set() if binding is None else {str(key["kid"]) for key in binding.grant_keys}


def _signer(world: World, device: DeviceHost, binding: Binding | None) -> str | None:
    """The key with which the gateway signs for this binding of the device; None for one that has ended."""
    row = None if binding is None else token_sql.by_secret(View(world.disk), binding.device_token)
    if row is None or row.state == "revoked" or device.firmware.state is State.RESETTING:
        return None
    return row.grant_kid
