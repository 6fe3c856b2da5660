"""Certificates of reset: one for each end, in one chain for each project, true and without a person (section 7)."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.domain import certificates, devices, epoch, grants
from gateway.domain.acknowledgements import acknowledge, relayed_by
from gateway.errors import ConflictError, NotFoundError
from gateway.models.commands import Ack
from gateway.models.resets import ResetDevice
from gateway.store import certificate_sql, key_sql, reset_sql
from gateway.store.certificate_sql import CertificateRecord
from gateway.store.command_sql import CommandRecord
from tests.domain.support import World, receipt

RESULT = {
    "wiped": ["device_token", "pairing", "recordings"],
    "kept": ["serial_number"],
    "recordings": {"wiped": 3, "kept": 0},
    "technique": {"device_token": "key_destroyed", "recordings": "overwritten"},
}
Json = dict[str, Any]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


def of(world: World, command: CommandRecord) -> list[CertificateRecord]:
    """The certificates of a reset."""
    return certificate_sql.of_reset(world.view, command.id)


def checked(world: World, certificate: CertificateRecord) -> Json:
    """The claims, as a library that is not ours reads and checks them with the published keys."""
    published = jwt.PyJWKSet.from_dict({"keys": [key.model_dump() for key in grants.published_keys(world.view)]})
    signed = jwt.api_jws.PyJWS().decode_complete(certificate.jws, published[certificate.kid].key, algorithms=["EdDSA"])
    assert signed["header"] == {"alg": "EdDSA", "kid": certificate.kid, "typ": "reset-certificate+jwt"}
    claims: Json = json.loads(signed["payload"])
    return claims


def chain(world: World, project_id: str | None = None) -> list[CertificateRecord]:
    """The certificates of a project, oldest first, each checked against the one before it."""
    found = certificate_sql.page(world.view, project_id or world.project_id, after=0, limit=1_000)
    previous = None
    for number, each in enumerate(found, 1):
        claims = checked(world, each)
        assert (claims["number"], claims["previous"], claims["jti"]) == (number, previous, each.id)
        previous = hashlib.sha256(each.jws.encode()).hexdigest()
        assert each.sha256 == previous
    return found


def executed(world: World, command: CommandRecord, token: str) -> None:
    """The device carries the reset out."""
    world.ack(command, "delivered", token)
    world.now += 2_000
    world.ack(command, "executed", token, result=RESULT)


def test_a_certificate_says_all_that_was_known(world: World) -> None:
    """To the claim, as a library that is not ours reads it with the published key."""
    device_id = world.register(model="bota_note", firmware_version="1.4.2")
    token = world.bind(device_id, "eu_4711").device_token
    asked = ResetDevice(reason="Returned by ward 3", recordings="wipe")
    world.run(devices.reset, world.project_id, device_id, "key_1", asked)
    command = world.command(device_id)
    executed(world, command, token)
    (certificate,) = of(world, command)
    claims = checked(world, certificate)
    assert claims == {
        "iss": "gateway",
        "iat": world.now // 1000,
        "jti": certificate.id,
        "sub": device_id,
        "project_id": world.project_id,
        "number": 1,
        "addendum_to": None,
        "outcome": "executed",
        "device": {"serial_number": "SN-1", "model": "bota_note", "firmware_version": "1.4.2"},
        "end_user": {"hash": reset_sql.find(world.view, command.id).end_user},  # type: ignore[union-attr]
        "request": {
            "at": "2026-11-10T12:00:00.000Z",
            "actor": "key_1",
            "reason": "Returned by ward 3",
            "request_id": None,
            "recordings": "wipe",
        },
        "generation": {"before": 1, "after": 2},
        "grant": {"kid": grants.key_id(command.grant_token), "jti": command.id},
        "delivered_at": "2026-11-10T12:00:00.000Z",
        "executed_at": "2026-11-10T12:00:02.000Z",
        "finished_at": "2026-11-10T12:00:02.000Z",
        "wiped": RESULT["wiped"],
        "kept": RESULT["kept"],
        "recordings": RESULT["recordings"],
        "technique": RESULT["technique"],
        "late": None,
        "receipt": {"alg": "HMAC-SHA256", "verified": True, "late": False},
        "gateway": {
            "token_revoked_at": "2026-11-10T12:00:02.000Z",
            "sessions_closed_at": None,
            "retained_cleared_at": None,
        },
        "previous": None,
    }
    assert "eu_4711" not in json.dumps(claims)


def _relay(world: World, device_id: str, command: CommandRecord, token: str) -> None:
    proof = receipt(token, command.id, "executed", command.binding_generation)
    ack = Ack(command_id=command.id, status="executed", receipt=proof)
    world.run(lambda tx: acknowledge(tx, world.device(device_id), None, ack, relayed_by("key_1")))


ENDS: dict[str, Callable[[World, str, CommandRecord, str], object]] = {
    "executed": lambda world, _, command, token: world.ack(command, "executed", token),
    "executed by a relay": _relay,
    "executed by a heartbeat": lambda world, device_id, command, token: world.beat(
        device_id,
        last_command={
            "command_id": command.id,
            "status": "executed",
            "receipt": receipt(token, command.id, "executed", command.binding_generation),
        },
    ),
    "failed": lambda world, _, command, token: world.ack(command, "failed", token, error={"code": "flash"}),
    "cancelled": lambda world, device_id, command, _: world.cancel(device_id, command.id),
    "superseded": lambda world, device_id, _, __: world.supersede(device_id),
}


@pytest.mark.parametrize("end", ENDS)
def test_each_end_has_one_certificate_that_its_event_names(world: World, end: str) -> None:
    """On every path, in the transaction of the end; a repeated word writes no other."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    assert of(world, command) == []
    ENDS[end](world, device_id, command, token)
    (certificate,) = of(world, command)
    claims = checked(world, certificate)
    outcome = end.split(maxsplit=1)[0]
    assert claims["outcome"] == outcome
    assert (claims["receipt"] is not None) == (outcome in ("executed", "failed"))
    kind = {"executed": "reset.completed", "cancelled": "command.cancelled"}.get(outcome, f"reset.{outcome}")
    (data,) = (json.loads(row["data"]) for row in world.view.all("SELECT data FROM events WHERE type = ?", kind))
    assert data["certificate_id"] == certificate.id
    if outcome in ("executed", "failed"):
        world.ack(command, outcome, token)
        assert of(world, command) == [certificate]


