"""A bound device with the simulator's firmware beside a registry, and what travels between the two."""

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from device_sim.actions import CommandReceived
from device_sim.binding import Binding, Endpoint
from device_sim.device import State
from gateway.core.command_types import CommandType
from gateway.domain import administration, epoch, grant_keys, grants
from gateway.mqtt.publisher import payload
from gateway.store import command_sql, device_sql, token_sql
from gateway.store.command_sql import CommandRecord
from tests.device_sim.firmware_bench import FirmwareBench, link_up, online_bench
from tests.device_sim.support import Signer
from tests.domain.support import World

SET_GRANT_KEY = CommandType.SET_GRANT_KEY


@dataclass
class KeyChangeBench:
    """Registry and device. ``read`` counts the messages of the device that the gateway has processed."""

    world: World
    id: str
    bench: FirmwareBench
    read: int = 0
    opened: int = field(default=0)

    @classmethod
    def bound(cls, world: World, serial_number: str = "SN-1") -> "KeyChangeBench":
        """Register a device, bind it and bring it online."""
        device_id = world.register(serial_number)
        answer = world.bind(device_id)
        generation = answer.device.binding_generation
        key = answer.grant_key.model_dump()
        binding = Binding(device_id, generation, answer.device_token, key, Endpoint("127.0.0.1", 1883), "eu_1")
        return cls(world, device_id, online_bench(Signer(), binding=binding))

    # --- what travels -------------------------------------------------------------------------------------------------

    def deliver(self) -> list[CommandRecord]:
        """Give the device each open command, as a broker does after a connect."""
        if self.bench.device.state is State.PROVISIONED:
            link_up(self.bench)
        found = command_sql.open_of_device(self.world.view, self.pk)
        for command in found:
            self.feed(command)
        return found

    def feed(self, command: CommandRecord) -> None:
        """Give the device one command, as this record has it."""
        self.bench.feed(CommandReceived(command.type, payload(command)))

    def process_device_messages(self) -> None:
        """Let the gateway process what the device said since."""
        said, self.read = self.bench.sent[self.read :], len(self.bench.sent)
        for each in said:
            if each.kind == "ack":
                topic = self.world.names.ack(self.id, str(each.command_type))
                assert self.world.say(topic, each.payload) is None, each.payload

    def exchange(self) -> None:
        """Deliver and listen until nothing is open."""
        for _ in range(10):
            if not self.deliver():
                return
            self.process_device_messages()
        raise AssertionError("a command stays open")

    # --- what is known ------------------------------------------------------------------------------------------------

    @property
    def pk(self) -> int:
        """The row number of the device."""
        return self.world.record(self.id).pk

    @property
    def signer(self) -> str:
        """The key with which the gateway signs for this device."""
        (kid,) = {each.grant_kid for each in token_sql.live(self.world.view, self.pk)}
        return kid

    @property
    def obeys(self) -> list[str]:
        """The keys in the device's flash, the newest first."""
        binding = Binding.from_flash(self.bench.flash.wiped_area)
        return [] if binding is None else [str(key["kid"]) for key in binding.grant_keys]

    @property
    def said(self) -> dict[str, Any]:
        """The newest acknowledgement of the device."""
        newest: dict[str, Any] = json.loads(self.bench.payloads("ack")[-1])
        return newest

    def statuses(self, kind: str = SET_GRANT_KEY) -> list[str]:
        """The status of each command of this type, the oldest first."""
        rows = self.world.view.all(
            "SELECT status FROM commands WHERE device_pk = ? AND type = ? ORDER BY id", self.pk, kind
        )
        return [row["status"] for row in rows]


def rotate(world: World) -> tuple[str, str]:
    """Make a new signing key; the old one and the new one."""
    retired, kid = world.run(lambda tx: administration.rotate_signing_key(tx, "cli"))
    assert retired is not None
    return retired, kid


def deliver_key(world: World, limit: int = 100) -> int:
    """Start the delivery of the key in use, and ask all devices; how many that were."""
    world.run(administration.deliver_signing_key, "cli")
    return ask_all(world, limit)


def ask_all(world: World, limit: int = 100) -> int:
    """Ask the devices that are left to ask."""
    asked = 0
    while grant_keys.running(world.view) is not None:
        asked += world.run(grant_keys.ask_next, limit)
    return asked


def signed_with(world: World, kid: str, command: CommandRecord) -> CommandRecord:
    """The command with a grant by another key of the registry."""
    device = device_sql.by_pk(world.view, command.device_pk)
    grant = world.run(grants.sign_again, device, command, seq=command.seq, expires_at=command.expires_at, kid=kid)
    return command._replace(grant_token=grant)


def snapshot(world: World) -> sqlite3.Connection:
    """Copy the registry, as a backup does."""
    copy = sqlite3.connect(":memory:")
    world.connection.backup(copy)
    return copy


def restore(world: World, copy: sqlite3.Connection) -> None:
    """Put a copy in the place of the registry, as ``gateway restore`` does."""
    copy.backup(world.connection)
    world.run(epoch.begin, epoch.RESTORED)
