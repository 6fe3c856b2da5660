"""Token refresh: a lost answer never bricks a device, and never are more than two tokens good (contract, section 2)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.domain import devices
from gateway.errors import TooSoonError
from gateway.store import token_sql
from tests.domain.support import MINUTE_MS, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


def good(world: World, *secrets: str) -> list[str]:
    """The states of these tokens; ``gone`` for one that is forgotten."""
    rows = [token_sql.by_secret(world.view, secret) for secret in secrets]
    return ["gone" if row is None else row.state for row in rows]


def test_a_refreshed_token_is_of_the_same_binding(world: World) -> None:
    """Same generation, same key for grants; the newest is the one for a broker that holds one; told once."""
    device_id, old = world.bound()
    new = world.refresh(device_id, old)
    assert world.token(new).generation == world.token(old).generation == 1
    assert world.token(new).grant_kid == world.token(old).grant_kid
    assert world.device(device_id).binding_generation == 1
    assert good(world, old, new) == ["active", "active"]
    assert token_sql.broker_entries(world.view) == [(device_id, world.token(new).broker_entry)]
    assert world.outbox() == [("credential", "")]
    assert world.events(2) == ["token.refreshed"]
    assert world.facts() == {"device_id": device_id, "actor": device_id, "binding_generation": 1}


def test_the_old_token_is_good_until_the_new_one_is_used(world: World) -> None:
    """However often the old one is used; then it is revoked, told, and its session is to be cut."""
    device_id, old = world.bound()
    new = world.refresh(device_id, old)
    world.settle()
    world.use(old)
    assert good(world, old, new) == ["active", "active"]
    assert world.outbox() == []
    world.use(new)
    assert good(world, old, new) == ["revoked", "active"]
    assert world.outbox() == [("credential", "")]
    assert world.events(3) == ["token.revoked"]
    assert world.facts() == {"device_id": device_id, "actor": device_id, "binding_generation": 1, "replaced": True}
    world.settle()
    world.use(new)
    assert (world.outbox(), world.events(4)) == ([], [])


def test_repeated_refreshes_keep_two_tokens(world: World) -> None:
    """The one in use and the newest are good; those between, never used, are not."""
    device_id, old = world.bound()
    answers = [world.refresh(device_id, old) for _ in range(4)]
    assert good(world, old, *answers) == ["active", "revoked", "revoked", "revoked", "active"]
    assert world.events(2) == ["token.refreshed", *["token.revoked", "token.refreshed"] * 3]


def test_a_refresh_with_the_new_token_is_its_first_use(world: World) -> None:
    """The old one is revoked by that, and another new one is minted."""
    device_id, old = world.bound()
    second = world.refresh(device_id, old)
    third = world.refresh(device_id, second)
    assert good(world, old, second, third) == ["revoked", "active", "active"]


def test_a_token_that_was_revoked_meanwhile_replaces_nothing(world: World) -> None:
    """It was let in, then another took its place, then its use is noted: too late to revoke the one in use."""
    device_id, old = world.bound()
    passed_over = world.refresh(device_id, old)
    newest = world.refresh(device_id, old)
    world.use(passed_over)
    assert good(world, old, passed_over, newest) == ["active", "revoked", "active"]


def test_a_reset_demotes_both_tokens(world: World) -> None:
    """Both open the reset alone, either one's receipt is good for it, and then neither opens anything."""
    for serial, which in (("SN-1", 0), ("SN-2", 1)):
        device_id, old = world.bound(serial)
        both = (old, world.refresh(device_id, old))
        command = world.reset(device_id)
        assert command.binding_generation == 1
        assert good(world, *both) == ["reset_only", "reset_only"]
        world.ack(command, "executed", both[which])
        assert world.again(command).status == "executed"
        assert good(world, *both) == ["revoked", "revoked"]


@pytest.mark.guarantee("G12")
def test_a_reset_only_token_is_refreshed_to_reset_only(world: World) -> None:
    """Of the same generation, good for the reset alone; either receipt is good, and the first use ends the old one."""
    device_id, old = world.bound()
    world.refresh(device_id, old)
    command = world.reset(device_id)
    new = world.refresh(device_id, old)
    assert good(world, old, new) == ["reset_only", "reset_only"]
    assert world.token(new).generation == command.binding_generation == 1
    assert token_sql.broker_entries(world.view) == [(device_id, world.token(new).broker_entry)]
    world.use(new)
    assert good(world, old, new) == ["revoked", "reset_only"]
    world.ack(command, "executed", new)
    assert world.again(command).status == "executed"
    assert good(world, old, new) == ["revoked", "revoked"]


@pytest.mark.parametrize("used", [False, True])
def test_a_refresh_is_refused_within_a_minute_of_the_last(world: World, used: bool) -> None:  # noqa: FBT001
    """Whether the new token was used or not, and to the second; the first one after a bind is not."""
    device_id, old = world.bound()
    new = world.refresh(device_id, old)
    if used:
        world.use(new)
    asking = world.token(new if used else old).id
    for passed, wait in ((0, 60), (1, 60), (30_000, 30), (MINUTE_MS - 1, 1)):
        world.now = world.token(new).created_at + passed
        with pytest.raises(TooSoonError) as refused:
            world.run(devices.refresh, world.project_id, device_id, asking)
        assert (refused.value.seconds, refused.value.details) == (wait, {"retry_after_seconds": wait})
    assert good(world, old, new) == ["revoked" if used else "active", "active"]
    world.now = world.token(new).created_at + MINUTE_MS
    world.run(devices.refresh, world.project_id, device_id, asking)


def test_a_clock_that_was_set_back_does_not_delay_a_refresh(world: World) -> None:
    """A token that is dated ahead was not minted within the last minute."""
    device_id, old = world.bound()
    world.refresh(device_id, old)
    world.now -= 3_600_000
    world.run(devices.refresh, world.project_id, device_id, world.token(old).id)


@pytest.mark.parametrize("end", [World.unbind, World.delete])
def test_the_end_of_a_binding_is_the_end_of_both_tokens(world: World, end: object) -> None:
    """Unbound or deleted."""
    device_id, old = world.bound()
    world.refresh(device_id, old)
    assert callable(end)
    end(world, device_id)
    assert world.token_states(device_id) == ["revoked", "revoked"]
    assert devices.token_state(world.view, world.record(device_id).pk) is None


def test_old_tokens_of_a_binding_are_deleted(world: World) -> None:
    """The newest eight of the binding stay, those that are good among them; other bindings keep theirs."""
    device_id, first = world.bound()
    world.unbind(device_id)
    old = world.bind(device_id).device_token
    latest = [world.refresh(device_id, old) for _ in range(20)][-1]
    assert len(world.token_states(device_id)) == 1 + 1 + 8
    assert good(world, first, old, latest) == ["revoked", "active", "active"]
    for _ in range(20):
        latest = world.refresh(device_id, latest)
    assert len(world.token_states(device_id)) == 1 + 8
    assert good(world, old, latest) == ["gone", "active"]
