"""Every verb in every order, with a publisher that drains when it likes: what must always hold does."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.domain import commands, devices, heartbeats
from gateway.errors import ConflictError, NotFoundError, UnavailableError
from gateway.store import command_sql, device_sql, outbox_sql, token_sql
from gateway.store.command_sql import CommandRecord
from gateway.store.device_sql import DeviceRecord
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


class LifecycleMachine(RuleBasedStateMachine):
    """Two devices, an impatient back end, devices that say true and false things, and a broker that lags behind."""

    def __init__(self) -> None:
        super().__init__()
        self.data_dir = Path(tempfile.mkdtemp(prefix="gateway-machine-"))
        self.world = World(self.data_dir).__enter__()
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

    # --- the back end -------------------------------------------------------------------------------------------------

    @initialize()
    def first_device(self) -> None:
        """There is one device at least."""
        self.register("SN-1")

    @rule(serial=st.sampled_from(SERIALS))
    def register(self, serial: str) -> None:
        """Register a device, new or known; a deleted one is to be restored."""
        if any(self.world.record(each).serial_number == serial for each in self.deleted):
            self._refused(lambda: self.world.register(serial), ConflictError)
            return
        device_id = self.world.register(serial)
        self.secrets.setdefault(device_id, [])

    @precondition(lambda self: self.secrets)
    @rule(data=st.data(), supersede=st.booleans())
    def bind(self, data: st.DataObject, supersede: bool) -> None:  # noqa: FBT001 - hypothesis draws it
        """Bind, with or without superseding; refused when bound, while a reset is open, or still on the broker."""
        device_id = self._device(data)
        if supersede:
            self.world.supersede(device_id)
        device = self.world.device(device_id)
        free = device.bound_at is None and not self._open(device, RESET)
        cleared = not outbox_sql.has(self.world.view, outbox_sql.COMMAND, device.pk, RESET)
        if free and cleared:
            self.secrets[device_id].append(self.world.bind(device_id).device_token)
            self._raised(device, 1)
        else:
            self._refused(lambda: self.world.bind(device_id), UnavailableError if free else ConflictError)

    @precondition(lambda self: self.secrets)
    @rule(data=st.data())
    def unbind(self, data: st.DataObject) -> None:
        """Unbind; a no-op on an unbound device."""
        device = self.world.device(self._device(data))
        self.world.unbind(device.id)
        self._raised(device, 0 if device.bound_at is None else 1)

    @precondition(lambda self: self.secrets)
    @rule(data=st.data())
    def reset(self, data: st.DataObject) -> None:
        """Reset; the same reset while one is open."""
        device = self.world.device(self._device(data))
        was_open = self._open(device, RESET)
        live = token_sql.live(self.world.view, device.pk)
        command = self.world.reset(device.id)
        self._raised(device, 0 if was_open else 1)
        fetched_by = live[0].generation if live else self.world.device(device.id).binding_generation
        assert command.binding_generation == fetched_by

    @precondition(lambda self: self.secrets)
    @rule(data=st.data())
    def bulk_reset(self, data: st.DataObject) -> None:
        """Reset as part of a bulk: the same, but that its message waits for its turn."""
        device = self.world.device(self._device(data))
        was_open = self._open(device, RESET)
        self.world.run(
            lambda tx: devices.reset(tx, self.world.project_id, device.id, "key_1", not_before=outbox_sql.next_turn(tx))
        )
        self._raised(device, 0 if was_open else 1)

    @precondition(lambda self: self.secrets)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Delete; refused while a reset is open. Until it is restored the device is not there."""
        device = self.world.device(self._device(data))
        if self._open(device, RESET):
            self._refused(lambda: self.world.delete(device.id), ConflictError)
            return
        self.world.delete(device.id)
        self.cleared.discard(device.pk)
        self._raised(device, 0 if device.bound_at is None else 1)
        self.deleted[device.id] = self.secrets.pop(device.id)
        self._refused(lambda: self.world.delete(device.id), NotFoundError)

    @precondition(lambda self: self.deleted)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        """Bring a deleted device back, unbound."""
        device_id = data.draw(st.sampled_from(sorted(self.deleted)))
        self.world.restore(device_id)
        self.secrets[device_id] = self.deleted.pop(device_id)
        assert self.world.device(device_id).bound_at is None

    @precondition(lambda self: self.secrets)
    @rule(data=st.data(), kind=st.sampled_from(PLAIN_TYPES), ttl=st.integers(1, 600))
    def create(self, data: st.DataObject, kind: str, ttl: int) -> None:
        """Queue a command, where that is allowed."""
        device = self.world.device(self._device(data))
        allowed = device.bound_at is not None and not self._open(device, kind)
        if allowed:
            self.world.create(device.id, kind, ttl_seconds=ttl)
        else:
            self._refused(lambda: self.world.create(device.id, kind, ttl_seconds=ttl), ConflictError)

    @precondition(lambda self: self._commands())
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel any command of any age."""
        command = self._command(data)
        device_id = self._owner(command)
        if device_id in self.deleted:
            self._refused(lambda: self.world.cancel(device_id, command.id), NotFoundError)
            return
        delivered_reset = command.type == RESET and command.status == "delivered"
        if command.status in {"executed", "failed", "expired"} or delivered_reset:
            self._refused(lambda: self.world.cancel(device_id, command.id), ConflictError)
        else:
            self.world.cancel(device_id, command.id)
            if command.type == RESET and command.status == "pending":
                assert not token_sql.live(self.world.view, command.device_pk)

    # --- the devices --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self._commands())
    @rule(data=st.data(), status=st.sampled_from(["delivered", "executed", "failed"]))
    def acknowledge(self, data: st.DataObject, status: str) -> None:
        """Say something of any command, with any token that ever was, another device's, or none."""
        command = self._command(data)
        token = data.draw(st.sampled_from([None, *(secret for each in self.secrets.values() for secret in each)]))
        if self._owner(command) in self.deleted:
            self.world.ack(command, status, token)
            assert self.world.again(command).status == command.status
            return
        own = self._generations(command)
        answer = self.world.ack(command, status, token)
        if token is None:
            proven = command.type != RESET
        elif status == "failed":
            proven = own.get(token, -1) >= command.binding_generation
        else:
            proven = own.get(token, -1) == command.binding_generation
        assert (answer is None) == proven
        after = self.world.again(command).status
        assert after == (status if proven and self._follows(command.status, status) else command.status)

    @precondition(lambda self: self._good())
    @rule(data=st.data())
    def show_token(self, data: st.DataObject) -> None:
        """Use any token that is good: those it was to replace are good no longer."""
        secret = data.draw(st.sampled_from(self._good()))
        first = self.world.token(secret).first_used_at is None
        self.world.use(secret)
        device_pk = self.world.token(secret).device_pk
        if first:
            assert [row.id for row in token_sql.live(self.world.view, device_pk)][-1] == self.world.token(secret).id

    @precondition(lambda self: self._good())
    @rule(data=st.data())
    def refresh(self, data: st.DataObject) -> None:
        """Ask for another token with any that is good: that one and the new one are good then, alike."""
        secret = data.draw(st.sampled_from(self._good()))
        device_id = self.world.token(secret).device_id
        new = self.world.refresh(device_id, secret)
        self.secrets[device_id].append(new)
        assert {row.id for row in token_sql.live(self.world.view, self.world.token(new).device_pk)} == {
            self.world.token(each).id for each in (secret, new)
        }
        one, other = self.world.token(secret), self.world.token(new)
        assert (one.state, one.generation) == (other.state, other.generation)

    @precondition(lambda self: self.secrets)
    @rule(data=st.data(), battery=st.integers(0, 100))
    def beat(self, data: st.DataObject, battery: int) -> None:
        """A heartbeat."""
        self.world.beat(self._device(data), battery_percent=battery)

    # --- time and the broker ------------------------------------------------------------------------------------------

    @rule(seconds=st.integers(-3_600, 3_600))
    def clock(self, seconds: int) -> None:
        """The clock goes on, or is set back."""
        self.world.now += seconds * 1_000

    @rule()
    def sweep(self) -> None:
        """Commands expire, silent devices go offline."""
        self.world.run(commands.expire)
        self.world.run(heartbeats.sweep_presence)

    @rule(count=st.integers(1, 3))
    def publisher_reads(self, count: int) -> None:
        """The publisher reads what is due and what is to be published; what it had in flight is lost with its link."""
        rows = self.world.view.all("SELECT * FROM outbox ORDER BY seq LIMIT ?", count)
        self.in_flight = [(row, self._view(row["kind"], row["device_pk"], row["detail"])) for row in rows]

    @precondition(lambda self: self.in_flight)
    @rule()
    def publisher_publishes(self) -> None:
        """The broker has it all; the rows that were not marked again are done."""
        for row, view in self.in_flight:
            if row["kind"] == outbox_sql.COMMAND:
                self.broker[row["device_pk"], row["detail"]] = view
            elif row["kind"] == outbox_sql.TOPIC:
                self.cleared.add(row["device_pk"])
            else:
                self.admitted[row["device_pk"]] = view
        self.world.run(outbox_sql.done, [row["seq"] for row, _ in self.in_flight])
        self.in_flight = []

    # --- what always holds --------------------------------------------------------------------------------------------

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


TestLife = LifecycleMachine.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, database=None)