def test_a_write_that_is_undone_leaves_no_certificate(world: World) -> None:
    """It stands and falls with the end of the reset."""
    device_id, _ = world.bound()
    command = world.reset(device_id)

    def fail(tx: Any) -> None:
        devices.supersede_reset(tx, world.project_id, device_id, "key_1")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        world.run(fail)
    assert of(world, command) == []
    world.supersede(device_id)
    assert [each.seq for each in of(world, command)] == [1]


def test_a_late_word_is_an_addendum_and_the_first_stays(world: World) -> None:
    """What the device says after the end, with what the gateway did meanwhile."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    world.cancel(device_id, command.id)
    (first,) = of(world, command)
    world.run(reset_sql.set_retained_cleared, [device_id])
    world.now += 60_000
    world.ack(command, "executed", token, result=RESULT)
    again, addendum = of(world, command)
    assert again == first
    claims = checked(world, addendum)
    assert (claims["addendum_to"], claims["outcome"], claims["late"]) == (first.id, "cancelled", {"status": "executed"})
    assert (claims["receipt"]["late"], claims["wiped"], claims["executed_at"]) == (True, RESULT["wiped"], None)
    assert claims["gateway"]["retained_cleared_at"] == "2026-11-10T12:00:00.000Z"
    assert world.facts()["certificate_id"] == addendum.id
    world.ack(command, "executed", token, result=RESULT)
    assert len(of(world, command)) == 2
    assert [each.kind for each in chain(world)] == ["first", "addendum"]


def test_each_project_has_one_unbroken_chain(world: World) -> None:
    """Across devices, outcomes and a rotated key; those of another project are in its own."""
    other = world.run(key_sql.create_project, "other")
    for number in range(6):
        device_id, token = world.bound(f"SN-{number}")
        command = world.reset(device_id)
        if number == 3:
            world.run(grants.rotate)
        if number % 2:
            executed(world, command, token)
        else:
            world.cancel(device_id, command.id)
    home, world.project_id = world.project_id, other
    device_id, _ = world.bound("SN-1")
    world.cancel(device_id, world.reset(device_id).id)
    assert len(chain(world, home)) == 6
    assert len(chain(world, other)) == 1
    assert len({each.kid for each in chain(world, home)}) == 2


def test_keys_that_signed_certificates_stay_published(world: World) -> None:
    """After a rotation without any device that obeys the old one, and after a leak, which is said then."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    executed(world, command, token)
    (certificate,) = of(world, command)
    world.run(grants.rotate)
    unused = world.run(grants.rotate)
    world.run(grants.rotate)
    kids = [key.kid for key in grants.published_keys(world.view)]
    assert certificate.kid in kids
    assert unused not in kids
    world.connection.execute("UPDATE signing_keys SET leaked_at = ? WHERE kid = ?", (world.now, certificate.kid))
    leaked = {key.kid: key for key in grants.published_keys(world.view)}[certificate.kid]
    assert leaked.model_dump()["leaked_at"] == "2026-11-10T12:00:02.000Z"
    checked(world, certificate)


