"""Every operation in every order, with a publisher that drains at any time: the invariants hold."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from gateway.domain import commands, devices, heartbeats
from gateway.errors import ConflictError, NotFoundError, TooSoonError, UnavailableError
from gateway.store import outbox_sql, token_sql
from tests.domain.lifecycle_invariants import PLAIN_TYPES, SERIALS, LifecycleInvariants
from tests.domain.support import RESET


class LifecycleMachine(LifecycleInvariants):
    """Two devices, a back end, devices that send true and false messages, and a broker that lags behind."""

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
        try:
            new = self.world.refresh(device_id, secret)
        except TooSoonError:  # the clock was set back, and is again within the minute after the last refresh
            last = token_sql.last_refreshed_at(self.world.view, self.world.token(secret))
            assert last is not None
            assert last <= self.world.now < last + self.world.context.rules.token_refresh_ms
            return
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


TestLifecycle = LifecycleMachine.TestCase
TestLifecycle.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
