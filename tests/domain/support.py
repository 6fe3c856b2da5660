"""A registry on disk for tests: a clock that the test moves, seeded randomness, and the verbs in short words."""

import base64
import hashlib
import hmac
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from gateway.core.command_types import CommandType
from gateway.core.ids import Ids
from gateway.core.topics import Topics
from gateway.domain import commands, device_updates, devices, messages
from gateway.domain.devices import NewBinding
from gateway.models.commands import CreateCommand
from gateway.models.devices import RegisterDevice, UpdateDevice
from gateway.store import (
    Context,
    Row,
    Rules,
    Tx,
    View,
    command_sql,
    device_sql,
    key_sql,
    open_database,
    token_sql,
    transact,
)
from gateway.store.command_sql import CommandRecord
from gateway.store.device_sql import DeviceRecord
from gateway.store.token_sql import TokenRecord
from tests.support.dump import dump

P = ParamSpec("P")
T = TypeVar("T")

NOON = 1_794_312_000_000
"""2026-11-10T12:00:00Z in milliseconds since the epoch: when every test begins."""
ACTOR = "gateway"

RESET = CommandType.FACTORY_RESET
GOLDEN = Path(__file__).parents[1] / "models" / "golden"


def golden(name: str) -> bytes:
    """The bytes of a golden file, without the newline at its end."""
    return (GOLDEN / name).read_bytes().rstrip(b"\n")


def seeded(seed: int) -> Callable[[int], bytes]:
    """Randomness that is the same in each run."""
    return random.Random(seed).randbytes  # noqa: S311 - tests want it to be predictable


