"""Open commands that an older version signed: they are signed again at the start, since devices check more by now."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import commands, grants
from gateway.store import Tx, signing_key_sql
from gateway.store.command_sql import CommandRecord
from tests.domain.support import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


def claims(command: CommandRecord) -> dict[str, Any]:
    """What the grant of a command says."""
    text = command.grant_token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


def as_before(world: World, command: CommandRecord, **fields: Any) -> CommandRecord:
    """The same command as an older version had written it: a grant without ``par`` and ``seq``, and no number."""

    def rewrite(tx: Tx) -> None:
        key = signing_key_sql.signing_key(tx)
        assert key is not None
        said = {name: value for name, value in claims(command).items() if name not in {"par", "seq"}}
        signed = grants._signed(said, key.kid, grants._private(key.private_key), "JWT")  # noqa: SLF001 - an older version's
        row = {"seq": None, "grant_token": signed, **fields}
        changes = ", ".join(f"{name} = ?" for name in row)
        tx.run(f"UPDATE commands SET {changes} WHERE id = ?", *row.values(), command.id)  # noqa: S608 - constants

    world.run(rewrite)
    return world.again(command)


def changed(before: CommandRecord, after: CommandRecord) -> set[str]:
    """The fields that differ."""
    return {name for name, value in before._asdict().items() if after._asdict()[name] != value}


def test_an_open_command_is_signed_again(world: World) -> None:
    """The same id, time and issuer, by the same key; with its params and a number, and the broker gets it."""
    device_id, token = world.bound()
    reboot = as_before(world, world.create(device_id, "reboot", params={"soft": True}))
    other, _ = world.bound("SN-2")
    reset = as_before(world, world.reset(other))
    world.settle()
    assert world.run(commands.renew_grants) == 2
    for before in (reboot, reset):
        after = world.again(before)
        assert changed(before, after) == {"seq", "grant_token"}
        added = {name: value for name, value in claims(after).items() if name not in claims(before)}
        assert set(added) == {"par", "seq"}
        assert (added["seq"], after.seq) == (1, 1)
        assert {**claims(after), **claims(before)} == claims(after)
        assert grants.verified(world.view, after.grant_token) == claims(after)
    assert sorted(world.outbox()) == [("command", "factory_reset"), ("command", "reboot")]
    assert world.run(commands.renew_grants) == 0
    world.cancel(device_id, reboot.id)
    assert world.create(device_id, "reboot").seq == 2
    assert world.ack(world.again(reboot), "executed", token) is None


def test_final_commands_keep_their_grant(world: World) -> None:
    """No device obeys it any more, so nothing is signed."""
    device_id, _ = world.bound()
    command = world.create(device_id)
    world.cancel(device_id, command.id)
    before = as_before(world, command)
    assert world.run(commands.renew_grants) == 0
    assert tuple(world.again(command)) == tuple(before)


def test_params_that_cannot_be_signed_end_their_command(world: World) -> None:
    """An older version took integers of any size; a device could not tell whether they are the gateway's."""
    device_id, _ = world.bound()
    command = as_before(world, world.create(device_id), params=json.dumps({"until": 2**60}))
    assert world.run(commands.renew_grants) == 1
    assert world.again(command).status == "cancelled"
    assert world.events()[-1] == "command.cancelled"
    assert world.create(device_id).seq == 1
