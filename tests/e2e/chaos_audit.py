"""After the chaos: what must hold, found out from the database, the broker, the devices' flash and the logs."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from device_sim import SimulatedDevice
from device_sim.device import JOURNAL
from gateway.core.clock import to_rfc3339
from gateway.store import open_reader
from gateway.store.engine import DatabaseConnection
from tests.e2e.chaos_operator import RESET, Token
from tests.e2e.chaos_world import AUDITOR, SETTLE_SECONDS, Cell, ChaosWorld
from tests.e2e.program import error_lines
from tests.simulation import certificate_laws
from tests.support import wire
from tests.support.mqtt_password import mqtt_password_of
from tests.support.wait import eventually

_MARK = "auditor/mark"
_LAST_WORD = "devices/dev_LASTWORD/heartbeat"
_REFUSED = (wire.BAD_CREDENTIALS, wire.NOT_AUTHORISED)
_OPEN = "status IN ('pending', 'delivered')"
_ENDS = {
    "executed": ("reset.completed",),
    "failed": ("reset.failed",),
    "cancelled": ("reset.superseded", "command.cancelled"),
}

FETCH_SECONDS = SETTLE_SECONDS + 60
"""A device whose answer to a refresh was lost gets the next token a minute after it (contract, section 2)."""


@contextmanager
def registry(world: ChaosWorld) -> Iterator[DatabaseConnection]:
    """The database itself, to be read."""
    database = world.reading = world.reading or open_reader(world.registry)
    database.begin_read()
    try:
        yield database
    finally:
        database.end_read()


async def wait_until_all_done(world: ChaosWorld) -> None:
    """What a device can still fetch it has fetched: no reset is open for a token that lies in a device's flash."""
    await world.settled()
    left: list[tuple[str, SimulatedDevice]] = []

    def all_fetched() -> bool:
        left[:] = _can_be_fetched(world)
        return not left

    try:
        await eventually(all_fetched, "open resets are fetched", guard_seconds=FETCH_SECONDS)
    finally:
        for command_id, by in left:
            world.log(f"was not fetched: {command_id} by {by.serial}, which is {by.state}: {by.facts[-8:]}")
    await world.settled()


def _can_be_fetched(world: ChaosWorld) -> list[tuple[str, SimulatedDevice]]:
    held = {(each.device_id, each.generation): device for device in world.devices if (each := device.binding)}
    with registry(world) as database:
        rows = database.execute(
            f"""SELECT c.id, d.id AS device_id, c.binding_generation FROM commands c
                JOIN devices d ON d.pk = c.device_pk WHERE c.type = 'factory_reset' AND c.{_OPEN}"""  # noqa: S608 - our own words
        ).fetchall()
    found = [(row["id"], held.get((row["device_id"], row["binding_generation"]))) for row in rows]
    return [(command_id, holder) for command_id, holder in found if holder]


async def wait_until_all_arrived(world: ChaosWorld) -> None:
    """What the broker still held for the gateway is committed: a last message has been acknowledged behind it."""
    for cell in world.cells:
        async with cell.broker.client(AUDITOR) as auditor:
            await auditor.publish(_LAST_WORD, b"{}")
    await eventually(
        lambda: all(_last_word_was_taken(world, cell) for cell in world.cells),
        "the gateways have taken everything",
        guard_seconds=SETTLE_SECONDS,
    )


def _last_word_was_taken(world: ChaosWorld, cell: Cell) -> bool:
    taken = (heard.topic for member in world.members if member.cell is cell for heard in member.line.acknowledged)
    return _LAST_WORD in taken