def test_a_new_epoch_continues_the_chain(world: World) -> None:
    """Its key signs from then on; an open reset that it signs again ends with a certificate like any other."""
    devices_before = [world.bound(f"SN-{number}") for number in range(2)]
    first, second = (world.reset(device_id) for device_id, _ in devices_before)
    executed(world, first, devices_before[0][1])
    world.run(epoch.begin, epoch.RESTORED)
    executed(world, world.again(second), devices_before[1][1])
    before, after = chain(world)
    assert before.kid != after.kid
    assert checked(world, after)["grant"]["kid"] == grants.key_id(world.again(second).grant_token)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (["pairing", "owner eu_1", "eu_1", "x" * 65, 7, None, "wifi_networks"], ["pairing", "wifi_networks"]),
        ("everything", None),
        ([f"part_{number}" for number in range(80)], [f"part_{number}" for number in range(64)]),
    ],
)
def test_a_device_cannot_bring_a_person_into_a_certificate(world: World, said: Any, shown: Any) -> None:
    """Only plain names of ``wiped`` and ``kept`` are repeated; the command's result has all of it."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    world.ack(command, "executed", token, result={"wiped": said, "kept": said})
    (certificate,) = of(world, command)
    claims = checked(world, certificate)
    assert (claims["wiped"], claims["kept"]) == (shown, shown)
    assert "eu_" not in json.dumps(claims)


def test_what_has_no_certificate_says_why(world: World) -> None:
    """An open reset, an unknown one, another device's, and one from before certificates."""
    device_id, token = world.bound()
    command = world.reset(device_id)
    device = world.device(device_id)
    with pytest.raises(ConflictError, match="still open") as open_:
        certificates.of_reset(world.view, device, command.id)
    assert open_.value.code == "reset_pending"
    with pytest.raises(NotFoundError, match="no factory reset 'cmd_9'"):
        certificates.of_reset(world.view, device, "cmd_9")
    with pytest.raises(NotFoundError, match="no factory reset"):
        certificates.of_reset(world.view, world.device(world.register("SN-2")), command.id)
    world.connection.execute("UPDATE resets SET finished_at = 1, outcome = 'cancelled'")
    with pytest.raises(NotFoundError, match="wrote no certificates"):
        certificates.of_reset(world.view, device, command.id)
    world.connection.execute("UPDATE commands SET status = 'cancelled', final_at = 1")
    world.ack(command, "executed", token)
    assert certificate_sql.page(world.view, world.project_id, after=0, limit=9) == []