def receipt(token: str, command_id: str, status: str, generation: int) -> str:
    """The receipt as firmware computes it, apart from the gateway's own code (contract, section 3)."""
    key = hashlib.sha256(token.encode()).digest()
    digest = hmac.new(key, f"{command_id}|{status}|{generation}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


MINUTE_MS = 60_000


class World:
    """A registry with one project. ``now`` is the time, in milliseconds since the epoch."""

    def __init__(self, data_dir: Path, *, seed: int = 1, rules: Rules | None = None) -> None:
        self.data_dir = data_dir
        self.now = NOON
        self.names = Topics()
        entropy = seeded(seed)
        self.context = Context(rules or Rules(), clock=lambda: self.now, entropy=entropy, ids=Ids(entropy))

    def __enter__(self) -> Self:
        self.connection = open_database(self.data_dir)
        self.view = View(self.connection)
        self.project_id = self.run(key_sql.create_project, "ward")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    def run(self, verb: Callable[Concatenate[Tx, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a verb in a separate transaction."""
        return transact(self.connection, self.context, lambda tx: verb(tx, *args, **kwargs))

    def dump(self, *without: str) -> list[str]:
        """Everything that lies in the database, but for these tables."""
        return dump(self.connection, without=without)

    # --- verbs --------------------------------------------------------------------------------------------------------

    def register(self, serial_number: str = "SN-1", **body: Any) -> str:
        """Register a device; its id."""
        asked = RegisterDevice(serial_number=serial_number, **body)
        device, _ = self.run(devices.register, self.project_id, asked, "key_1")
        return str(device.id)

    def bind(self, device_id: str, end_user_id: str = "eu_1") -> NewBinding:
        """Bind a device."""
        return self.run(devices.bind, self.project_id, device_id, end_user_id, "key_1")

    def bound(self, serial_number: str = "SN-1") -> tuple[str, str]:
        """A new device that is bound: its id and its token. The outbox is empty afterwards."""
        device_id = self.register(serial_number)
        token = self.bind(device_id).device_token
        self.settle()
        return device_id, token

    def unbind(self, device_id: str) -> DeviceRecord:
        """Unbind a device."""
        return self.run(devices.unbind, self.project_id, device_id, "key_1")

    def reset(self, device_id: str) -> CommandRecord:
        """Ask for a reset; the open command."""
        self.run(devices.reset, self.project_id, device_id, "key_1")
        return self.command(device_id)

    def delete(self, device_id: str) -> DeviceRecord:
        """Delete a device."""
        return self.run(devices.delete, self.project_id, device_id, "key_1")

    def restore(self, device_id: str) -> DeviceRecord:
        """Bring a deleted device back."""
        return self.run(devices.restore, self.project_id, device_id, "key_1")

    def update(self, device_id: str, **change: Any) -> DeviceRecord:
        """Change a device, by a body as JSON holds it."""
        body = UpdateDevice.model_validate_json(json.dumps(change))
        return self.run(device_updates.update, self.project_id, device_id, body, "key_1")

    def use(self, token: str) -> None:
        """The device shows a token: to the broker when it connects, or over HTTP."""
        self.run(devices.use, self.token(token).id)

    def refresh(self, device_id: str, token: str) -> str:
        """The device asks for another token with this one, a minute after it did last; the new one."""
        self.now += MINUTE_MS
        return self.run(devices.refresh, self.project_id, device_id, self.token(token).id).device_token

    def supersede(self, device_id: str) -> None:
        """Cancel an open reset permanently."""
        self.run(devices.supersede_reset, self.project_id, device_id, "key_1")

    def create(self, device_id: str, kind: str = "reboot", **body: Any) -> CommandRecord:
        """Queue a command."""
        asked = CreateCommand(type=CommandType(kind), **body)
        return self.run(lambda tx: commands.create(tx, self.device(device_id), asked, "key_1"))

    def cancel(self, device_id: str, command_id: str) -> CommandRecord:
        """Cancel a command."""
        return self.run(lambda tx: commands.cancel(tx, self.device(device_id), command_id, "key_1"))

    def say(self, topic: str, body: Any, *, retain: bool = False) -> messages.MessageResult | None:
        """A message comes from the broker; what the device is answered on its ``errors`` topic."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.run(messages.apply, messages.parse(self.names, messages.Message(topic, payload, retain)))

    def beat(self, device_id: str, **body: Any) -> messages.MessageResult | None:
        """A heartbeat comes in."""
        return self.say(self.names.heartbeat(device_id), body)

    def ack(
        self, command: CommandRecord, status: str, token: str | None = None, **body: Any
    ) -> messages.MessageResult | None:
        """The command's device acknowledges it, with a receipt if the device has a token to make it with."""
        device_id = device_sql.by_pk(self.view, command.device_pk).id
        if token is not None:
            body["receipt"] = receipt(token, command.id, status, command.binding_generation)
        message = {"command_id": command.id, "status": status, **body}
        return self.say(self.names.ack(device_id, command.type), message)

    def settle(self) -> None:
        """The publisher has brought everything in step."""
        self.connection.execute("DELETE FROM outbox")

    # --- what is there ------------------------------------------------------------------------------------------------

    def device(self, device_id: str) -> DeviceRecord:
        """The row of a device."""
        return devices.require(self.view, self.project_id, device_id)

    def record(self, device_id: str) -> DeviceRecord:
        """The row of a device, deleted or not."""
        row = device_sql.any_by_id(self.view, device_id)
        assert row is not None
        return row

    def token(self, secret: str) -> TokenRecord:
        """The record of a token."""
        row = token_sql.by_secret(self.view, secret)
        assert row is not None
        return row

    def command(self, device_id: str, kind: str = RESET) -> CommandRecord:
        """The open command of this type."""
        row = command_sql.open_of_type(self.view, self.device(device_id).pk, kind)
        assert row is not None
        return row

    def again(self, command: CommandRecord) -> CommandRecord:
        """The row of a command as it is now."""
        row = command_sql.by_id(self.view, command.id)
        assert row is not None
        return row

    def token_states(self, device_id: str) -> list[str]:
        """The states of the device's tokens, the oldest first."""
        rows = self.view.all("SELECT state FROM tokens WHERE device_pk = ? ORDER BY id", self.record(device_id).pk)
        return [row["state"] for row in rows]

    def events(self, after: int = 0) -> list[str]:
        """Types of events, the oldest first; without the first ``after``."""
        return [row["type"] for row in self.view.all("SELECT type FROM events ORDER BY seq")][after:]

    def facts(self) -> dict[str, Any]:
        """The data of the newest event."""
        found: dict[str, Any] = json.loads(self.view.value("SELECT data FROM events ORDER BY seq DESC LIMIT 1"))
        return found

    def outbox(self) -> list[tuple[str, str]]:
        """Kind and detail of what is out of step, the oldest first."""
        return [(row["kind"], row["detail"]) for row in self.view.all("SELECT * FROM outbox ORDER BY seq")]

    def refusals(self) -> list[Row]:
        """What was refused, the oldest first."""
        return self.view.all("SELECT * FROM refusals ORDER BY id")
