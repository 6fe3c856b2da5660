"""Faults of power, disk, clock, network and broker, and messages by other clients that can publish there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gateway.broker.access_rules import Role
from gateway.broker.embedded.session import ClientIdentity
from gateway.mqtt.retained_scan import matches
from tests.simulation.broker import Packet
from tests.simulation.model_state import RESET
from tests.simulation.world import World

_STRANGER = ClientIdentity(Role.GATEWAY, "gateway", None)


class Trouble:
    """Each method is a kind of step."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def do(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Carry out one step."""
        self._world.disturb()
        await getattr(self, kind)(**facts)
        self._world.disturb()

    async def kill(self, *, seam: str, passes: int, down: float) -> None:
        """Kill the gateway at the so-manieth pass of a seam from now, or after 3 s wherever it is; start it again."""
        life = self._world.host.life
        if life is None:
            return
        life.process.arm(seam, passes)
        for _ in range(30):
            await asyncio.sleep(0.1)
            if life.process.dead:
                break
        life.process.die("by kill -9")
        await self._back(down)

    async def _back(self, down: float) -> None:
        self._world.disturb()
        await asyncio.sleep(down)
        self._world.host.start()

    async def stop(self, *, down: float) -> None:
        """Stop the gateway in order, and start it again."""
        await self._world.host.stop()
        await self._back(down)

    async def backup(self) -> None:
        """Copy the registry; the last copy is the one that is restored."""
        self._world.tell("people", "'gateway backup'")
        self._world.take_backup()

    async def lose_registry(self, *, down: float) -> None:
        """The gateway dies with its disk; it comes back with the copy."""
        self._world.host.kill()
        self._world.tell("people", "'gateway restore'")
        self._world.restore()
        await self._back(down)

    async def broker_restart(self, *, retained: str, keep_sessions: bool, down: float) -> None:
        """Kill the broker; it comes back with what it kept. The embedded one goes with the gateway."""
        if self._world.host.embedded:
            self._world.host.kill()
            await self._back(down)
            return
        if not self._world.broker.up:
            return
        self._world.tell("broker", "is killed", retained=retained, keep_sessions=keep_sessions)
        self._world.broker.stop()
        await asyncio.sleep(down)
        self._world.broker.start(retained=retained, keep_sessions=keep_sessions)
        self._world.host.table.take_up()
        self._world.tell("broker", "is back")

    async def cut(self, *, who: str | int, far_after: float) -> None:
        """Break a connection; the broker may notice later than the client."""
        for line in self._lines(who):
            line.cut("a cable was pulled", far_after=far_after)
            self._world.tell("network", f"cuts {who}", far_after=far_after)

    async def stall(self, *, who: str | int, seconds: float) -> None:
        """Hold back what is sent from now on."""
        for line in self._lines(who):
            line.stall(seconds)
            self._world.tell("network", f"stalls {who}", seconds=seconds)
        await asyncio.sleep(seconds)

    def _lines(self, who: str | int) -> list[Any]:
        if who == "gateway":
            life = self._world.host.life
            return [] if life is None else [line for line in life.process.lines if line.whole]
        client = getattr(self._world.devices[int(who)].radio, "client", None)
        return [] if client is None else [client.line]

    async def power_cut(self, *, device: int, before: str, off: float) -> None:
        """Cut a device's power before its next step of this name."""
        host = self._world.devices[device]
        host.cuts.append(before)
        host.off_seconds = off

    async def power_cut_after(self, *, device: int, actions: int, off: float) -> None:
        """Cut a device's power after so many steps."""
        host = self._world.devices[device]
        host.cut_after, host.off_seconds = actions, off

    async def unplug(self, *, device: int, off: float) -> None:
        """Cut a device's power now."""
        host = self._world.devices[device]
        self._world.tell(host.serial, "is unplugged", seconds=off)
        host.switch_off()
        await asyncio.sleep(off)
        host.switch_on()

    async def disk_full(self, *, seconds: float) -> None:
        """No commit finds room for a while."""
        self._world.tell("disk", "is full", seconds=seconds)
        self._world.disk.full = True
        await asyncio.sleep(seconds)
        self._world.disk.full = False
        self._world.tell("disk", "has room again")

    async def disk_unreadable(self, *, seconds: float) -> None:
        """No read succeeds for a while, as with a disk that fails."""
        self._world.tell("disk", "cannot be read", seconds=seconds)
        self._world.disk.unreadable = True
        await asyncio.sleep(seconds)
        self._world.disk.unreadable = False
        self._world.tell("disk", "can be read again")

    async def clock(self, *, ms: int) -> None:
        """The gateway's clock is set."""
        self._world.clock_ahead_ms += ms
        self._world.tell("clock", "is set", by_ms=ms)

    async def refuse(self, *, seconds: float) -> None:
        """The broker refuses what the gateway publishes on command topics (with a reason, so MQTT 5 only)."""
        if not self._world.broker.version_5:
            return
        self._world.tell("broker", "refuses the gateway's commands", seconds=seconds)
        self._world.broker.refusing = lambda topic: matches("devices/+/commands/+", topic)
        await asyncio.sleep(seconds)
        self._world.broker.refusing = lambda topic: False  # noqa: ARG005 - the form is the point
        self._world.tell("broker", "refuses nothing any more")

    async def forge_ack(self, *, device: int, status: str, signed: bool = True) -> None:
        """Publish a false acknowledgement in the device's name, with an invalid receipt or without one."""
        host = self._world.devices[device]
        row = self._world.open_command(host)
        if row is None or not self._world.broker.up:
            return
        body = {"command_id": row["id"], "status": status}
        if signed:
            body["receipt"] = "AAAA" * 10 + "AAA"
        topic = f"devices/{host.id}/commands/factory_reset/ack"
        self._world.tell("stranger", f"forges '{status}'", command=row["id"])
        self._world.broker.inject(_STRANGER, topic, json.dumps(body).encode(), retain=False)

    async def withhold(self, *, device: int, seconds: float) -> None:
        """Let the broker withhold a device's commands for a while."""
        await self._tamper(device, seconds, "withholds commands", lambda packet: None)  # noqa: ARG005 - the form

    async def alter(self, *, device: int, seconds: float) -> None:
        """Let the broker change the params of a device's commands for a while; the grants stay good."""

        def changed(packet: Packet) -> Packet:
            if not packet.payload:
                return packet
            said = json.loads(packet.payload)
            self._world.altered.add(said["id"])
            said["params"] = {**said["params"], "recordings": "wipe"}
            return replace(packet, payload=json.dumps(said).encode())

        await self._tamper(device, seconds, "alters params", changed)

    async def _tamper(self, device: int, seconds: float, what: str, change: Callable[[Packet], Packet | None]) -> None:
        topics = f"devices/{self._world.devices[device].id}/commands/+"
        self._world.tell("broker", what, seconds=seconds)
        self._world.broker.tampering = lambda packet: change(packet) if matches(topics, packet.topic) else packet
        await asyncio.sleep(seconds)
        self._world.broker.tampering = lambda packet: packet
        self._world.tell("broker", "is honest again")

    async def replay(self, *, device: int, type: str = RESET) -> None:  # noqa: A002 - the contract's name
        """Send the device an old command again, as another client or a broker with an old store can."""
        host = self._world.devices[device]
        topic = f"devices/{host.id}/commands/{type}"
        old = self._world.sent.get(topic, ())
        if old and self._world.broker.up:
            payload = self._world.rng(f"replay {self._world.loop.time()}").choice(old)
            self._world.tell("stranger", f"hands over an old {type} again", command=json.loads(payload)["id"])
            self._world.broker.inject(_STRANGER, topic, payload, retain=False)
