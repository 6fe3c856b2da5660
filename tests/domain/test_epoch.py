"""A registry that was put back begins a new epoch: no binding made in it obeys what was issued before it."""

import base64
import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.bootstrap import first_start
from gateway.domain import commands, devices, epoch
from gateway.settings.loading import Settings
from gateway.store import DATABASE_NAME, Rules, View, account_sql, open_database, outbox_sql, signing_key_sql
from gateway.store.broker_sql import FIRST
from gateway.store.epoch_sql import Position, position
from gateway.store.position_file import POSITION_NAME, read_position, write_position
from gateway.store.sqlite.lock import exclusive
from tests.domain.support import World

HIGHEST = 2**31


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path / "data") as world:
        yield world


def begin(world: World, known: int = 0) -> epoch.Epoch:
    """Begin a new epoch."""
    return world.run(lambda tx: epoch.begin(tx, "a test", known=known))


def test_a_new_binding_has_another_key_and_generation(world: World) -> None:
    """Both fences: the key of before the epoch signs for no binding made in it, and its generations are far below."""
    device_id = world.register()
    before = world.bind(device_id)
    world.unbind(device_id)
    began = begin(world)
    after = world.bind(device_id)
    assert after.grant_key.kid == began.kid != before.grant_key.kid
    assert after.device.binding_generation == began.base + 1
    assert began.base > before.device.binding_generation + epoch.STEP


def test_a_bound_device_keeps_its_token_after_a_restore(world: World) -> None:
    """Its token, generation and key stay, so that it obeys the next reset, and its receipt is taken."""
    device_id, token = world.bound()
    held = world.token(token)
    begin(world)
    assert tuple(world.token(token)) == tuple(held)
    command = world.reset(device_id)
    assert command.binding_generation == held.generation
    assert _kid(command.grant_token) == held.grant_kid
    assert world.ack(command, "executed", token) is None
    assert world.again(command).status == "executed"


def test_an_open_reset_can_still_be_fetched(world: World) -> None:
    """The device is bound since before the epoch: the reset stays as it is, under a number above all of before."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    world.settle()
    began = begin(world)
    now = world.command(device_id)
    changed = {name for name, value in command._asdict().items() if now._asdict()[name] != value}
    assert changed == {"grant_token", "seq"}
    before, after = _claims(command.grant_token), _claims(now.grant_token)
    assert after == {**before, "seq": now.seq}
    assert now.seq == began.base + 1
    assert _kid(now.grant_token) == _kid(command.grant_token) != began.kid
    assert world.outbox() == [("command", "factory_reset")]
    assert world.token(token).state == "reset_only"
    assert world.ack(command, "executed", token) is None
    assert world.again(command).status == "executed"
    assert world.token_states(device_id) == ["revoked"]


def test_a_bound_device_obeys_commands_after_a_restore(world: World) -> None:
    """The lost registry may have sent it any number of them: the next is above them all, of each type."""
    device_id, _ = world.bound()
    open_since_before = world.create(device_id, "trigger_upload")
    issued_since = epoch.known_by(position(world.view))
    began = begin(world, known=issued_since + 40)
    assert world.create(device_id, "reboot").seq == began.base + 1 > issued_since + 40
    assert tuple(world.again(open_since_before)) == tuple(open_since_before)
    world.cancel(device_id, open_since_before.id)
    assert world.create(device_id, "trigger_upload").seq == began.base + 1


def test_sequence_numbers_rise_over_an_epoch(world: World) -> None:
    """A registry whose numbers are above its generations begins above both; so does one that the broker knows of."""
    device_id, _ = world.bound()
    world.connection.execute("INSERT INTO meta (key, value) VALUES ('epoch_base', ?)", (str(2**30),))
    command = world.create(device_id)
    assert command.seq == 2**30 + 1
    world.connection.execute("DELETE FROM meta WHERE key = 'epoch_base'")
    world.connection.execute("DELETE FROM commands WHERE id = ?", (command.id,))
    held = json.dumps({"id": command.id, "grant_token": command.grant_token}).encode()
    unknown = epoch.unknown_command(world.view, [held])
    assert unknown == epoch.UnknownCommand(command.id, 2**30 + 1)
    assert epoch.unknown_command(world.view, [b"{}"], unknown) == unknown
    found = epoch.lost_history(world.view, None, unknown, FIRST)
    assert found is not None
    assert found[1] == 2**30 + 1
    assert begin(world, known=found[1]).base > 2**30 + epoch.STEP


def test_all_open_resets_are_signed_again_a_page_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, and no other command."""
    monkeypatch.setattr(commands, "READ_AT_ONCE", 2)
    resets = [world.reset(world.bound(f"SN-{number}")[0]) for number in range(5)]
    other = world.create(world.bound("SN-5")[0], "reboot")
    base = begin(world).base
    assert [world.again(each).seq for each in resets] == [base + 1] * 5
    assert world.again(other).seq == other.seq


