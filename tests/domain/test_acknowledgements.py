"""What a device says of its commands: taken when it is its word, refused when not, never twice."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core.command_types import CommandType
from gateway.store import command_sql
from gateway.store.command_sql import CommandRecord
from tests.domain.support import RESET, World, receipt
from tests.support.dump import COUNTERS


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("kind", [each for each in CommandType if each not in (RESET, CommandType.SET_GRANT_KEY)])
def test_a_command_goes_from_pending_to_executed(world: World, kind: CommandType) -> None:
    """Pending, delivered, executed: each with its time and its event; the token has nothing to do with it."""
    device_id, token = world.bound()
    command = world.create(device_id, kind)
    assert (command.status, world.events()[-1]) == ("pending", "command.created")
    world.now += 10
    assert world.ack(command, "delivered", token) is None
    assert world.events()[-1] == "command.delivered"
    world.now += 10
    assert world.ack(command, "executed", token, result={"took_ms": 8}) is None
    assert world.events()[-1] == "command.executed"
    told = command_sql.to_model(world.again(command), device_id)
    assert (told.status, told.result, told.error) == ("executed", {"took_ms": 8}, None)
    assert told.delivered_at == "2026-11-10T12:00:00.010Z"
    assert told.executed_at == "2026-11-10T12:00:00.020Z"
    assert ("command", kind) in world.outbox()
    assert world.token_states(device_id) == ["active"]


def test_a_failed_command_keeps_its_reason(world: World) -> None:
    """The device's, or that it gave none."""
    device_id, token = world.bound()
    told = world.create(device_id, "reboot")
    world.ack(told, "failed", token, error={"code": "busy", "message": "recording"}, result={"tries": 3})
    assert json.loads(world.again(told).error or "null") == {"code": "busy", "message": "recording"}
    assert json.loads(world.again(told).result or "null") == {"tries": 3}
    silent = world.create(device_id, "reboot")
    world.ack(silent, "failed", token)
    assert json.loads(world.again(silent).error or "null")["code"] == "unspecified"
    assert world.events()[-1] == "command.failed"


@pytest.mark.parametrize("words", [["delivered"], ["delivered", "executed"], ["executed"], ["failed"]])
def test_a_repeated_acknowledgement_changes_nothing(world: World, words: list[str]) -> None:
    """QoS 1 delivers at least once: a duplicate of any earlier word is good, and leaves everything as it was."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    for word in words:
        world.ack(command, word, token)
    before = world.dump()
    for word in words:
        assert world.ack(command, word, token) is None
    assert world.dump() == before


def _cancelled(world: World, device_id: str, command: CommandRecord, _: str) -> None:
    world.cancel(device_id, command.id)


def _superseded(world: World, device_id: str, _: CommandRecord, __: str) -> None:
    world.supersede(device_id)


def _executed(world: World, _: str, command: CommandRecord, token: str) -> None:
    world.ack(command, "executed", token)


def _failed(world: World, _: str, command: CommandRecord, token: str) -> None:
    world.ack(command, "failed", token)


@pytest.mark.guarantee("G5")
@pytest.mark.parametrize(
    ("end", "status", "word"),
    [
        (_cancelled, "cancelled", "delivered"),
        (_cancelled, "cancelled", "executed"),
        (_cancelled, "cancelled", "failed"),
        (_superseded, "cancelled", "executed"),
        (_executed, "executed", "failed"),
        (_failed, "failed", "executed"),
    ],
)
def test_a_late_acknowledgement_is_stored_and_audited_once(
    world: World, end: Callable[[World, str, CommandRecord, str], None], status: str, word: str
) -> None:
    """The state stays; the word goes into the result and the audit trail, however often it is said."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    end(world, device_id, command, token)
    tokens_before, seen = world.token_states(device_id), len(world.events())
    for _ in range(3):
        assert world.ack(command, word, token) is None
    assert world.again(command).status == status
    assert json.loads(world.again(command).result or "null")["late_acknowledgement"] == {"status": word}
    assert world.events(seen) == ["acknowledgement.late"]
    assert world.facts()["acknowledged"] == word
    assert world.token_states(device_id) == tokens_before


