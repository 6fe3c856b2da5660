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
from tests.simulation.broker_session import Packet
from tests.simulation.gateway_host import GatewayHost
from tests.simulation.intruder import IntruderKey
from tests.simulation.model_state import RESET
from tests.simulation.world import World

_INTRUDER = ClientIdentity(Role.GATEWAY, "gateway", None)


class FaultInjector:
    """Each method is a kind of step."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def do(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Carry out one step."""
        self._world.mark_disturbance()
        await getattr(self, kind)(**facts)
        self._world.mark_disturbance()

    def _host(self, gateway: str | int) -> GatewayHost:
        """The gateway of this number; "owner" or "fleet" for the one that serves the broker or works for all."""
        world = self._world
        if isinstance(gateway, int) and world.gateways:
            return world.gateways[gateway % len(world.gateways)]
        of_fleet = (each for each in world.gateways if gateway == "fleet" and each.is_fleet_worker)
        return next(of_fleet, world.host)

    async def kill(self, *, seam: str, passes: int, down: float, gateway: str | int = "owner") -> None:
        """Kill the gateway at the so-manieth pass of a seam from now, or after 3 s wherever it is; start it again."""
        host = self._host(gateway)
        instance = host.instance
        if instance is None:
            return
        instance.process.arm(seam, passes)
        for _ in range(30):
            await asyncio.sleep(0.1)  # virtual time: exact, and part of what the seed determines
            if instance.process.is_dead:
                break
        instance.process.kill("by kill -9")
        await self._restart_after(host, down)

    async def _restart_after(self, host: GatewayHost, down: float) -> None:
        self._world.mark_disturbance()
        await asyncio.sleep(down)
        host.start()

    async def stop(self, *, down: float, gateway: str | int = "owner") -> None:
        """Stop the gateway in order, and start it again."""
        host = self._host(gateway)
        await host.stop()
        await self._restart_after(host, down)

    async def backup(self) -> None:
        """Copy the registry; the last copy is the one that is restored."""
        self._world.log("operator", "'gateway backup'")
        self._world.take_backup()

    async def lose_registry(self, *, down: float) -> None:
        """The gateway dies with its disk; it comes back with the copy."""
        self._world.host.kill()
        self._world.log("operator", "'gateway restore'")
        self._world.restore()
        await self._restart_after(self._world.host, down)

    async def broker_restart(self, *, retained: str, keep_sessions: bool, down: float, broker: int = 0) -> None:
        """Kill a broker; it comes back with what it kept. The embedded one goes with the gateway."""
        if self._world.host.embedded:
            self._world.host.kill()
            await self._restart_after(self._world.host, down)
            return
        site = self._world.sites[broker % len(self._world.sites)]
        name = "broker" if site is self._world.sites[0] else site.id
        if not site.broker.up:
            return
        self._world.log(name, "is killed", retained=retained, keep_sessions=keep_sessions)
        started_at = site.broker.restarted_at
        site.broker.stop()
        await asyncio.sleep(down)
        if site.is_gone or site.broker.restarted_at != started_at:  # given up meanwhile, and perhaps back
            return
        site.broker.start(retained=retained, keep_sessions=keep_sessions)
        site.remembers = site.remembers and retained != "old"
        site.table.load_entries()
        self._world.log(name, "is back")

    async def cut(self, *, who: str | int, far_after: float) -> None:
        """Break a connection; the broker may notice later than the client."""
        for connection in self._connections(who):
            connection.cut("a cable was pulled", far_after=far_after)
            self._world.log("network", f"cuts {who}", far_after=far_after)

    async def stall(self, *, who: str | int, seconds: float) -> None:
        """Hold back what is sent from now on."""
        for connection in self._connections(who):
            connection.stall(seconds)
            self._world.log("network", f"stalls {who}", seconds=seconds)
        await asyncio.sleep(seconds)

    def _connections(self, who: str | int) -> list[Any]:
        if who == "gateway":
            instance = self._world.host.instance
            return (
                []
                if instance is None
                else [connection for connection in instance.process.connections if connection.is_open]
            )
        client = getattr(self._world.devices[int(who)].radio, "client", None)
        return [] if client is None else [client.connection]

    async def power_cut(self, *, device: int, before: str, off: float) -> None:
        """Cut a device's power before its next step of this name."""
        host = self._world.devices[device]
        host.power_cuts.append(before)
        host.off_seconds = off

    async def power_cut_after(self, *, device: int, actions: int, off: float) -> None:
        """Cut a device's power after so many steps."""
        host = self._world.devices[device]
        host.cut_after, host.off_seconds = actions, off

    async def unplug(self, *, device: int, off: float) -> None:
        """Cut a device's power now."""
        host = self._world.devices[device]
        self._world.log(host.serial, "is unplugged", seconds=off)
        host.switch_off()
        await asyncio.sleep(off)
        host.switch_on()

    async def disk_full(self, *, seconds: float) -> None:
        """No commit finds room for a while."""
        self._world.log("disk", "is full", seconds=seconds)
        self._world.disk.full = True
        await asyncio.sleep(seconds)
        self._world.disk.full = False
        self._world.log("disk", "has room again")

    async def disk_unreadable(self, *, seconds: float) -> None:
        """No read succeeds for a while, as with a disk that fails."""
        self._world.log("disk", "cannot be read", seconds=seconds)
        self._world.disk.unreadable = True
        await asyncio.sleep(seconds)
        self._world.disk.unreadable = False
        self._world.log("disk", "can be read again")

    async def clock(self, *, ms: int) -> None:
        """The gateway's clock is set."""
        self._world.clock_ahead_ms += ms
        self._world.log("clock", "is set", by_ms=ms)

    async def refuse(self, *, seconds: float) -> None:
        """The broker refuses what the gateway publishes on command topics (with a reason, so MQTT 5 only)."""
        if not self._world.broker.version_5:
            return
        self._world.log("broker", "refuses the gateway's commands", seconds=seconds)
        self._world.broker.refuses_topic = lambda topic: matches("devices/+/commands/+", topic)
        await asyncio.sleep(seconds)
        self._world.broker.refuses_topic = lambda topic: False  # noqa: ARG005 - the form is the point
        self._world.log("broker", "refuses nothing any more")

    async def forge_key(self, *, device: int) -> None:
        """Publish an announcement of an intruder's key, signed with that key, and one of the gateway with that key."""
        host, intruder = self._world.devices[device], IntruderKey()
        topic = f"devices/{host.id}/commands/set_grant_key"
        forged = [intruder.announcement(host.id, 0 if host.binding is None else host.binding.generation)]
        forged += [intruder.put_into(payload) for payload in self._world.published.get(topic, ())[-1:]]
        for payload in forged if self._world.broker.up else ():
            self._world.altered_commands.add(json.loads(payload)["id"])
            self._world.log("intruder", "announces a key", command=json.loads(payload)["id"])
            self._world.broker.inject(_INTRUDER, topic, payload, retain=False)

    async def forge_ack(self, *, device: int, status: str, signed: bool = True, type: str = RESET) -> None:  # noqa: A002
        """Publish a false acknowledgement in the device's name, with an invalid receipt or without one."""
        host = self._world.devices[device]
        row = self._world.open_command(host, type)
        if row is None or not self._world.broker.up:
            return
        body = {"command_id": row["id"], "status": status}
        if signed:
            body["receipt"] = "AAAA" * 10 + "AAA"
        topic = f"devices/{host.id}/commands/{type}/ack"
        self._world.log("intruder", f"forges '{status}'", command=row["id"])
        self._world.broker.inject(_INTRUDER, topic, json.dumps(body).encode(), retain=False)

    async def withhold(self, *, device: int, seconds: float) -> None:
        """Let the broker withhold a device's commands for a while."""
        await self._tamper(device, seconds, "withholds commands", lambda packet: None)  # noqa: ARG005 - the form

    async def alter(self, *, device: int, seconds: float) -> None:
        """Let the broker change the params of a device's commands for a while; the grants stay good."""

        def changed(packet: Packet) -> Packet:
            if not packet.payload:
                return packet
            command = json.loads(packet.payload)
            self._world.altered_commands.add(command["id"])
            choice = "keep" if command["params"].get("recordings") == "wipe" else "wipe"
            command["params"] = {**command["params"], "recordings": choice}
            return replace(packet, payload=json.dumps(command).encode())

        await self._tamper(device, seconds, "alters params", changed)

    async def _tamper(self, device: int, seconds: float, what: str, change: Callable[[Packet], Packet | None]) -> None:
        topics = f"devices/{self._world.devices[device].id}/commands/+"
        self._world.log("broker", what, seconds=seconds)
        self._world.broker.tamper = lambda packet: change(packet) if matches(topics, packet.topic) else packet
        await asyncio.sleep(seconds)
        self._world.broker.tamper = lambda packet: packet
        self._world.log("broker", "is honest again")

    async def replay(self, *, device: int, type: str = RESET) -> None:  # noqa: A002 - the contract's name
        """Send the device an old command again, as another client or a broker with an old store can."""
        host = self._world.devices[device]
        topic = f"devices/{host.id}/commands/{type}"
        old = self._world.published.get(topic, ())
        if old and self._world.broker.up:
            payload = self._world.rng(f"replay {self._world.loop.time()}").choice(old)
            self._world.log("intruder", f"hands over an old {type} again", command=json.loads(payload)["id"])
            self._world.broker.inject(_INTRUDER, topic, payload, retain=False)
