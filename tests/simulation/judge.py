"""Looks at broker, doors and devices from outside, while a run goes on and when all has come to rest."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from device_sim.device import State
from gateway.mqtt.census import matches
from gateway.store import View, tokens
from simulation.device_host import DeviceHost
from simulation.gateway_host import GATEWAY_ID
from simulation.ghost import RESET
from simulation.world import World

LOOK_SECONDS: Final = 0.5
STEADY_SECONDS: Final = 5.0
"""Contract, sections 3 and 4: put right within 5 s of the reconnect."""
CUT_SECONDS: Final = 1.0
"""Contract, section 1: a live session of a revoked token is closed within 1 s."""
MENDING_SECONDS: Final = 12.0
"""After trouble the keeper may pause for up to 10 s between tries."""
_COMMANDS: Final = "devices/+/commands/+"
_NO_TURN: Final = 0


class Judge:
    """``watch`` is a task; ``rest`` judges the end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._differing: dict[tuple[str, str, str], float] = {}

    async def watch(self) -> None:
        """Look twice a second."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._broker_holds_the_open()
            self._no_revoked_session()
            self._world.check()

    # --- invariant 3 --------------------------------------------------------------------------------------------------

    def _differences(self) -> set[tuple[str, str, str]]:
        """Topic, command that should lie there, command that does."""
        rows = self._world.rows(
            """SELECT d.id AS device_id, c.type, c.id, coalesce(o.not_before, 0) AS turn FROM commands c
                JOIN devices d ON d.pk = c.device_pk
                LEFT JOIN outbox o ON o.kind = 'command' AND o.device_pk = c.device_pk AND o.detail = c.type
                WHERE c.status IN ('pending', 'delivered')"""
        )
        wanted = {f"devices/{row['device_id']}/commands/{row['type']}": row for row in rows}
        held = {
            topic: json.loads(payload)["id"]
            for topic, payload in self._world.broker.retained.items()
            if matches(_COMMANDS, topic)
        }
        found = set()
        for topic in wanted.keys() | held.keys():
            row, there = wanted.get(topic), held.get(topic, "")
            if (row["id"] if row else "") != there and not (row and row["turn"] > _NO_TURN):
                found.add((topic, row["id"] if row else "", there))
        return found

    def _connected_for(self) -> float:
        """For how long the gateway has been connected and nothing was wrong; seconds."""
        world = self._world
        life = world.host.life
        if life is None or not life.connection.status.connected or world.disk.full or not world.broker.up:
            world.disturb()
        return world.loop.time() - world.disturbed_at

    def _broker_holds_the_open(self) -> None:
        now, calm = self._world.loop.time(), self._connected_for()
        since = {each: self._differing.get(each, now) for each in sorted(self._differences())}
        self._differing = since
        for (topic, wanted, there), first in since.items():
            if min(calm, now - first) > STEADY_SECONDS:
                detail = f"{topic} holds {there or 'nothing'} and should hold {wanted or 'nothing'}, for 5 s now"
                self._world.ghost.violate(3, "retained messages are the open commands", detail)

    # --- invariant 5 --------------------------------------------------------------------------------------------------

    def _no_revoked_session(self) -> None:
        now, ghost = self._world.loop.time(), self._world.ghost
        for name, identity in self._world.broker.live().items():
            revoked = None if identity.token_id is None else ghost.revoked_at.get(identity.token_id)
            if revoked is None or self._world.disk.full:
                continue
            mended = self._world.disturbed_at + MENDING_SECONDS if self._world.disturbed_at else 0.0
            if now - max(revoked, mended) > CUT_SECONDS:
                self._world.ghost.violate(5, "a revoked token's session is cut", f"{name} is connected still")

    async def rest(self) -> None:
        """All is mended and quiet: now everything must have come to its end."""
        for look in (self._queues, self._resets, self._words, self._doors):  # the doors last: knocking is a first use
            await look()
            self._world.check()

    async def _doors(self) -> None:
        """Each token opens over HTTP what its state says, and at the broker."""
        world = self._world
        for secret, device_id in world.secrets.items():
            row = tokens.by_secret(View(world.disk), secret)
            state = "revoked" if row is None else row["state"]
            pending, _ = await world.api.exchange("GET", "/v1/devices/me/commands/pending", b"", secret)
            if (pending == 200) != (state == "active"):
                world.ghost.violate(5, "a token opens what its state says", f"{device_id}, {state}: GET → {pending}")
            if state == "revoked":
                beat, _ = await world.api.exchange("POST", "/v1/devices/me/heartbeat", b"{}", secret)
                admitted = await world.broker.admit(device_id, device_id, secret) if world.broker.admit else None
                if beat != 401 or admitted is not None:
                    world.ghost.violate(5, "a revoked token opens nothing", f"{device_id}: heartbeat → {beat}")

    async def _resets(self) -> None:
        """Nothing that a device could have fetched is open any more (invariant 1)."""
        world = self._world
        for command_id in world.ghost.accepted:
            if world.command(command_id) is None:
                world.ghost.violate(1, "an accepted reset is not lost", f"{command_id} is not there any more")
        for device in world.devices:
            binding = device.binding
            if binding is None or device.kind == "ble":
                continue
            token = tokens.by_secret(View(world.disk), binding.device_token)
            if token is None or token["state"] == "revoked":
                continue
            for row in world.rows(
                "SELECT * FROM commands WHERE device_pk = ? AND status IN ('pending', 'delivered')", world.pk(device)
            ):
                detail = f"{row['id']} ({row['type']}) is {row['status']}, and {device.serial} is there and could obey"
                world.ghost.violate(1, "what can be fetched comes to its end", detail)

    async def _words(self) -> None:
        """A device that is there again has told what became of its reset."""
        world = self._world
        for device in world.devices:
            if device.machine.state is not State.ONLINE or device.kind == "ble" or not _welcome(world, device):
                continue
            if device.last_command is not None:
                told = device.last_command["command_id"]
                world.ghost.violate(1, "a wipe is told in the end", f"{device.serial} still has to tell of {told}")
        for command_id in world.ghost.wiped:
            row = world.command(command_id)
            if row is None or row["type"] != RESET:
                world.ghost.violate(3, "nothing is done that was not committed", command_id)

    async def _queues(self) -> None:
        """The gateway has taken everything that the broker kept for it (invariant 4)."""
        waiting = 0
        for _ in range(20):  # a heartbeat may just be on its way
            session = self._world.broker.sessions.get(GATEWAY_ID)
            waiting = 0 if session is None else len(session.queue) + len(session.inflight)
            if not waiting:
                return
            await asyncio.sleep(0.1)
        self._world.ghost.violate(4, "what devices say is taken", f"{waiting} messages wait for the gateway")


def _welcome(world: World, device: DeviceHost) -> bool:
    binding = device.binding
    row = None if binding is None else tokens.by_secret(View(world.disk), binding.device_token)
    return row is not None and row["state"] == "active"