def test_of_late_acknowledgements_the_highest_status_is_stored(world: World) -> None:
    """A device that contradicts itself for ever fills neither result nor audit trail; ``executed`` is never lost."""
    device_id, token = world.bound()
    command = world.create(device_id, "reboot")
    world.cancel(device_id, command.id)
    seen = len(world.events())
    for word in ["delivered", "failed", "executed"] * 5:
        world.ack(command, word, token)
    assert json.loads(world.again(command).result or "null")["late_acknowledgement"]["status"] == "executed"
    assert world.events(seen) == ["acknowledgement.late"] * 3


def test_an_older_status_that_arrives_late_changes_nothing(world: World) -> None:
    """``delivered`` after ``executed`` or ``failed`` was overtaken on its way."""
    device_id, token = world.bound()
    command = world.create(device_id, "reboot")
    world.ack(command, "executed", token)
    before = world.dump()
    world.ack(command, "delivered", token)
    assert world.dump() == before


@pytest.mark.parametrize("forged", [1, "x", None, [], {"status": ["executed"]}, {"status": "executed"}])
def test_the_result_key_of_late_acknowledgements_is_reserved(world: World, forged: Any) -> None:
    """A result that uses it can neither break the gateway nor hide a later word."""
    device_id, token = world.bound()
    command = world.create(device_id, "reboot")
    world.ack(command, "executed", token, result={"late_acknowledgement": forged, "ok": 1})
    assert json.loads(world.again(command).result or "null") == {"ok": 1}
    assert world.ack(command, "failed", token) is None
    assert json.loads(world.again(command).result or "null") == {"ok": 1, "late_acknowledgement": {"status": "failed"}}


# --- refused ----------------------------------------------------------------------------------------------------------


def _refusals(world: World, said: Callable[[], Any], *, field: str, code: str, device_id: str) -> None:
    """What was said is answered, counted, kept and audited, and changes nothing else."""
    before = _all_but_the_trail(world)
    seen, kept = len(world.events()), len(world.refusals())
    answer = said()
    assert answer is not None
    assert (answer.device_id, answer.refusal.code, answer.refusal.field) == (device_id, code, field)
    assert world.events(seen) == ["acknowledgement.refused"]
    assert world.facts()["code"] == code
    assert [row["code"] for row in world.refusals()[kept:]] == [code]
    assert _all_but_the_trail(world) == before


def _all_but_the_trail(world: World) -> list[str]:
    return world.dump("events", "event_budgets", "refusals", *COUNTERS)


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("status", ["delivered", "executed", "failed"])
def test_an_acknowledgement_with_a_bad_receipt_is_refused(world: World, status: str) -> None:
    """Another token's, whatever the word: the command is untouched."""
    device_id, _ = world.bound()
    _, other = world.bound("SN-2")
    command = world.reset(device_id)
    _refusals(
        world, lambda: world.ack(command, status, other), field="receipt", code="receipt_invalid", device_id=device_id
    )


@pytest.mark.parametrize("status", ["delivered", "executed"])
def test_a_receipt_of_a_newer_token_does_not_prove_an_older_reset(world: World, status: str) -> None:
    """A device that is bound again can refuse a stale reset; it cannot have received or executed it."""
    device_id, _ = world.bound()
    command = world.reset(device_id)
    world.supersede(device_id)
    world.settle()
    newer = world.bind(device_id).device_token
    _refusals(
        world, lambda: world.ack(command, status, newer), field="receipt", code="receipt_invalid", device_id=device_id
    )


