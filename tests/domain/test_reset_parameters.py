"""What is asked for with a reset, what the device reports of it, and the row that is kept (contract, section 7)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core import canonical_json
from gateway.domain import devices, end_users, grants
from gateway.errors import ConflictError
from gateway.models.resets import ResetDevice
from gateway.store import Tx, end_user_sql, reset_sql
from gateway.store.reset_sql import ResetRecord
from tests.domain.support import World

WIPED = {"wiped": ["device_token", "pairing"], "kept": ["serial_number"]}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


def ask(world: World, device_id: str, **asked: Any) -> None:
    """Ask for a reset."""
    world.run(devices.reset, world.project_id, device_id, "key_1", ResetDevice(**asked))


def kept(world: World, command_id: str) -> ResetRecord:
    """The row of a reset."""
    row = reset_sql.find(world.view, command_id)
    assert row is not None
    return row


@pytest.mark.parametrize(("asked", "params"), [(None, "keep"), ("keep", "keep"), ("wipe", "wipe")])
def test_the_grant_covers_what_is_done_with_the_recordings(world: World, asked: str | None, params: str) -> None:
    """The params always say it, and ``par`` of the grant is their digest: no client of the broker can change them."""
    device_id, _ = world.bound()
    ask(world, device_id, recordings=asked)
    command = world.command(device_id)
    assert json.loads(command.params) == {"recordings": params}
    claims = grants.verified(world.view, command.grant_token)
    assert claims is not None
    assert claims["par"] == canonical_json.params_digest({"recordings": params})


def test_the_request_is_kept_with_what_was_known_then(world: World) -> None:
    """Who, why, for which device under which binding; later changes of the device leave it; the person by pseudonym."""
    device_id = world.register(model="bota_note", firmware_version="1.0")
    world.bind(device_id, "eu_7")
    ask(world, device_id, reason="Returned by ward 3", recordings="wipe")
    world.update(device_id, firmware_version="2.0")
    command = world.command(device_id)
    row = kept(world, command.id)
    assert (row.requested_at, row.requested_by, row.reason, row.recordings) == (
        world.now,
        "key_1",
        "Returned by ward 3",
        "wipe",
    )
    assert (row.serial_number, row.model, row.firmware_version) == ("SN-1", "bota_note", "1.0")
    assert (row.generation_before, row.generation_after) == (1, 2)
    assert row.grant_kid == grants.key_id(command.grant_token)
    assert row.end_user == world.run(fingerprint, world.project_id, "eu_7")
    assert (row.finished_at, row.outcome) == (None, None)
    data = json.loads(world.view.value("SELECT data FROM events WHERE type = 'reset.requested'"))
    assert (data["reason"], data["recordings"]) == ("Returned by ward 3", "wipe")


def fingerprint(tx: Tx, project_id: str, end_user_id: str) -> str:
    """The pseudonym with the salt that is stored, or with a new one."""
    salt = tx.value("SELECT salt FROM end_user_salts WHERE project_id = ? AND end_user_id = ?", project_id, end_user_id)
    return end_users.fingerprint(tx, project_id, end_user_id, salt)


def test_a_pseudonym_is_the_same_until_the_person_is_forgotten(world: World) -> None:
    """Equal for one person, different for others and in another project; without the salt it never comes back."""
    one = world.run(fingerprint, world.project_id, "eu_1")
    assert world.run(fingerprint, world.project_id, "eu_1") == one
    assert world.run(fingerprint, world.project_id, "eu_2") != one
    assert "eu_1" not in one
    assert world.run(end_user_sql.forget_salt, world.project_id, "eu_1")
    assert not world.run(end_user_sql.forget_salt, world.project_id, "eu_1")
    assert world.run(fingerprint, world.project_id, "eu_1") != one


@pytest.mark.parametrize(("first", "second"), [("keep", "wipe"), ("wipe", "keep"), (None, "wipe")])
def test_a_second_reset_that_wants_something_else_is_refused(world: World, first: str | None, second: str) -> None:
    """Otherwise data that is to be wiped would be kept silently. Nothing changes."""
    device_id, _ = world.bound()
    ask(world, device_id, recordings=first)
    before = world.dump()
    with pytest.raises(ConflictError, match="recordings: a factory reset of this device is open") as refused:
        ask(world, device_id, recordings=second, reason="again")
    assert refused.value.code == "reset_pending"
    assert refused.value.details["recordings"] == (first or "keep")
    assert world.dump() == before


@pytest.mark.parametrize(("first", "second"), [("wipe", None), ("wipe", "wipe"), (None, "keep")])
def test_a_second_reset_that_wants_the_same_is_the_same_reset(
    world: World, first: str | None, second: str | None
) -> None:
    """To the byte, its reason too."""
    device_id, _ = world.bound()
    ask(world, device_id, recordings=first, reason="first")
    before = world.dump()
    ask(world, device_id, recordings=second, reason="second")
    assert world.dump() == before


def test_the_end_of_a_reset_is_kept(world: World) -> None:
    """When the device had it, when it was final, that the token is revoked."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    world.now += 1_000
    world.ack(command, "delivered", token)
    assert (kept(world, command.id).delivered_at, kept(world, command.id).outcome) == (world.now, None)
    world.now += 1_000
    world.ack(command, "executed", token, result=WIPED)
    row = kept(world, command.id)
    assert (row.delivered_at, row.finished_at, row.outcome) == (world.now - 1_000, world.now, "executed")
    assert row.token_revoked_at == world.now