def test_the_states_of_all_living_devices_are_mirrored_again(tmp_path: Path) -> None:
    """To integrators of all projects, and to those of projects that have one."""
    with World(tmp_path, rules=Rules(mirrored=(outbox_sql.STATE,))) as world:
        for serial in ("SN-1", "SN-2"):
            world.register(serial)
        deleted = world.register("SN-3")
        world.run(lambda tx: devices.delete(tx, world.project_id, deleted, "key_test"))
        world.settle()
        begin(world)
        assert world.outbox() == [("mirror", "state")] * 2
        world.settle()
        world.run(account_sql.create, "integrator_ward", world.project_id)
        world.settle()
        begin(world)
        assert sorted(world.outbox()) == [("mirror", "project_state")] * 2 + [("mirror", "state")] * 2


def test_the_generation_is_above_all_known_ones(world: World) -> None:
    """Above the registry's own, above what is known from outside, and below 2^31, which firmware must hold."""
    device_id = world.register()
    world.bind(device_id)
    first = begin(world)
    second = begin(world)
    third = begin(world, known=second.base + 5_000_000)
    assert second.base >= first.base + epoch.STEP
    assert third.base >= second.base + 5_000_000 + epoch.STEP
    assert third.base < HIGHEST


@pytest.mark.parametrize("year", [1970, 2024, 2026, 2092, 2200])
def test_a_wrong_clock_does_not_affect_generations(world: World, year: int) -> None:
    """Far behind, far ahead: it rises all the same, and stays within 31 bits."""
    world.register()
    before = begin(world).base
    world.now = (year - 1970) * 31_556_952_000
    assert before + epoch.STEP <= begin(world).base < HIGHEST


def test_two_restores_of_one_backup_differ(tmp_path: Path) -> None:
    """Where nothing is known of the first (another machine, the clock set back to the same instant) chance tells."""
    bases = set()
    for number in range(8):
        with World(tmp_path / str(number), seed=number) as world:
            world.register()
            bases.add(begin(world).base)
    assert len(bases) == 8


# --- a registry that was put back by hand -----------------------------------------------------------------------------