async def both_sides_agree(world: ChaosWorld) -> None:
    """Retained messages on each broker = open commands in the registry, to the last byte of the grant.

    Those of a device with a home are on that broker alone.
    """
    with registry(world) as database:
        rows = database.execute(
            f"""SELECT d.id AS device_id, c.type, c.id, c.grant_token, b.id AS home FROM commands c
                JOIN devices d ON d.pk = c.device_pk LEFT JOIN homes h ON h.device_pk = d.pk
                LEFT JOIN brokers b ON b.pk = h.broker_pk WHERE c.{_OPEN}"""  # noqa: S608 - our own words
        ).fetchall()
    for number, cell in enumerate(world.cells):
        wanted = {
            f"devices/{row['device_id']}/commands/{row['type']}": (row["id"], row["grant_token"])
            for row in rows
            if row["home"] in (None, f"broker_{number}")
        }
        async with cell.broker.client(AUDITOR) as auditor:
            await auditor.subscribe("devices/+/commands/+", _MARK)
            await auditor.publish(_MARK, b"")
            held = {where: json.loads(payload) for where, payload in (await auditor.read_retained(_MARK)).items()}
        assert {where: (each["id"], each["grant_token"]) for where, each in held.items()} == wanted


def resets_are_kept(world: ChaosWorld) -> None:
    """Each reset that was answered 200 has its command, and each command its events, whatever became of it."""
    with registry(world) as database:
        asked = _events(database, "reset.requested")
    known = {command_id: status for command_id, (status, _) in _resets(world).items()}
    told = Counter(each["command_id"] for each in asked)
    assert told == Counter(list(known)), f"commands {known} and their events {told}"
    for reset in world.ledger.resets:
        found = [each["command_id"] for each in asked if (each["device_id"], each["binding_generation"]) == reset]
        assert len(found) == 1, f"the reset of {reset} has the commands {found}"
    _ends_are_told(world, known)


def certificates_are_whole(world: ChaosWorld) -> None:
    """Each final reset has one first certificate, and no chain has a gap or a changed link."""
    with registry(world) as database:
        assert list(certificate_laws.check_chains(database)) == []


def _ends_are_told(world: ChaosWorld, known: dict[str, str]) -> None:
    with registry(world) as database:
        for status, kinds in _ENDS.items():
            ended = Counter(each["command_id"] for kind in kinds for each in _events(database, kind))
            for command_id, its_status in known.items():
                assert ended[command_id] == (status == its_status), f"{command_id} is {its_status}: {ended}"


def _events(database: DatabaseConnection, kind: str) -> list[dict[str, object]]:
    rows = database.execute(
        "SELECT e.data, d.id FROM events e JOIN devices d ON d.pk = e.device_pk WHERE e.type = ? ORDER BY e.seq",
        (kind,),
    )
    return [{"device_id": row["id"], **json.loads(row["data"])} for row in rows]


def no_device_wiped_twice(world: ChaosWorld) -> None:
    """Each wipe was for one command, of the generation that lay in the flash, and happened once."""
    said = _resets(world)
    begun = [wipe for diary in world.diaries.values() for wipe in diary.begun]
    times = Counter(command_id for command_id, _ in begun)
    assert [command_id for command_id, count in times.items() if count > 1] == []
    for command_id, generation in begun:
        assert command_id in said, f"{command_id} wiped a device and is not in the registry"
        status, meant_for = said[command_id]
        assert meant_for == generation, f"{command_id} for generation {meant_for} wiped one of generation {generation}"
        assert status in ("executed", "cancelled", "pending", "delivered"), f"{command_id} was done and is {status}"
    assert [each for each, (status, _) in said.items() if status == "executed" and each not in times] == []
    _flash_agrees(world, set(times))


def _resets(world: ChaosWorld) -> dict[str, tuple[str, int]]:
    with registry(world) as database:
        rows = database.execute(
            "SELECT id, status, binding_generation FROM commands WHERE type = ?", (RESET,)
        ).fetchall()
    return {row["id"]: (row["status"], row["binding_generation"]) for row in rows}


def _flash_agrees(world: ChaosWorld, done: set[str]) -> None:
    for device in world.devices:
        remembered = [each for each in device.flash.kept_area.get(JOURNAL, ()) if each["type"] == RESET]
        assert len({each["command_id"] for each in remembered}) == len(remembered)
        assert {each["command_id"] for each in remembered if each["status"] == "executed"} <= done
    for device in world.steady:
        assert world.diaries[device.serial].begun == []
        assert device.binding, f"{device.serial} was never reset and lost its binding"