@pytest.mark.parametrize(
    ("end", "outcome", "revoked"),
    [("cancel", "cancelled", True), ("supersede", "superseded", True), ("fail", "failed", False)],
)
def test_each_end_has_its_outcome(world: World, end: str, outcome: str, *, revoked: bool) -> None:
    """A device that failed keeps its token for the next reset."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    if end == "cancel":
        world.cancel(device_id, command.id)
    elif end == "supersede":
        world.supersede(device_id)
    else:
        world.ack(command, "failed", token, error={"code": "flash"})
    row = kept(world, command.id)
    assert (row.outcome, row.token_revoked_at is not None) == (outcome, revoked)
    assert world.token_states(device_id) == ["revoked" if revoked else "reset_only"]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"recordings": {"wiped": -1, "kept": 0}}, "result.recordings.wiped"),
        ({"recordings": {"wiped": 1}}, "result.recordings.kept"),
        ({"recordings": {"wiped": 1, "kept": "0"}}, "result.recordings.kept"),
        ({"recordings": {"wiped": 1, "kept": 0, "of": "eu_1"}}, "result.recordings.of"),
        ({"recordings": "all"}, "result.recordings"),
        ({"recordings": None}, "result.recordings"),
        ({"technique": {"pairing": "burned"}}, "result.technique.pairing"),
        ({"technique": {"wifi_networks": "deleted"}}, "result"),
        ({"technique": ["deleted"]}, "result.technique"),
    ],
)
def test_a_wrong_report_is_refused(world: World, said: dict[str, Any], field: str) -> None:
    """Its field is named, and the reset stays open."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    answer = world.ack(command, "executed", token, result={**WIPED, **said})
    assert answer is not None
    assert (answer.refusal.code, answer.refusal.field) == ("invalid_request", field)
    assert world.again(command).status == "pending"


def test_a_right_report_and_unknown_members_are_taken(world: World) -> None:
    """They are stored as they come."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    result = {
        **WIPED,
        "recordings": {"wiped": 3, "kept": 0},
        "technique": {"pairing": "overwritten", "device_token": "key_destroyed"},
        "battery": 80,
    }
    assert world.ack(command, "executed", token, result=result) is None
    assert json.loads(world.again(command).result or "") == result


def test_other_commands_report_what_they_like(world: World) -> None:
    """The two members mean something in the result of a reset alone."""
    device_id, token = world.bound()
    command = world.create(device_id, "reboot")
    assert world.ack(command, "executed", token, result={"recordings": "all", "technique": 1}) is None
