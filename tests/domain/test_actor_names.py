"""Names of actors: written into events, resets and certificates when it happens, and kept when keys change or go."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.ids import END_USER
from gateway.domain import certificate_check, certificates, devices, erasures, grants
from gateway.models.events import ListProjectEvents
from gateway.models.reset_list import ListResets
from gateway.runtime.os_user import os_user
from gateway.store import actor_names, certificate_sql, event_list, event_sql, key_sql, people_sql, reset_list
from gateway.store.event_sql import EventRecord
from tests.domain.job_support import make_by, work
from tests.domain.support import World

SECRET = "sk_live_" + "x" * 40


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry."""
    with World(tmp_path) as opened:
        yield opened


def key(world: World, name: str) -> str:
    """A key with this name."""
    return world.run(key_sql.create, world.project_id, name)[0]


def events_of(world: World, **query: str) -> list[EventRecord]:
    """The newest events that pass these filters."""
    wanted = ListProjectEvents.model_validate(query)
    return event_list.page_of_project(world.view, world.project_id, wanted, None, 9)


def ended_reset(world: World, actor: str, serial: str = "SN-1") -> str:
    """The command of a reset that this actor asked for, and that was cancelled."""
    device_id, _ = world.bound(serial)
    world.run(devices.reset, world.project_id, device_id, actor)
    command = world.command(device_id)
    world.cancel(device_id, command.id)
    world.settle()
    return command.id


def jws(world: World, command_id: str) -> str:
    """The certificate of a reset."""
    return certificate_sql.of_reset(world.view, command_id)[0].jws


def test_an_actor_has_the_name_of_now(world: World) -> None:
    """A key its own, a person that of the newest sign-in, the command line its user; others have none."""
    key_id = key(world, "ward app")
    for name in ("Ann", "Ann Smith"):
        world.run(people_sql.save, "ann", name)
    names = {"key": key_id, "person": "user:ann", "cli": "cli", "gateway": "gateway", "device": "dev_1", "no": "key_9"}
    found = {kind: world.run(actor_names.of, actor) for kind, actor in names.items()}
    assert found == {
        "key": "ward app",
        "person": "Ann Smith",
        "cli": os_user(),
        "gateway": None,
        "device": None,
        "no": None,
    }


def test_a_gateway_does_not_name_its_own_user(world: World) -> None:
    """What the command line asked for and a gateway does later: its process has another user."""
    world.context = replace(world.context, serves=True)
    assert world.run(actor_names.of, "cli") is None
    device_id, _ = world.bound()
    world.run(devices.reset, world.project_id, device_id, "cli")
    assert "actor_name" not in world.facts()


def test_what_a_job_does_names_its_creator(world: World) -> None:
    """As at the creation, by whatever process, and after the key is gone."""
    for number, (actor, name) in enumerate(((key(world, "ward app"), "ward app"), ("cli", os_user()))):
        world.context = replace(world.context, serves=False)
        job = make_by(world, actor, [world.bound(f"SN-{number}")[0]])
        assert (job.created_by, job.created_by_name) == (actor, name)
        world.run(lambda tx: tx.run("DELETE FROM api_keys"))
        world.context = replace(world.context, serves=True)
        assert work(world, job) == 1
        (event,) = events_of(world, actor=actor, type="reset.requested")
        assert json.loads(event.data)["actor_name"] == name
        (listed, *_) = reset_list.page(world.view, world.project_id, ListResets(), 20)
        assert (listed.requested_by, listed.requested_by_name) == (actor, name)


def test_a_reset_keeps_the_name_of_its_request(world: World) -> None:
    """In the list and in the certificate, when the key was renamed and deleted before the end."""
    key_id = key(world, "ward app")
    device_id, _ = world.bound()
    world.run(devices.reset, world.project_id, device_id, key_id)
    command = world.command(device_id)
    world.run(lambda tx: tx.run("DELETE FROM api_keys WHERE id = ?", key_id))
    world.cancel(device_id, command.id)
    (listed,) = reset_list.page(world.view, world.project_id, ListResets(), 20)
    assert (listed.requested_by, listed.requested_by_name) == (key_id, "ward app")
    claims = certificates.claims(jws(world, command.id)).request
    assert (claims.actor, claims.actor_name) == (key_id, "ward app")
    (event,) = events_of(world, type="reset.requested")
    assert json.loads(event.data)["actor_name"] == "ward app"


@pytest.mark.parametrize(("name", "shown"), [("app of eu_42", None), (SECRET, "sk_live_***")])
def test_what_may_not_be_signed_is_left_out(world: World, name: str, shown: str | None) -> None:
    """The id of an end user and a secret: a certificate cannot be changed later."""
    command_id = ended_reset(world, key(world, name))
    signed = jws(world, command_id)
    claims = certificates.claims(signed).request
    assert SECRET not in str(claims.actor_name)
    assert END_USER not in str(claims.actor_name)
    assert (claims.actor_name is None) is (shown is None)
    (listed,) = reset_list.page(world.view, world.project_id, ListResets(), 20)
    assert listed.requested_by_name == claims.actor_name


def test_a_certificate_without_a_name_is_as_before(world: World) -> None:
    """The claim is absent, not null: what stands beside the JWS of an earlier certificate is still what was signed."""
    for actor, serial in (("key_unknown", "SN-1"), (key(world, "ward app"), "SN-2")):
        ended_reset(world, actor, serial)
    public = json.dumps({"keys": [each.model_dump() for each in grants.published_keys(world.view)]})
    lines = []
    for row in certificate_sql.page(world.view, world.project_id, after=0, limit=9):
        claims = json.loads(certificates.claims(row.jws).model_dump_json())
        lines.append(json.dumps({"jws": row.jws, "claims": claims, "sha256": row.sha256}))
    assert ['"actor_name"' in line for line in lines] == [False, True]
    (checked,) = certificate_check.check(lines, certificate_check.keys(public))
    assert checked.certificates == 2


def test_an_erased_id_in_an_actor_is_erased_in_its_index(world: World) -> None:
    """A person who signs in under the id of an end user: events are found by the pseudonym alone."""
    device_id, _ = world.bound()
    world.run(lambda tx: event_sql.record(tx, world.device(device_id), "device.updated", "user:eu_9"))
    seqs = [world.view.value("SELECT max(seq) FROM events")]
    erasure = world.run(erasures.accept, world.project_id, "eu_9", "key_1")
    world.run(erasures.erase_in_events, erasure, seqs)
    (event,) = events_of(world, type="device.updated")
    actor = json.loads(event.data)["actor"]
    assert "eu_9" not in actor
    assert [each.id for each in events_of(world, actor=actor)] == [event.id]
    assert events_of(world, actor="user:eu_9") == []
