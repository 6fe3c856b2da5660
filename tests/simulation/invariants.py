"""Checks of broker, HTTP API and devices from outside, during a run and at its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import chain
from typing import Final

from device_sim.device import State
from device_sim.wire import mqtt_password
from gateway.mqtt.retained_scan import matches
from gateway.store import View, token_sql
from tests.simulation import certificate_laws, job_history, person_laws
from tests.simulation.broker_laws import find_wrong_statuses
from tests.simulation.broker_sites import BrokerSite
from tests.simulation.device_host import DeviceHost
from tests.simulation.gateway_host import GATEWAY_ID
from tests.simulation.integrator import Finding
from tests.simulation.key_checks import check_failed_grants, check_keys, check_old_keys
from tests.simulation.world import World

CHECK_INTERVAL_SECONDS: Final = 0.5
STEADY_SECONDS: Final = 5.0
"""Contract, sections 3 and 4: put right within 5 s of the reconnect."""
CUT_SECONDS: Final = 1.0
"""Contract, section 1: a live session of a revoked token is closed within 1 s."""
_COMMANDS: Final = "devices/+/commands/+"
_NO_TURN: Final = 0


class InvariantChecker:
    """``watch`` is a task; ``check_at_rest`` checks the end."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._differing: dict[str, dict[tuple[str, str, str], float]] = {}
        self._chance = world.rng("checks")

    async def watch(self) -> None:
        """Check twice a second."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
            for site in self._world.sites:
                self._check_retained_commands(site)
                self._check_revoked_sessions(site)
            self._check_keys()
            await self._check_cluster()
            self._world.check()

    async def _check_cluster(self) -> None:
        world = self._world
        if world.cluster is not None:
            world.cluster.check_owners()
            if world.homes is not None:
                world.homes.watch({site.id: self._undisturbed_seconds(site) for site in world.sites})
            await world.cluster.read_events(self._chance.choice(world.gateways))

    # --- invariant 3 --------------------------------------------------------------------------------------------------

    def _retained_differences(self, site: BrokerSite) -> set[tuple[str, str, str]]:
        """Topic, command that should lie there, command that does."""
        rows = self._world.rows(
            """SELECT d.id AS device_id, c.type, c.id, coalesce(o.not_before, 0) AS turn FROM commands c
                JOIN devices d ON d.pk = c.device_pk
                LEFT JOIN brokers b ON b.id = ?
                LEFT JOIN outbox o ON o.kind = 'command' AND o.device_pk = c.device_pk AND o.detail = c.type
                    AND o.broker_pk = coalesce(b.pk, 1)
                WHERE c.status IN ('pending', 'delivered')
                    AND NOT EXISTS (SELECT 1 FROM homes h WHERE h.device_pk = c.device_pk AND h.broker_pk <> b.pk)""",
            site.id,
        )
        wanted = {f"devices/{row['device_id']}/commands/{row['type']}": row for row in rows}
        held = {
            topic: json.loads(payload)["id"]
            for topic, payload in site.broker.retained.items()
            if matches(_COMMANDS, topic)
        }
        found = set()
        for topic in wanted.keys() | held.keys():
            row, held_id = wanted.get(topic), held.get(topic, "")
            if (row["id"] if row else "") != held_id and not (row and row["turn"] > _NO_TURN):
                found.add((topic, row["id"] if row else "", held_id))
        return found

    def _undisturbed_seconds(self, site: BrokerSite) -> float:
        """For how long the gateway of this broker has been connected and nothing was wrong; seconds."""
        world = self._world
        is_working = self._is_connected() if world.cluster is None else site.is_served
        if not is_working or world.disk.full or world.disk.unreadable or not site.broker.up:
            site.disturbed_at = world.loop.time()
        return world.loop.time() - site.disturbed_at

    def _is_connected(self) -> bool:
        instance = self._world.host.instance
        return instance is not None and bool(instance.connection.status.connected)

    def _check_retained_commands(self, site: BrokerSite) -> None:
        now, undisturbed = self._world.loop.time(), self._undisturbed_seconds(site)
        before = self._differing.get(site.id, {})
        differing_since = {each: before.get(each, now) for each in sorted(self._retained_differences(site))}
        self._differing[site.id] = differing_since
        for (topic, wanted, held_id), first in differing_since.items():
            if min(undisturbed, now - first) > STEADY_SECONDS:
                detail = f"{topic} holds {held_id or 'nothing'} and should hold {wanted or 'nothing'}, for 5 s now"
                detail += "" if site is self._world.sites[0] else f" at {site.id}"
                self._world.model.violate(3, "retained messages are the open commands", detail)

    # --- invariant 5 --------------------------------------------------------------------------------------------------

    def _check_revoked_sessions(self, site: BrokerSite) -> None:
        now, model = self._world.loop.time(), self._world.model
        for name, identity in site.broker.live().items():
            revoked = None if identity.token_id is None else model.revoked_at.get(identity.token_id)
            if revoked is None or self._world.disk.full or self._world.disk.unreadable:
                continue
            if now - max(revoked, site.disturbed_at) > CUT_SECONDS:
                self._world.model.violate(5, "a revoked token's session is cut", f"{name} is at {site.id} still")

    # --- invariants 1 and 2 -------------------------------------------------------------------------------------------

    def _check_keys(self) -> None:
        for finding in check_keys(self._world):
            self._world.model.violate(*finding)

    # --- when all has come to rest ------------------------------------------------------------------------------------

    async def check_at_rest(self, unfinished: list[Finding]) -> None:
        """All is mended and quiet: now everything must have come to its end."""
        await self._check_queue_empty()
        for finding in (
            *unfinished,
            *check_keys(self._world),
            *check_failed_grants(self._world),
            *check_old_keys(self._world),
            *certificate_laws.check_chains(self._world.disk),
            *person_laws.check_at_rest(self._world.disk),
            *self._world.jobs.check_at_rest(self._world.disk),
            *(() if self._world.cluster is None else self._world.cluster.check_events()),
            *(() if self._world.homes is None else self._world.homes.check_at_rest()),
        ):
            self._world.model.violate(*finding)
        for device in self._world.devices:
            self._world.recordings.check_wiped(device)
        self._world.check()
        await self._check_tokens()  # last: a request with a token is its first use
        self._world.check()

    def find_unfinished(self) -> list[Finding]:
        """What has yet to come to its end; invariant, law and detail, as if it never did."""
        mirrored = [site for site in self._world.sites if self._world.host.rules.mirrored and not site.is_gone]
        return [
            *chain.from_iterable(site.integrator.find_violations() for site in mirrored),
            *find_wrong_statuses(self._world),
            *self._wrong_presence(),
            *self._lost_resets(),
            *self._open_fetchable_commands(),
            *self._unreported_wipes(),
            *self._devices_without_valid_token(),
            *self._replaced_live_tokens(),
            *job_history.find_unfinished(self._world.disk, self._world.clock()),
        ]

    async def _check_tokens(self) -> None:
        """Each token opens over HTTP what its state says, and at the broker."""
        world = self._world
        for secret, device_id in world.tokens.items():
            row = token_sql.by_secret(View(world.disk), secret)
            state = "revoked" if row is None else row.state
            pending, _ = await world.api.exchange("GET", "/v1/devices/me/commands/pending", b"", secret)
            if (pending == 200) != (state == "active"):
                world.model.violate(
                    5, "the rights of a token follow from its state", f"{device_id}, {state}: GET → {pending}"
                )
            if await self._admits(device_id, secret):
                world.model.violate(5, "the broker refuses tokens as passwords", f"{device_id}, {state}")
            if state == "revoked":
                heartbeat, _ = await world.api.exchange("POST", "/v1/devices/me/heartbeat", b"{}", secret)
                if heartbeat != 401 or await self._admits(device_id, mqtt_password(secret)):
                    world.model.violate(5, "a revoked token opens nothing", f"{device_id}: heartbeat → {heartbeat}")

    async def _admits(self, device_id: str, password: str) -> bool:
        brokers = [site.broker for site in self._world.sites if not site.is_gone]
        admitted = [each.admit and await each.admit(device_id, device_id, password) for each in brokers]
        return any(admitted)

    def _lost_resets(self) -> Iterator[Finding]:
        for command_id in self._world.model.accepted_resets:
            if self._world.command(command_id) is None:
                yield 1, "an accepted reset is not lost", f"{command_id} is not there any more"

    def _open_fetchable_commands(self) -> Iterator[Finding]:
        """Nothing that a device could have fetched is open any more (invariant 1)."""
        world = self._world
        for device in world.devices:
            if device.kind == "ble" or _state(world, device) not in ("active", "reset_only"):
                continue
            for row in world.rows(
                "SELECT * FROM commands WHERE device_pk = ? AND status IN ('pending', 'delivered')", world.pk(device)
            ):
                detail = f"{row['id']} ({row['type']}) is {row['status']}, and {device.serial} is there and could obey"
                yield 1, "fetchable commands end", detail

    def _unreported_wipes(self) -> Iterator[Finding]:
        """A device that is back has reported the outcome of its reset."""
        for device in self._world.devices:
            if _state(self._world, device) == "active" and self._is_unreported(device):
                yield (
                    1,
                    "a wipe is reported in the end",
                    f"{device.serial} was wiped for {device.wiped_for_command}, nobody knows",
                )

    def _wrong_presence(self) -> Iterator[Finding]:
        for device in self._world.devices:
            row = self._world.row("SELECT connection FROM health WHERE device_pk = ?", self._world.pk(device))
            is_heard = device.firmware.state is State.ONLINE and _state(self._world, device) == "active"
            if is_heard and (row is None or row["connection"] != "online"):
                yield 6, "a device with recent heartbeats is online", f"{device.serial} is offline, they say"

    def _is_unreported(self, device: DeviceHost) -> bool:
        """Return whether the registry knows of no report of its last wipe, not even of a late one."""
        if device.wiped_for_command is None or device.wiped_for_command in self._world.model.lost_commands:
            return False
        row = self._world.command(device.wiped_for_command)
        return row is None or not (row["status"] == "executed" or '"executed"' in (row["result"] or ""))

    def _devices_without_valid_token(self) -> Iterator[Finding]:
        """A device can use the token that it holds, of its binding or for the reset that waits for it.

        Whether a newer one was used is only the registry's view, so that does not count: the device holds the newest
        that it ever got.
        """
        world = self._world
        for device in world.devices:
            binding = device.binding
            row = None if binding is None else world.row("SELECT * FROM devices WHERE id = ?", device.id)
            if binding is None or row is None or _state(world, device) != "revoked":
                continue
            waits = world.row(
                """SELECT 1 FROM commands WHERE device_pk = ? AND type = 'factory_reset' AND status = 'pending'
                    AND binding_generation = ?""",
                row["pk"],
                binding.generation,
            )
            if waits or (row["bound_at"] is not None and binding.generation == row["binding_generation"]):
                yield 5, "a lost answer locks out no device", f"{device.serial}: the token that it holds is revoked"

    def _replaced_live_tokens(self) -> Iterator[Finding]:
        """A device that uses the newest token of its binding has ended the one before (contract, section 2)."""
        world = self._world
        for device in world.devices:
            binding = device.binding
            row = None if binding is None else token_sql.by_secret(View(world.disk), binding.device_token)
            if row is None or device.kind == "ble" or device.firmware.state is not State.ONLINE:
                continue
            if any(each.id < row.id for each in token_sql.live(View(world.disk), row.device_pk)):
                yield 5, "the first use of a new token ends the old one", f"{device.serial}: the old one is good still"

    async def _check_queue_empty(self) -> None:
        """The gateway has taken everything that each broker kept for it (invariant 4)."""
        waiting, brokers = 0, [site.broker for site in self._world.sites if not site.is_gone]
        for _ in range(20):  # a heartbeat may just be on its way
            found = (each.sessions.get(GATEWAY_ID) for each in brokers)
            waiting = sum(len(session.queue) + len(session.inflight) for session in found if session is not None)
            if not waiting:
                return
            await asyncio.sleep(0.1)  # virtual time: exact, and it takes no real time
        self._world.model.violate(4, "messages of devices are processed", f"{waiting} messages wait for the gateway")


def _state(world: World, device: DeviceHost) -> str:
    """What the token that the device holds opens."""
    binding = device.binding
    row = None if binding is None else token_sql.by_secret(View(world.disk), binding.device_token)
    return "revoked" if row is None else str(row.state)
