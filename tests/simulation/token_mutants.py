"""Deliberate faults of tokens: who may connect, until when, and what ends a token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from unittest.mock import patch

from device_sim.wire import mqtt_password
from gateway.broker.access_sync import AccessSyncer
from gateway.broker.first_use import FirstUses
from gateway.domain import acknowledgements, commands, devices
from gateway.errors import UnauthorizedError
from gateway.models.states import CommandStatus
from gateway.store import Tx, View, token_sql
from gateway.store.command_sql import CommandRecord
from gateway.store.records import DeviceKey
from gateway.store.token_sql import TokenRecord
from tests.simulation.broker_access import PasswordTable, VirtualEmbedded
from tests.simulation.mutants import mutant


@mutant("a reset revokes the token at once", 1, 6)
def _revoked_at_once() -> Iterator[None]:
    with patch.object(token_sql, "demote", token_sql.revoke):
        yield


@mutant("an executed reset leaves its token good", 5)
def _token_stays() -> Iterator[None]:
    real = commands.close

    def close(
        tx: Tx, device: DeviceKey, command: CommandRecord, status: CommandStatus, *given: Any, **facts: Any
    ) -> None:
        revoke = (lambda *_, **__: None) if status is CommandStatus.EXECUTED else commands.revoke
        with patch.object(commands, "revoke", revoke):
            real(tx, device, command, status, *given, **facts)

    with patch.object(acknowledgements, "close", close):
        yield


@mutant("live sessions of revoked tokens are not cut", 5)
def _not_cut() -> Iterator[None]:
    async def cut(self: Any, client_id: str) -> bool:
        del self, client_id
        return False

    def taken_up(self: Any) -> None:
        self._in_force = dict(self._written)

    with patch.object(VirtualEmbedded, "cut", cut), patch.object(PasswordTable, "load_entries", taken_up):
        yield


@mutant("the credential outbox is never processed", 1, 5)
def _access_syncer_idle() -> Iterator[None]:
    async def work(self: Any) -> None:
        self._wakeups.access.clear()

    with patch.object(AccessSyncer, "_work", work):
        yield


@mutant("a refresh revokes the token that asks", 5)
def _refresh_bricks() -> Iterator[None]:
    def revoke_others(tx: Tx, token: TokenRecord) -> int:
        return token_sql.revoke(tx, token.device_pk)

    with patch.object(token_sql, "revoke_others", revoke_others):
        yield


@mutant("the first use of a new token over MQTT is not seen", 5)
def _first_use_unseen() -> Iterator[None]:
    with patch.object(FirstUses, "in_force", lambda *_: None):
        yield


@mutant("an old message counts as the first use of a new token", 5)
def _old_message_counts() -> Iterator[None]:
    def in_force(self: FirstUses, wanted: Mapping[str, int]) -> None:
        self.waiting = dict(wanted)

    with patch.object(FirstUses, "in_force", in_force):
        yield


@mutant("the broker takes the token for the MQTT password", 5)
def _token_is_password() -> Iterator[None]:
    real = token_sql.by_mqtt_password

    def by_mqtt_password(view: View, device_id: str, password: str, *, broker: int) -> TokenRecord | None:
        given = mqtt_password(password) if password.startswith("dtok_") else password
        return real(view, device_id, given, broker=broker)

    with patch.object(token_sql, "by_mqtt_password", by_mqtt_password):
        yield


@mutant("a token that waits for its reset is not refreshed", 1)
def _no_refresh_before_a_reset() -> Iterator[None]:
    def may_refresh(tx: Tx, asking: TokenRecord) -> None:
        del tx
        if asking.state == "reset_only":
            raise UnauthorizedError("not this one")

    with patch.object(devices, "_may_refresh", may_refresh):
        yield
