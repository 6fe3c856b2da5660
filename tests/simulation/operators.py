"""What operators and companion apps do, through the gateway's HTTP application."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any, Final

from device_sim.binding import Binding
from device_sim.errors import ApiError, SimulatorError
from gateway.core.ids import Ids
from gateway.domain import devices, grant_keys, grants
from gateway.errors import GatewayError
from gateway.store import Context, Tx, grant_key_sql, transact
from gateway.store.grant_key_sql import DeliveryCursor
from tests.simulation import person_laws
from tests.simulation.broker_laws import awaited_brokers, check_bind
from tests.simulation.device_host import DeviceHost
from tests.simulation.model_state import RESET
from tests.simulation.world import World

_TRY_AGAIN_SECONDS: Final = 0.4
_MENDING_SECONDS: Final = 15.0
_REFUSED: Final = 400
_BODIES: Final = {"/bind": b'{"end_user_id":"eu_1","supersede_reset":true}', "/commands": b'{"type":"reboot"}'}

StepMethod = Callable[..., Awaitable[None]]


class Operators:
    """Each method is a kind of step. A refusal of the gateway is logged and not repeated."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._api = world.api

    async def do(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Carry out one step."""
        facts = dict(facts)
        device = self._world.devices[facts.pop("device")] if "device" in facts else None
        method: StepMethod = getattr(self, kind)
        try:
            await (method(**facts) if device is None else method(device, **facts))
        except SimulatorError as error:
            reason = error.code if isinstance(error, ApiError) else str(error)
            self._world.log("operator", f"{kind}: refused or unheard", reason=reason)

    async def _post(self, device: DeviceHost, what: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        answer = await self._api.call("POST", f"/v1/devices/{device.id}/{what}", body or {})
        self._world.log("operator", f"POST {what} of {device.serial} → 200")
        return answer

    async def register(self, device: DeviceHost) -> None:
        """Make the device known."""
        answer = await self._api.register(device.serial, model="bota_pin", name=None, firmware_version="1.4.2")
        device.id = answer["id"]

    async def provision(self, device: DeviceHost, *, supersede: bool = False, lost: bool = False) -> None:
        """Bind, and bring the binding to the device; one that is paired still is reset by hand for that."""
        if supersede:
            self._world.model.cancelled_devices.add(self._world.pk(device))
        began = self._world.loop.time()
        binding = await self._api.bind(device.id, "eu_1", supersede_reset=supersede)
        self._world.record_token(binding.device_token, device)
        if self._world.homes is not None:
            self._world.homes.check_told(self._world.pk(device), binding.mqtt.host, began)
        is_synced = binding.device_token not in self._api.unsynced
        await check_bind(self._world, device.id, binding, began, is_synced=is_synced)
        self._world.log("operator", f"bind {device.serial} → 200", generation=binding.generation, lost=lost)
        self._check_old_reset_cleared(device, binding, began)
        if not lost:
            await self._hand_binding_to_device(device, binding)

    def _check_old_reset_cleared(self, device: DeviceHost, binding: Binding, began: float) -> None:
        """Before the new token is answered (contract, section 4); a broker that lost its memory since is no witness.

        Where another caller has ended that binding before it was answered, the token opens nothing.
        """
        world = self._world
        row = world.row("SELECT binding_generation FROM devices WHERE id = ?", device.id)
        if row is None or row["binding_generation"] != binding.generation:
            return
        for broker in awaited_brokers(world, began):
            held = broker.retained.get(f"devices/{device.id}/commands/{RESET}")
            remembers = world.loop.time() - broker.restarted_at > _MENDING_SECONDS
            # By a restore: no new binding obeys it.
            fenced = held is not None and json.loads(held)["id"] in world.model.lost_commands
            if held is not None and not fenced and remembers and world.open_command(device) is None:
                world.model.violate(3, "an old reset is cleared before the new token is answered", device.serial)
        world.check()

    async def _hand_binding_to_device(self, device: DeviceHost, binding: Binding) -> None:
        if not device.is_on:
            device.switch_on()
        if device.is_paired:
            self._world.log("operator", f"reset {device.serial} by hand, to pair it anew")
            device.reset_by_hand()
            await asyncio.sleep(0)
        device.provision(binding)

    async def erase(self, *, unbind: bool) -> None:
        """Erase the person to whom every device is bound; nothing is erased while one still is."""
        for device in self._world.devices if unbind else ():
            with suppress(SimulatorError):
                await self._post(device, "unbind")
        row = self._world.row("SELECT coalesce(max(seq), 0) AS newest FROM events")
        answer = await self._api.call("DELETE", f"/v1/end-users/{person_laws.PERSON}")
        self._world.log("operator", f"DELETE the person → {answer['status']}", counts=answer["counts"])
        if answer["status"] == "finished" and row is not None:
            for finding in person_laws.check_erased(self._world.disk, row["newest"]):
                self._world.model.violate(*finding)
            self._world.check()

    async def unbind(self, device: DeviceHost) -> None:
        """End the binding."""
        await self._post(device, "unbind")

    async def reset(self, device: DeviceHost, *, tries: int = 1, recordings: str | None = None) -> None:
        """Ask for a reset, again with the same Idempotency-Key until an answer arrives."""
        idempotency_key, since = f"{device.serial}-{self._world.loop.time()}", self._world.model.commits
        body = b"{}" if recordings is None else json.dumps({"recordings": recordings}).encode()
        for _ in range(tries):
            try:
                status, _ = await self._api.exchange(
                    "POST", f"/v1/devices/{device.id}/reset", body, self._world.key, idempotency_key=idempotency_key
                )
            except SimulatorError:
                await asyncio.sleep(_TRY_AGAIN_SECONDS)
                continue
            self._world.log("operator", f"POST reset of {device.serial} → {status}")
            if status == 200:
                self._world.model.record_answered_reset(self._world.pk(device), since)
                self._world.check()
            return

    async def bulk_reset(self, *, devices: list[int]) -> None:
        """Ask for the reset of several."""
        since = self._world.model.commits
        targets = [self._world.devices[each] for each in devices]
        answer = await self._api.call("POST", "/v1/devices/bulk/reset", {"device_ids": [each.id for each in targets]})
        for each, outcome in zip(targets, answer["data"], strict=True):
            self._world.log("operator", f"bulk reset of {each.serial} → {outcome['outcome']}")
            if outcome["outcome"] in ("reset", "already_pending"):
                self._world.model.record_answered_reset(self._world.pk(each), since)
        self._world.check()

    async def bulk_cancel(self, *, devices: list[int]) -> None:
        """Take back the resets of several, as far as they are not delivered."""
        targets = [self._world.devices[each] for each in devices]
        self._world.model.cancelled_devices.update(self._world.pk(each) for each in targets)
        opened = [self._world.open_command(each) for each in targets]
        began = self._world.loop.time()
        reported = [None if row is None else self._reported_status(row["id"], began) for row in opened]
        body = {"device_ids": [each.id for each in targets]}
        answer = await self._api.call("POST", "/v1/devices/bulk/reset/cancel", body)
        for each, outcome in zip(targets, answer["data"], strict=True):
            self._world.log("operator", f"bulk cancel of {each.serial} → {outcome['outcome']}")
        for each, outcome, row, status_before in zip(targets, answer["data"], opened, reported, strict=True):
            if outcome["outcome"] == "cancelled" and row is not None:
                self._check_not_cancelled_over(status_before, row["id"], each, began)

    def _reported_status(self, command_id: str, began: float) -> str | None:
        """What the device has said of this command, if a broker took it from the device for the gateway."""
        found = (broker.acknowledged_statuses for broker in awaited_brokers(self._world, began))
        acknowledged = set(chain.from_iterable(found))
        return next((each for each in ("executed", "delivered") if (command_id, each) in acknowledged), None)

    def _is_superseded(self, command_id: str) -> bool:
        """Return whether a bind has ended this reset, also after its `delivered`: a cancel then finds it final."""
        return any(
            what == "reset.superseded" and facts["command_id"] == command_id for _, _, what, facts in self._world.story
        )

    def _check_not_cancelled_over(
        self, reported: str | None, command_id: str, device: DeviceHost, began: float
    ) -> None:
        """What the broker held before the request counts, unless it has lost that since (contract, section 2)."""
        if reported is not None and self._reported_status(command_id, began) is not None:
            detail = f"{device.serial} had said {reported} before the cancel was asked for"
            self._world.model.violate(1, "a reset with an unread acknowledgement is not cancelled", detail)
            self._world.check()

    async def trespass(self, device: DeviceHost, *, verb: str) -> None:
        """Reach for a device of another project, with the key of this one and with a device's token."""
        binding = device.binding
        for secret in (self._world.key, *([] if binding is None else [binding.device_token])):
            method, _, what = verb.partition(" ")
            path = f"/v1/devices/{self._world.foreign_device_id}{what}"
            status, _ = await self._api.exchange(method, path, _BODIES.get(what, b"{}"), secret)
            if status < _REFUSED:
                self._world.model.violate(5, "no call reaches another project", f"{verb} → {status}")
        self._world.check()

    async def rotate_signing_key(self) -> None:
        """New bindings get another key; the old ones go on with theirs."""
        instance = self._world.host.instance
        if instance is not None:
            self._world.log("operator", "'gateway signing-keys rotate'")
            await asyncio.wait((instance.spawn(instance.store.write(grants.rotate)),))  # ends with the gateway, too

    async def deliver_key(self, *, rotate: bool = True) -> None:
        """Make a new signing key, or take the last one, and have bound devices take it."""

        def deliver(tx: Tx) -> None:
            if rotate:
                grants.rotate(tx)
            kid = grant_keys.start(tx)
            # It is for all projects, and the device of another project stays as it is: as if it had been asked.
            grant_key_sql.set_delivery(tx, DeliveryCursor(kid, max(self._world.model.foreign_devices)))

        instance = self._world.host.instance
        if instance is not None:
            self._world.log("operator", "'gateway signing-keys deliver'", rotate=rotate)
            await asyncio.wait((instance.spawn(instance.store.write(deliver)),))  # ends with the gateway, too

    async def cancel(self, device: DeviceHost) -> None:
        """Cancel the open reset, or else whatever is open."""
        row = self._world.open_command(device) or self._world.row(
            """SELECT id FROM commands WHERE status IN ('pending', 'delivered')
                AND device_pk = (SELECT pk FROM devices WHERE id = ?) LIMIT 1""",
            device.id,
        )
        if row is not None:
            self._world.model.cancelled_devices.add(self._world.pk(device))
            began = self._world.loop.time()
            reported = self._reported_status(row["id"], began)
            answer = await self._post(device, f"commands/{row['id']}/cancel")
            is_cancelled = answer["type"] == RESET and answer["status"] == "cancelled"
            if is_cancelled and not self._is_superseded(row["id"]):
                self._check_not_cancelled_over(reported, row["id"], device, began)

    async def command(self, device: DeviceHost, *, type: str, ttl: int) -> None:  # noqa: A002 - the contract's name
        """Queue another command."""
        await self._post(device, "commands", {"type": type, "ttl_seconds": ttl})

    async def delete(self, device: DeviceHost) -> None:
        """Take the device out of the fleet."""
        await self._api.call("DELETE", f"/v1/devices/{device.id}")
        self._world.log("operator", f"DELETE {device.serial} → 200")

    async def restore(self, device: DeviceHost) -> None:
        """Bring it back."""
        await self._post(device, "restore")

    async def refresh(self, device: DeviceHost, *, lost: bool = False) -> None:
        """The device asks for another token of its binding."""
        binding = device.binding
        if binding is None or not device.is_on:
            return
        began = self._world.loop.time()
        answer = await self._api.call("POST", "/v1/devices/me/token/refresh", {}, bearer=binding.device_token)
        if self._world.homes is not None:
            self._world.homes.check_told(self._world.pk(device), answer["mqtt"]["host"], began)
        self._world.record_token(answer["device_token"], device)
        self._world.log(device.serial, "has its token refreshed", lost=lost)
        if not lost and device.binding == binding:
            device.replace_token(answer["device_token"], answer["mqtt"])
            device.switch_off()
            device.switch_on()

    async def reset_by_hand(self, device: DeviceHost) -> None:
        """Hold the button of the device."""
        self._world.log("operator", f"reset {device.serial} by hand")
        device.reset_by_hand()

    async def reset_beside(self, device: DeviceHost) -> None:
        """The command line resets a device in the same registry, beside the running gateway."""
        world = self._world
        entropy = world.rng(f"beside {world.loop.time()}").randbytes
        ids = Ids(entropy)
        context = Context(world.host.rules, clock=world.clock, entropy=entropy, ids=ids)
        world.log("operator", f"'gateway devices reset {device.serial}'")
        world.disk.before_commit = lambda: None
        with suppress(GatewayError):
            transact(world.disk, context, lambda tx: devices.reset(tx, world.project_id, device.id, "key_local"))
            world.after_commit()
