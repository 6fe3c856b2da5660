"""A restored registry and a device with a newer signing key: whose key counts, and when a bind is needed."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from device_sim.actions import CommandReceived
from device_sim.device import State
from gateway.domain import administration, certificate_check, grants, restoring
from gateway.store import View, certificate_sql, key_sql, open_database, signing_key_sql
from gateway.store.command_sql import CommandRecord
from tests.domain.key_change import (
    KeyChangeBench,
    deliver_key,
    restore,
    rotate,
    signed_with,
    snapshot,
)
from tests.domain.support import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


@pytest.fixture
def pair(world: World) -> KeyChangeBench:
    """A bound device that is online."""
    return KeyChangeBench.bound(world)


@pytest.mark.sqlite
def test_a_restored_registry_follows_the_device(world: World, pair: KeyChangeBench) -> None:
    """The copy knows the key and not that the device took it. A reset is refused once, signed again, and obeyed."""
    old, new = rotate(world)
    copy = snapshot(world)
    deliver_key(world)
    pair.exchange()
    restore(world, copy)
    assert (pair.signer, pair.obeys) == (old, [new])
    reset = world.reset(pair.id)
    pair.exchange()
    assert world.again(reset).status == "executed"
    assert "device.grant_key_changed" in world.events()


@pytest.mark.sqlite
def test_a_restored_copy_with_the_open_command_continues(world: World, pair: KeyChangeBench) -> None:
    """The device repeats its word on the same command."""
    _, new = rotate(world)
    deliver_key(world)
    copy = snapshot(world)
    pair.exchange()
    restore(world, copy)
    pair.exchange()
    assert (pair.signer, pair.obeys) == (new, [new])


@pytest.mark.sqlite
def test_a_restored_copy_from_before_the_key_needs_a_bind(world: World, pair: KeyChangeBench) -> None:
    """It cannot sign for the device, which needs a new bind: the failed command names the key that it obeys."""
    copy = snapshot(world)
    _, new = rotate(world)
    deliver_key(world)
    pair.exchange()
    restore(world, copy)
    done = world.create(pair.id, "trigger_upload")
    pair.exchange()
    failed = world.again(done)
    assert (failed.status, json.loads(failed.result or "{}")["grant_kid"]) == ("failed", new)


def test_a_key_that_leaked_is_not_followed(world: World, pair: KeyChangeBench) -> None:
    """Not even on a device's word."""
    old, new = rotate(world)
    command = world.create(pair.id, "trigger_upload")
    rotate(world)
    world.run(administration.mark_signing_key_leaked, new, "cli")
    _refuse(world, pair, command, grant_kid=new)
    assert (pair.signer, world.again(command).status) == (old, "failed")


def test_a_command_follows_once(world: World, pair: KeyChangeBench) -> None:
    """A broker may change which key the device named. That command fails, and the next one corrects the key."""
    old, new = rotate(world)
    first = world.create(pair.id, "trigger_upload")
    _refuse(world, pair, first, grant_kid=new)
    assert (pair.signer, world.again(first).status) == (new, "pending")
    pair.deliver()
    assert pair.said["result"] == {"grant_kid": old, "refused_kid": new}
    pair.process_device_messages()
    assert (pair.signer, world.again(first).status) == (new, "failed")
    second = world.create(pair.id, "trigger_upload")
    pair.exchange()
    assert (pair.signer, world.again(second).status) == (old, "executed")


def test_a_refusal_without_receipt_is_not_followed(world: World, pair: KeyChangeBench) -> None:
    """Anybody on the broker could have sent it."""
    old, new = rotate(world)
    command = world.create(pair.id, "trigger_upload")
    said = {"grant_kid": new, "refused_kid": old}
    world.ack(command, "failed", error={"code": "grant_invalid", "message": ""}, result=said)
    assert (pair.signer, world.again(command).status) == (old, "failed")


def _refuse(world: World, pair: KeyChangeBench, command: CommandRecord, *, grant_kid: str) -> None:
    """The device refuses a spoilt copy, and the broker changes which key it named."""
    spoilt = signed_with(world, pair.signer, command)
    body = json.loads(json.dumps({"id": spoilt.id, "type": spoilt.type, "params": {}, "expires_at": None}))
    body |= {"binding_generation": spoilt.binding_generation, "grant_token": spoilt.grant_token[:-4] + "AAAA"}
    pair.bench.feed(CommandReceived(command.type, json.dumps(body).encode()))
    said = pair.said
    assert said["error"]["code"] == "grant_invalid"
    pair.read = len(pair.bench.sent)
    said["result"]["grant_kid"] = grant_kid
    assert world.say(world.names.ack(pair.id, command.type), said) is None


