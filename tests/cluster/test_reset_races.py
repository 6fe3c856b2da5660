"""Two gateways change a device with an open reset, or one that is unbound or deleted, at the same time, on PostgreSQL.

Each pair has the result of one after the other, and keeps the contract (:mod:`tests.cluster.race_laws`).
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gateway.core.command_types import CommandType
from gateway.domain import commands, devices
from gateway.models.devices import RegisterDevice
from gateway.store import Tx, command_sql
from tests.cluster import race_laws, races
from tests.cluster.races import Start, Subject, Two, Verb, acknowledge, bound, two_gateways

RESET = CommandType.FACTORY_RESET


def _open_reset(tx: Tx, project_id: str, serial: str) -> Subject:
    """The broker has the reset, and the device has said nothing of it."""
    subject = bound(tx, project_id, serial)
    devices.reset(tx, project_id, subject.id, "key_1")
    command = command_sql.open_of_type(tx, subject.pk, RESET)
    assert command is not None
    command_sql.set_sent(tx, [command.id])
    tx.run("DELETE FROM outbox WHERE device_pk = ?", subject.pk)
    return replace(subject, command_id=command.id, command_type=RESET)


def _delivered_reset(tx: Tx, project_id: str, serial: str) -> Subject:
    """The device has said that it has the reset."""
    subject = _open_reset(tx, project_id, serial)
    acknowledge(tx, subject, "delivered")
    return subject


def _unbound(tx: Tx, project_id: str, serial: str) -> Subject:
    subject = bound(tx, project_id, serial)
    devices.unbind(tx, project_id, subject.id, "key_1")
    return subject


def _deleted(tx: Tx, project_id: str, serial: str) -> Subject:
    subject = bound(tx, project_id, serial)
    devices.delete(tx, project_id, subject.id, "key_1")
    return subject


def _register(tx: Tx, it: Subject) -> object:
    return devices.register(tx, it.project_id, RegisterDevice(serial_number=it.serial_number), "key_1")


DELIVERED, EXECUTED, FAILED = (partial(acknowledge, status=each) for each in ("delivered", "executed", "failed"))
ENDING: dict[str, Verb] = {
    "executed": EXECUTED,
    "failed": FAILED,
    "cancel": races.cancel,
    "supersede": races.supersede,
    "bind": races.bind,
}
COMING_BACK: dict[str, Verb] = {"bind": races.bind, "reset": races.reset, "delete": races.delete}
STARTS: dict[str, tuple[Start, dict[str, Verb]]] = {
    "open reset": (
        _open_reset,
        {**ENDING, "delivered": DELIVERED, "reset": races.reset, "refresh": races.refresh},
    ),
    "delivered reset": (_delivered_reset, {**ENDING, "delete": races.delete}),
    "unbound": (_unbound, {**COMING_BACK, "unbind": races.unbind}),
    "deleted": (_deleted, {**COMING_BACK, "restore": races.restore, "register": _register}),
}
"""Each state, and the verbs that mean something there, at first or after another one of them."""


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    """Two gateways."""
    async with two_gateways(tmp_path) as opened:
        yield opened


PAIRS = [(start, first) for start, (_, verbs) in STARTS.items() for first in verbs]


@pytest.mark.parametrize(("start", "first"), PAIRS)
async def test_each_pair_keeps_the_contract(two: Two, start: str, first: str) -> None:
    """Each verb, held in its transaction, against each verb, a second one of itself too."""
    make, verbs = STARTS[start]
    for number, second in enumerate(verbs):
        alike, raced = await two.alike(make, number)
        pair = verbs[first], verbs[second]
        assert await two.at_once(*pair, raced) == await two.serial(*pair, alike), (first, second)
        has, should = await two.states(raced, alike)
        assert has == should, (first, second)
        await _is_lawful(two, raced)


async def _is_lawful(two: Two, subject: Subject) -> None:
    await two.one.read(lambda view: race_laws.check(view, subject))


async def test_a_cancel_by_an_earlier_read_is_found(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: it decides by the command as it was before its transaction. A delivered reset is cancelled."""
    subject = await two.subject(_open_reset, "S1")
    known = await two.one.read(lambda view: command_sql.by_id(view, subject.command_id))
    monkeypatch.setattr(commands, "require", lambda *_: known)
    assert await two.at_once(DELIVERED, races.cancel, subject) == ["done", "done"]
    with pytest.raises(AssertionError, match="delivered"):
        await _is_lawful(two, subject)


async def test_a_bind_that_does_not_look_is_found(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: it binds a device that is bound. The device has two bindings."""
    subject = await two.subject(_unbound, "S1")
    monkeypatch.setattr(devices, "_may_bind", lambda *_: None)
    assert await two.at_once(races.bind, races.bind, subject) == ["done", "done"]
    with pytest.raises(AssertionError):
        await _is_lawful(two, subject)
