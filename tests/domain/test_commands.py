"""Commands: queued one of a type, cancelled, expired, listed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.command_types import CommandType
from gateway.domain import commands
from gateway.errors import ConflictError, NotFoundError
from gateway.models.commands import ListCommands
from gateway.models.states import CommandStatus
from gateway.store import command_sql
from tests.domain.support import RESET, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


def _refused(world: World, device_id: str, code: str, **body: Any) -> ConflictError:
    """A command that is refused changes nothing."""
    before = world.dump()
    with pytest.raises(ConflictError) as refusal:
        world.create(device_id, **body)
    assert refusal.value.code == code
    assert world.dump() == before
    return refusal.value


def test_a_command_contains_generation_and_expiry(world: World) -> None:
    """Fetched by the token of the binding; open for ``ttl_seconds``."""
    device_id, _ = world.bound()
    command = world.create(device_id, "start_recording", params={"label": "round"}, ttl_seconds=60)
    payload = command_sql.payload(command)
    assert payload.params == {"label": "round"}
    assert (payload.binding_generation, payload.expires_at) == (1, "2026-11-10T12:01:00.000Z")
    assert world.outbox() == [("command", "start_recording")]


def test_one_open_command_of_a_type(world: World) -> None:
    """409 names the open one; another type, or the same after its end, is free."""
    device_id, token = world.bound()
    first = world.create(device_id, "reboot")
    refusal = _refused(world, device_id, "command_pending", kind="reboot")
    assert refusal.details == {"command_id": first.id, "status": "pending"}
    world.create(device_id, "trigger_upload")
    world.ack(first, "executed", token)
    assert world.create(device_id, "reboot").id != first.id


def test_no_command_while_a_reset_is_open_or_without_a_binding(world: World) -> None:
    """No device would fetch it."""
    device_id = world.register()
    _refused(world, device_id, "device_not_bound")
    world.bind(device_id)
    world.reset(device_id)
    _refused(world, device_id, "reset_pending")


def test_a_reset_cannot_be_created_as_a_plain_command(world: World) -> None:
    """A reset unbinds too, so it is a separate verb."""
    device_id, _ = world.bound()
    _refused(world, device_id, "reset_not_a_command", kind="factory_reset")


def test_an_idempotency_key_names_one_request(world: World) -> None:
    """The same request is the same command, also after its end; another request with that key is 409."""
    device_id, token = world.bound()
    asked: dict[str, Any] = {"kind": "reboot", "params": {"soft": True}, "ttl_seconds": 60, "idempotency_key": "k1"}
    first = world.create(device_id, **asked)
    before = world.dump()
    assert world.create(device_id, **asked).id == first.id
    world.now += 1
    assert world.dump() == before
    world.ack(first, "executed", token)
    assert world.create(device_id, **asked).status == "executed"
    others: list[dict[str, Any]] = [{"kind": "trigger_upload"}, {"params": {}}, {"ttl_seconds": 61}]
    for other in others:
        _refused(world, device_id, "idempotency_mismatch", **{**asked, **other})
    assert world.create(device_id, **{**asked, "idempotency_key": "k2"}).id != first.id


def test_an_idempotency_key_is_the_devices_own(world: World) -> None:
    """The same key for another device is another command."""
    one, _ = world.bound()
    other, _ = world.bound("SN-2")
    assert world.create(one, idempotency_key="k").id != world.create(other, idempotency_key="k").id


def test_open_commands_can_be_cancelled(world: World) -> None:
    """Pending or delivered becomes cancelled; again is no-op; another end is 409; a stranger's is 404."""
    device_id, token = world.bound()
    command = world.create(device_id, "reboot")
    world.ack(command, "delivered", token)
    world.settle()
    assert world.cancel(device_id, command.id).status == "cancelled"
    assert (world.outbox(), world.events()[-1]) == ([("command", "reboot")], "command.cancelled")
    before = world.dump()
    assert world.cancel(device_id, command.id).status == "cancelled"
    assert world.dump() == before
    done = world.create(device_id, "reboot")
    world.ack(done, "executed", token)
    with pytest.raises(ConflictError, match="executed"):
        world.cancel(device_id, done.id)
    other_id, _ = world.bound("SN-2")
    with pytest.raises(NotFoundError, match=other_id):
        world.cancel(other_id, command.id)