def _restore_file(world: World, copy: Path) -> restoring.Restored:
    """Restore as ``gateway restore`` does, from one file to the other."""
    world.connection.close()
    restored = restoring.restore(world.data_dir, copy)
    world.connection = open_database(world.data_dir)
    world.view = View(world.connection)
    return restored


def _backup_file(world: World, file: Path) -> Path:
    world.run(key_sql.set_meta, "gateway_id", "gw_1")
    with closing(sqlite3.connect(file)) as copy:
        world.connection.backup(copy)
    return file


@pytest.mark.sqlite
def test_a_restore_takes_over_the_key_of_a_device(world: World, pair: KeyChangeBench, tmp_path: Path) -> None:
    """From the replaced registry, retired: new bindings get the key of the new epoch, and the device is obeyed."""
    copy = _backup_file(world, tmp_path / "copy.db")
    _, new = rotate(world)
    deliver_key(world)
    pair.exchange()
    restored = _restore_file(world, copy)
    assert restored.kept_keys == 1
    in_use = signing_key_sql.signing_key(world.view)
    assert in_use is not None
    assert in_use.kid == restored.epoch.kid != new
    reset = world.reset(pair.id)
    pair.exchange()
    assert world.again(reset).status == "executed"


@pytest.mark.sqlite
def test_a_restore_keeps_the_mark_of_a_leaked_key(world: World, pair: KeyChangeBench, tmp_path: Path) -> None:
    """The copy does not know that it leaked."""
    copy = _backup_file(world, tmp_path / "copy.db")
    old, _ = rotate(world)
    world.run(administration.mark_signing_key_leaked, old, "cli")
    assert _restore_file(world, copy).kept_keys == 0
    deliver_key(world)
    assert pair.statuses() == []
    key = signing_key_sql.signing_key(world.view, old)
    assert key is not None
    assert key.leaked_at is not None


@pytest.mark.sqlite
def test_a_restore_keeps_the_keys_of_certificates_that_it_loses(
    world: World, pair: KeyChangeBench, tmp_path: Path
) -> None:
    """What was handed out stays verifiable, over another restore too; the chain goes on from that of the copy."""
    copy = _backup_file(world, tmp_path / "copy.db")
    _, new = rotate(world)
    world.cancel(pair.id, world.reset(pair.id).id)
    (lost,) = certificate_sql.page(world.view, world.project_id, after=0, limit=9)
    world.run(grants.rotate)
    assert lost.kid == new
    assert _restore_file(world, copy).kept_keys == 1
    assert certificate_sql.page(world.view, world.project_id, after=0, limit=9) == []
    again = _backup_file(world, tmp_path / "again.db")
    _restore_file(world, copy)
    assert new in signing_key_sql.signing_key_ids(world.view)
    _restore_file(world, again)
    published = {"keys": [key.model_dump() for key in grants.published_keys(world.view)]}
    assert certificate_check.check([lost.jws], certificate_check.keys(json.dumps(published)))[0].last == 1
    world.cancel(pair.id, world.reset(pair.id).id)
    (first,) = certificate_sql.page(world.view, world.project_id, after=0, limit=9)
    with pytest.raises(certificate_check.CertificateError, match="a restored backup began a second chain here"):
        certificate_check.check(
            [lost.jws, first.jws],
            certificate_check.keys(
                json.dumps({"keys": [key.model_dump() for key in grants.published_keys(world.view)]})
            ),
        )


@pytest.mark.sqlite
def test_a_restore_without_the_replaced_registry(world: World, pair: KeyChangeBench, tmp_path: Path) -> None:
    """Nothing to take over; the device that is still in the copy keeps its key."""
    copy = _backup_file(world, tmp_path / "copy.db")
    world.connection.close()
    for file in world.data_dir.glob("gateway.db*"):
        file.unlink()
    assert _restore_file(world, copy).kept_keys == 0
    world.reset(pair.id)
    pair.exchange()
    assert pair.bench.device.state is State.UNPROVISIONED