def test_a_receipt_for_another_status_is_refused(world: World) -> None:
    """The receipt of ``delivered`` does not prove ``executed``."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    given = receipt(token, command.id, "delivered", 1)
    _refusals(
        world,
        lambda: world.ack(command, "executed", receipt=given),
        field="receipt",
        code="receipt_invalid",
        device_id=device_id,
    )


@pytest.mark.parametrize("status", ["delivered", "executed", "failed"])
def test_an_acknowledgement_of_a_reset_needs_a_receipt(world: World, status: str) -> None:
    """Each status must be proven: else others on the broker could end a reset or keep it from being cancelled."""
    device_id, _ = world.bound()
    command = world.reset(device_id)
    _refusals(world, lambda: world.ack(command, status), field="receipt", code="receipt_missing", device_id=device_id)


@pytest.mark.guarantee("G8")
def test_an_acknowledgement_of_another_devices_command_is_refused(world: World) -> None:
    """To this device it is an unknown command, also with a receipt that would be good there."""
    device_id, _ = world.bound()
    other_id, other = world.bound("SN-2")
    command = world.reset(other_id)
    body = {"command_id": command.id, "status": "executed", "receipt": receipt(other, command.id, "executed", 1)}
    topic = world.names.ack(device_id, RESET)
    _refusals(world, lambda: world.say(topic, body), field="command_id", code="unknown_command", device_id=device_id)
    assert world.again(command).status == "pending"


@pytest.mark.guarantee("G8")
def test_an_acknowledgement_of_an_unknown_command_is_refused(world: World) -> None:
    """An acknowledgement for nothing."""
    device_id, _ = world.bound()
    body = {"command_id": "cmd_unknown", "status": "executed"}
    topic = world.names.ack(device_id, "reboot")
    _refusals(world, lambda: world.say(topic, body), field="command_id", code="unknown_command", device_id=device_id)


@pytest.mark.guarantee("G8")
def test_an_acknowledgement_on_another_types_topic_is_refused(world: World) -> None:
    """The topic names the type, and must name the right one."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    body = {"command_id": command.id, "status": "executed", "receipt": receipt(token, command.id, "executed", 1)}
    topic = world.names.ack(device_id, "reboot")
    _refusals(world, lambda: world.say(topic, body), field="command_id", code="wrong_type", device_id=device_id)


def test_refused_acknowledgements_are_bounded_in_audit_and_table(world: World) -> None:
    """Ten events a minute per device, and the refusals that the rules keep; bad heartbeats use up none of the ten."""
    device_id, _ = world.bound()
    for _ in range(20):
        world.beat(device_id, battery_percent=101)
    seen = len(world.events())
    for _ in range(30):
        world.say(world.names.ack(device_id, "reboot"), {"command_id": "cmd_unknown", "status": "executed"})
    assert world.events(seen) == ["acknowledgement.refused"] * 10
    world.now += 60_001
    world.say(world.names.ack(device_id, "reboot"), {"command_id": "cmd_unknown", "status": "executed"})
    assert world.events(seen) == ["acknowledgement.refused"] * 11
    assert len(world.refusals()) == 51


def test_a_refused_last_command_is_audited_once_a_day(world: World) -> None:
    """Firmware may repeat it with every heartbeat. The heartbeat itself is taken; each refusal is answered."""
    device_id, _ = world.bound()
    command = world.reset(device_id)
    last = {"command_id": command.id, "status": "executed", "receipt": "forged"}
    seen = len(world.events())
    for _ in range(5):
        answer = world.beat(device_id, last_command=last)
        assert answer is not None
        assert (answer.refusal.code, answer.refusal.field) == ("receipt_invalid", "last_command.receipt")
    assert world.events(seen) == ["device.online", "acknowledgement.refused"]
    assert world.again(command).status == "pending"
    world.now += 86_400_001
    world.beat(device_id, last_command=last)
    assert world.events(seen).count("acknowledgement.refused") == 2


def test_no_secret_reaches_an_event(world: World) -> None:
    """Not even when a device puts its token into a result or an error."""
    device_id, token = world.bound()
    command = world.create(device_id, "reboot")
    result = {"why": [f"token {token} expired"], token: {"nested": token}}
    world.ack(command, "failed", token, result=result, error={"code": "x", "message": token})
    assert not [row for row in world.view.all("SELECT data FROM events") if token[5:12] in row["data"]]