@pytest.mark.parametrize("delivered", [False, True])
def test_a_command_expires_at_its_time_and_not_before(world: World, delivered: bool) -> None:  # noqa: FBT001 - a table
    """To the millisecond; its topic is cleared and the end told."""
    device_id, token = world.bound()
    command = world.create(device_id, "reboot", ttl_seconds=60)
    if delivered:
        world.ack(command, "delivered", token)
    world.settle()
    world.now += 59_999
    assert world.run(commands.expire) == 0
    world.now += 1
    assert world.run(commands.expire) == 1
    assert world.again(command).status == "expired"
    assert (world.outbox(), world.events()[-1]) == ([("command", "reboot")], "command.expired")
    assert world.run(commands.expire) == 0


def test_an_acknowledgement_after_the_end_is_stored(world: World) -> None:
    """Expired stays expired; what the device did is in the result."""
    device_id, token = world.bound()
    command = world.create(device_id, "reboot", ttl_seconds=1)
    world.now += 1_000
    world.run(commands.expire)
    world.ack(command, "executed", token, result={"ok": True})
    told = command_sql.to_model(world.again(command), device_id)
    assert told.status == "expired"
    assert told.result == {"late_acknowledgement": {"status": "executed", "result": {"ok": True}}}


def test_open_commands_are_those_to_retain(world: World) -> None:
    """Every open command, by device and type; and topics that were closed lately, unless one is open there again."""
    one, token = world.bound()
    other, _ = world.bound("SN-2")
    closed = world.create(one, "reboot")
    world.ack(closed, "executed", token)
    reused = world.create(one, "trigger_upload")
    world.ack(reused, "executed", token)
    again = world.create(one, "trigger_upload")
    reset = world.reset(other)
    opened = command_sql.open_after(world.view, 0, "", 10)
    assert [(row.id, row.device_id) for row in opened] == [(again.id, one), (reset.id, other)]
    first = command_sql.open_after(world.view, 0, "", 1)[0]
    assert command_sql.open_after(world.view, first.device_pk, first.type, 1) == opened[1:]
    assert command_sql.open_of_devices(world.view, [reset.device_pk]) == opened[1:]
    assert _closed(world, world.now) == [(one, "reboot")]
    assert _closed(world, world.now + 1) == []


def test_closed_topics_are_read_in_pages(world: World) -> None:
    """Each once, however often it was used, in the order in which they were closed."""
    since = world.now
    found = [world.bound(f"SN-{number}") for number in range(3)]
    for _ in range(3):
        for device_id, token in found:
            world.now += 1 if device_id == found[0][0] else 0
            world.ack(world.create(device_id, "reboot"), "executed", token)
    assert _closed(world, since) == _closed(world, since, page=1) == [(device_id, "reboot") for device_id, _ in found]


def _closed(world: World, since: int, page: int = 10) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    after = since, ""
    while rows := command_sql.closed_since(world.view, since, after, page):
        found += [(row.device_id, row.type) for row in rows]
        after = rows[-1].final_at, rows[-1].id
    return found


def test_commands_are_listed_in_pages(world: World) -> None:
    """Newest first, one row more than asked for when there are more, on from a cursor, of one status."""
    device_id, token = world.bound()
    made = []
    for _ in range(5):
        command = world.create(device_id, "reboot")
        world.ack(command, "executed", token)
        made.append(command.id)
    pk = world.device(device_id).pk
    newest_first = made[::-1]

    def page(**query: Any) -> list[str]:
        return [row.id for row in command_sql.page(world.view, pk, ListCommands(**query))]

    assert page() == newest_first
    assert page(limit=2) == newest_first[:3]
    assert page(limit=2, cursor=newest_first[1]) == newest_first[2:5]
    assert page(status=CommandStatus.PENDING) == []
    other = world.create(device_id, "trigger_upload").id
    assert page(type=CommandType.TRIGGER_UPLOAD) == [other]
    assert page(type=CommandType.REBOOT, limit=2) == newest_first[:3]
    assert page(type=CommandType.REBOOT, status=CommandStatus.PENDING) == []
    assert RESET not in page()