class DataDirectory:
    """A data directory as the gateway leaves it: the registry, and the file beside it that says how far it was."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_dir=folder)
        self.file = folder / DATABASE_NAME
        self.start()

    def start(self) -> list[str]:
        """Start as the gateway does; why a new epoch began, if one did."""
        with structlog.testing.capture_logs() as logged, exclusive(self.settings.data_dir):
            first_start(self.settings)
        return [each["reason"] for each in logged if each["event"] == "registry.put_back"]

    def work(self, times: int = 1) -> None:
        """Events happen, and the gateway notes how far the registry is."""
        self.events(times)
        write_position(self.settings.data_dir, self.position())

    def events(self, times: int = 1) -> None:
        """Events happen."""
        with closing(open_database(self.settings.data_dir)) as connection, connection:
            for _ in range(times):
                connection.execute(
                    """INSERT INTO events (id, project_id, type, created_at, data)
                        VALUES ('evt_' || hex(randomblob(13)), 'proj_1', 'device.bound', 0, '{}')"""
                )

    def position(self) -> Position:
        """How far the registry is."""
        with closing(open_database(self.settings.data_dir)) as connection:
            found = position(View(connection))
        assert found is not None
        return found

    def copy(self, name: str) -> Path:
        """A copy of the registry, as people make one while nothing runs."""
        target = self.file.with_name(name)
        with closing(sqlite3.connect(self.file)) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)
        return target

    def put_back(self, copy: Path) -> None:
        """What people do with a copy instead of ``gateway restore``."""
        for side in ("-wal", "-shm"):
            Path(f"{self.file}{side}").unlink(missing_ok=True)
        shutil.copyfile(copy, self.file)

    def kids(self) -> list[str]:
        """The key in use."""
        with closing(open_database(self.settings.data_dir)) as connection:
            return signing_key_sql.signing_key_ids(View(connection))


@pytest.fixture
def site(tmp_path: Path) -> DataDirectory:
    """A site on which something happened."""
    made = DataDirectory(tmp_path / "data")
    made.work(3)
    return made


@pytest.mark.sqlite
def test_a_normal_start_starts_no_epoch(site: DataDirectory) -> None:
    """After a stop, after a kill that came before the last note, and after a first start."""
    before = site.kids()
    assert site.start() == []
    site.events(2)
    assert site.start() == []
    assert site.kids() == before


@pytest.mark.sqlite
def test_an_old_copy_starts_a_new_epoch(site: DataDirectory) -> None:
    """And once only: the next start goes on in it."""
    copy, before = site.copy("copy"), site.kids()
    site.work()
    site.put_back(copy)
    [reason] = site.start()
    assert "ends at event 3" in reason
    assert site.kids() != before
    assert site.position().base > epoch.STEP
    assert site.start() == []


@pytest.mark.sqlite
def test_a_modified_old_copy_is_detected_by_its_events(site: DataDirectory) -> None:
    """The command line may have written to it before the gateway starts: it is as long, and tells something else."""
    copy = site.copy("copy")
    site.work(2)
    site.put_back(copy)
    site.events(4)
    [reason] = site.start()
    assert "its event 5 is" in reason


@pytest.mark.sqlite
def test_a_copy_of_an_earlier_epoch_is_detected(site: DataDirectory) -> None:
    """The registry that a restore put aside, moved back by hand."""
    site.work(20)
    aside = site.copy("aside")
    with closing(open_database(site.settings.data_dir)) as connection, connection:
        connection.execute("UPDATE meta SET value = 'another' WHERE key = 'epoch_id'")
    write_position(site.settings.data_dir, site.position())
    site.put_back(aside)
    assert len(site.start()) == 1


@pytest.mark.sqlite
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b'{"base": 1, "event_seq": 2}', b"\xff" * 512])
def test_a_missing_position_file_counts_as_a_copy(site: DataDirectory, content: bytes | None) -> None:
    """Moved to another machine by hand, or torn: a new epoch costs nothing that works."""
    place = site.settings.data_dir / POSITION_NAME
    place.unlink()
    if content is not None:
        place.write_bytes(content)
    assert len(site.start()) == 1
    assert site.start() == []


@pytest.mark.sqlite
def test_a_registry_of_an_older_version_gets_its_id(site: DataDirectory) -> None:
    """At the first start of this version it is taken for what it is; put back later it is a copy."""
    with closing(open_database(site.settings.data_dir)) as connection, connection:
        connection.execute("DELETE FROM meta WHERE key IN ('registry_id', 'epoch_id')")
    copy = site.copy("copy")
    (site.settings.data_dir / POSITION_NAME).unlink()
    assert site.start() == []
    site.work()
    site.put_back(copy)
    assert len(site.start()) == 1


@pytest.mark.sqlite
def test_a_running_gateway_skips_the_check_for_copies(site: DataDirectory) -> None:
    """``gateway keys create`` looks at a registry whose gateway notes how far it is a moment later."""
    noted = read_position(site.settings.data_dir)
    assert noted is not None
    write_position(site.settings.data_dir, replace(noted, event_seq=noted.event_seq + 5))
    with exclusive(site.settings.data_dir):
        lock = site.settings.data_dir / "gateway.lock"
        lock.write_text("1\n")  # the process that holds it is another one
        with structlog.testing.capture_logs() as logged:
            first_start(site.settings)
    assert [each for each in logged if each["event"] == "registry.put_back"] == []


@pytest.mark.sqlite
def test_the_file_is_private_and_one_block(site: DataDirectory) -> None:
    """It is overwritten in place, so it must not grow or shrink."""
    place = site.settings.data_dir / POSITION_NAME
    assert place.stat().st_mode & 0o777 == 0o600
    size = place.stat().st_size
    site.work(1_000)
    assert place.stat().st_size == size == 512
    assert json.loads(place.read_text())["event_seq"] == 1_003


def _kid(grant: str) -> str:
    return str(_part(grant, 0)["kid"])


def _claims(grant: str) -> dict[str, Any]:
    return _part(grant, 1)


def _part(grant: str, number: int) -> dict[str, Any]:
    text = grant.split(".")[number]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found
