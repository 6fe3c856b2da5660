"""Registry and invariants of the state machine: what must hold after every step, in any order."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from gateway.store import command_sql, device_count_sql, device_sql, outbox_sql, token_sql
from gateway.store.command_sql import CommandRecord
from gateway.store.device_sql import DeviceRecord
from gateway.store.dialect import SQLITE
from tests.domain.support import RESET, World

SERIALS = ("SN-1", "SN-2")
PLAIN_TYPES = ("reboot", "start_recording")
OPEN = {"pending", "delivered"}
EVENT_OF = {
    "delivered": {"command.delivered", "reset.delivered"},
    "executed": {"command.executed", "reset.completed"},
    "failed": {"command.failed", "reset.failed"},
    "cancelled": {"command.cancelled", "reset.superseded"},
    "expired": {"command.expired"},
}


class LifecycleInvariants(RuleBasedStateMachine):
    """A registry with two devices, what callers and broker know of it, and the invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.data_dir = Path(tempfile.mkdtemp(prefix="gateway-machine-"))
        self.world = World(self.data_dir).__enter__()
        if self.world.view.dialect is SQLITE:
            self.world.connection.execute("PRAGMA synchronous = OFF")
        self.secrets: dict[str, list[str]] = {}
        self.deleted: dict[str, list[str]] = {}
        self.broker: dict[tuple[int, str], str | None] = {}
        self.admitted: dict[int, str | None] = {}
        self.cleared: set[int] = set()
        self.in_flight: list[tuple[Any, str | None]] = []
        self.before: dict[str, Any] = {}
        self.raised: dict[int, int] = {}

    def teardown(self) -> None:
        """Close the registry and remove it."""
        self.world.connection.close()
        shutil.rmtree(self.data_dir)

    # --- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def kept_counts_are_those_of_the_devices(self) -> None:
        """Whatever is registered, bound, heard, reset or deleted."""
        assert device_count_sql.kept(self.world.view) == device_count_sql.counted(self.world.view)

    @invariant()
    def one_open_command_of_a_type(self) -> None:
        """At most, per device."""
        found = [(row.device_pk, row.type) for row in self._commands() if row.status in OPEN]
        assert len(found) == len(set(found))

    @invariant()
    def tokens_follow_the_binding(self) -> None:
        """Bound ⇔ an active token of the current generation, or two and the newer unused; none beside an open reset."""
        for device in self._devices():
            live = token_sql.live(self.world.view, device.pk)
            active = [token.generation for token in live if token.state == "active"]
            assert set(active) == (set() if device.bound_at is None else {device.binding_generation})
            assert len(live) <= 2
            assert len({token.generation for token in live}) <= 1
            assert not [token for token in live[:-1] if token.first_used_at is not None]
            if device.deleted_at is not None:
                assert not live
                assert not command_sql.open_of_device(self.world.view, device.pk)
            if self._open(device, RESET):
                assert device.bound_at is None
                assert not active
                assert [row.type for row in command_sql.open_of_device(self.world.view, device.pk)] == [RESET]

    @invariant()
    def generations_move_by_the_verbs_alone(self) -> None:
        """By exactly one at bind, unbind and reset, by nothing else, never down."""
        for device in self._devices():
            expected = self.before.get("generations", {}).get(device.pk, 0) + self.raised.pop(device.pk, 0)
            assert device.binding_generation == expected

    @invariant()
    def every_change_has_its_event(self) -> None:
        """States of commands, bindings and tokens: each change is told, of the right command and device."""
        new = self.world.view.all("SELECT * FROM events WHERE seq > ?", self.before.get("seq", 0))
        told = [(row["type"], json.loads(row["data"])) for row in new]
        known = self.before.get("statuses", {})
        for row in self._commands():
            if row.status != known.get(row.id, "pending"):
                assert any(kind in EVENT_OF[row.status] and fact["command_id"] == row.id for kind, fact in told)
            if row.id not in known:
                asked = "reset.requested" if row.type == RESET else "command.created"
                assert any(kind == asked and fact["command_id"] == row.id for kind, fact in told)
        for device in self._devices():
            kinds = [kind for kind, fact in told if fact["device_id"] == device.id]
            before = self.before.get("devices", {}).get(device.pk, {"bound": False, "live": 0})
            now = self._summary(device)
            if now["bound"] != before["bound"]:
                assert ("device.bound" if now["bound"] else "device.unbound") in kinds
            if now["live"] < before["live"]:
                assert "token.revoked" in kinds

    @invariant()
    def what_is_out_of_step_is_marked(self) -> None:
        """Where the broker would have to show something else than it does, a row of the outbox says so."""
        for device in self._devices():
            for kind in (RESET, *PLAIN_TYPES):
                if self.broker.get((device.pk, kind)) != self._view(outbox_sql.COMMAND, device.pk, kind):
                    assert outbox_sql.has(self.world.view, outbox_sql.COMMAND, device.pk, kind)
            if device.deleted_at is not None and device.pk not in self.cleared:
                assert outbox_sql.has(self.world.view, outbox_sql.TOPIC, device.pk, outbox_sql.STATUS)
            if self.admitted.get(device.pk) != self._view(outbox_sql.CREDENTIAL, device.pk, ""):
                assert outbox_sql.has(self.world.view, outbox_sql.CREDENTIAL, device.pk)

    def check_invariants(self, *args: Any, **kwargs: Any) -> None:
        """Take the picture that the next step is compared with, after all has been checked."""
        super().check_invariants(*args, **kwargs)
        self.before = {
            "seq": self.world.view.value("SELECT max(seq) FROM events") or 0,
            "statuses": {row.id: row.status for row in self._commands()},
            "devices": {device.pk: self._summary(device) for device in self._devices()},
            "generations": {device.pk: device.binding_generation for device in self._devices()},
        }

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _raised(self, device: DeviceRecord, by: int) -> None:
        self.raised[device.pk] = by

    def _refused(self, verb: Callable[[], object], error: type[Exception]) -> None:
        before = self.world.dump()
        try:
            verb()
        except error:
            assert self.world.dump() == before
        else:
            raise AssertionError(f"not refused with {error.__name__}")

    def _devices(self) -> list[DeviceRecord]:
        view = self.world.view
        return [device_sql.by_pk(view, row["pk"]) for row in view.all("SELECT pk FROM devices ORDER BY pk")]

    def _commands(self) -> list[CommandRecord]:
        view = self.world.view
        found = [command_sql.by_id(view, row["id"]) for row in view.all("SELECT id FROM commands ORDER BY id")]
        return [command for command in found if command is not None]

    def _good(self, *states: str) -> list[str]:
        """Secrets of devices that are there, as far as they open anything (or are in one of these states)."""
        known = [secret for each in self.secrets.values() for secret in each]
        rows = {secret: token_sql.by_secret(self.world.view, secret) for secret in known}
        wanted = states or ("active", "reset_only")
        return [secret for secret, row in rows.items() if row is not None and row.state in wanted]

    def _device(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.secrets)))

    def _command(self, data: st.DataObject) -> CommandRecord:
        found = self._commands()
        return found[-1 - data.draw(st.integers(0, min(len(found), 4) - 1))]

    def _owner(self, command: CommandRecord) -> str:
        return str(self.world.view.value("SELECT id FROM devices WHERE pk = ?", command.device_pk))

    def _open(self, device: DeviceRecord, kind: str) -> bool:
        return command_sql.open_of_type(self.world.view, device.pk, kind) is not None

    def _summary(self, device: DeviceRecord) -> dict[str, Any]:
        return {"bound": device.bound_at is not None, "live": len(token_sql.live(self.world.view, device.pk))}

    def _generations(self, command: CommandRecord) -> dict[str, int]:
        """The command's device's own secrets, each with its generation."""
        found = {secret: token_sql.by_secret(self.world.view, secret) for secret in self.secrets[self._owner(command)]}
        return {secret: row.generation for secret, row in found.items() if row is not None}

    @staticmethod
    def _follows(status: str, word: str) -> bool:
        """Whether a word moves a command of this status on."""
        return status == "pending" or (status == "delivered" and word != "delivered")

    def _view(self, kind: str, device_pk: int, detail: str) -> str | None:
        """What the broker is to show now: the open command of a topic, or the password entry of a device."""
        if kind == outbox_sql.COMMAND:
            command = command_sql.open_of_type(self.world.view, device_pk, detail)
            return None if command is None else str(command.id)
        live = token_sql.live(self.world.view, device_pk)
        return str(live[0].broker_entry) if live else None