def what_was_acknowledged_is_stored(world: ChaosWorld) -> None:
    """Of steady devices: every heartbeat to which the gateway gave a PUBACK.

    Where the broker forgot nothing, every one to which the broker gave the device a PUBACK, too.
    """
    stored = _stored(world)
    steady = {device.binding.device_id: device.serial for device in world.steady if device.binding}
    acknowledged = {beat for heard in world.acknowledged() if (beat := heard.heartbeat) and beat[0] in steady}
    assert acknowledged - stored == set(), sorted(acknowledged - stored)
    if not world.broker_may_forget:
        confirmed = {(one, at) for one, serial in steady.items() for at in world.diaries[serial].confirmed}
        assert confirmed - stored == set(), sorted(confirmed - stored)
    world.log(f"{len(acknowledged)} heartbeats of steady devices were acknowledged, and are stored")


def _stored(world: ChaosWorld) -> set[tuple[str, str]]:
    with registry(world) as database:
        rows = database.execute(
            """SELECT d.id, h.sent_at FROM heartbeats h JOIN devices d ON d.pk = h.device_pk
                WHERE h.sent_at IS NOT NULL"""
        )
        return {(row[0], to_rfc3339(row[1])) for row in rows}


def only_what_was_committed_was_published(world: ChaosWorld) -> None:
    """Every command that ever went to the broker is in the registry."""
    with registry(world) as database:
        known = {row[0] for row in database.execute("SELECT id FROM commands")}
    assert world.published() - known == set()


async def dead_tokens_open_nothing(world: ChaosWorld) -> None:
    """Each token but the newest of its device, and the newest too if it is revoked: 401, and refused by the broker."""
    newest: dict[str, Token] = {}
    for token in world.ledger.tokens:
        newest[token.device_id] = max(newest.get(token.device_id, token), token, key=lambda each: each.generation)
    with registry(world) as database:
        live = {row[0] for row in database.execute("SELECT hash FROM tokens WHERE state <> 'revoked'")}
    dead = []
    for token in world.ledger.tokens:
        running = hashlib.sha256(token.secret.encode()).digest() in live
        assert not running or token is newest[token.device_id], f"an old token of {token.device_id} is alive"
        if not running:
            dead.append(token)
    async with world.direct() as client:
        for token in dead:  # one after the other: many at once only meet the limit of refused credentials
            await _opens_nothing(world, client, token)
    world.log(f"{len(dead)} of {len(world.ledger.tokens)} tokens are dead, and open nothing")


async def _opens_nothing(world: ChaosWorld, client: httpx.AsyncClient, token: Token) -> None:
    headers = {"Authorization": f"Bearer {token.secret}"}
    for method, path in (("POST", "heartbeat"), ("GET", "commands/pending"), ("POST", "token/refresh")):
        answer = await client.request(method, f"/v1/devices/me/{path}", headers=headers)
        while answer.status_code == httpx.codes.TOO_MANY_REQUESTS:  # so many tokens are dead
            await asyncio.sleep(float(answer.headers["retry-after"]))
            answer = await client.request(method, f"/v1/devices/me/{path}", headers=headers)
        assert answer.status_code == httpx.codes.UNAUTHORIZED, f"{method} {path}: {answer.text}"
    for cell in world.cells:
        password = mqtt_password_of(token.secret)
        assert await cell.broker.connect_answer(token.device_id, token.device_id, password) in _REFUSED


def the_database_is_whole(world: ChaosWorld) -> None:
    """`integrity_check` and foreign keys."""
    with registry(world) as database:
        assert [row[0] for row in database.execute("PRAGMA integrity_check")] == ["ok"]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []


def no_unexpected_errors(world: ChaosWorld) -> None:
    """No answer of the gateway's own failure, and no exception in any of its logs."""
    assert world.ledger.failures == []
    for log in (*world.logs, *(member.gateway.err for member in world.members)):
        assert "Traceback" not in error_lines(log), log
        assert '"level": "critical"' not in log, log
