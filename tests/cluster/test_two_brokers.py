"""Two brokers, two gateways, one registry: what is retained, cleared, cut and compared (contract, section 6)."""

import asyncio
import json
import time
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster.cells import SETTLES_SECONDS, Cells, Roaming, two_cells
from tests.domain.support import receipt
from tests.e2e.program import run, script
from tests.e2e.support import Site
from tests.support import wire
from tests.support.measured import MEASURED, Measured
from tests.support.mqtt_password import mqtt_password_of
from tests.support.wait import eventually


async def test_a_device_roams_between_two_brokers(tmp_path: Path, record_property: Measured) -> None:
    """Either broker serves it: commands lie at both, a late will counts nowhere, a revoked token opens neither."""
    async with two_cells(tmp_path) as cells:
        device = await cells.bound("SN-1")
        await _the_late_will_is_ignored(cells, device)
        await _a_command_is_retained_and_cleared_at_both(cells, device)
        seconds = await _a_revoked_token_is_cut_at_both(cells, device)
        record_property(MEASURED, f"cut at both brokers after {seconds:.2f} s")
        await _a_new_token_opens_both(cells, device)


async def _the_late_will_is_ignored(cells: Cells, device: Roaming) -> None:
    other = await cells.bound("SN-2")
    async with device.on(cells.b) as at_b:
        async with device.on(cells.a, will=True) as at_a:
            await device.beat(at_a, 81)
            first = await cells.heard(device, 81)
            await device.beat(at_b, 82)
            second = await cells.heard(device, 82)
            assert first["broker_pk"] != second["broker_pk"]
        async with other.on(cells.a) as marking:  # the link to the first broker is lost now
            await _will_is_published(cells, device)
            await other.beat(marking, 83)
            await cells.heard(other, 83)  # what the broker sent before that is processed
            await marking.disconnect()
        row = cells.row(device)
        assert (row["at_broker"], row["broker_pk"]) == (1, second["broker_pk"])
        assert row["offline_due_at"] >= second["offline_due_at"]
        await at_b.disconnect()


async def _will_is_published(cells: Cells, device: Roaming) -> None:
    """The broker retains the will, so it has sent it to the gateway before."""

    async def there() -> bool:
        async with cells.a.broker.client("auditor") as auditor:
            await auditor.subscribe(device.topic("status"), "auditor/mark")
            await auditor.publish("auditor/mark", b"that was all")
            return any(message.payload for message in await auditor.read_until("auditor/mark"))

    await eventually(there, "the first broker publishes the will", guard_seconds=SETTLES_SECONDS)


async def _a_command_is_retained_and_cleared_at_both(cells: Cells, device: Roaming) -> None:
    answer = await cells.b.http.post(f"/v1/devices/{device.id}/commands", json={"type": "reboot"})
    assert answer.status_code == httpx.codes.CREATED, answer.text
    command, topic = answer.json(), device.topic("commands/reboot")
    for cell in (cells.a, cells.b):
        await cells.holds(cell, {topic})
    signed = receipt(device.token, command["id"], "executed", command["binding_generation"])
    said = {"command_id": command["id"], "status": "executed", "receipt": signed}
    async with device.on(cells.a) as client:
        await client.publish(f"{topic}/ack", json.dumps(said).encode())
        for cell in (cells.b, cells.a):
            await cells.holds(cell, set())
        await client.disconnect()


async def _a_revoked_token_is_cut_at_both(cells: Cells, device: Roaming) -> float:
    """The gateway of each broker ends the session there. Return how long the slower one takes (seconds)."""
    before = [await _cuts(cell) for cell in (cells.a, cells.b)]
    async with device.on(cells.a) as at_a, device.on(cells.b) as at_b:
        began = time.monotonic()
        answer = await cells.a.http.post(f"/v1/devices/{device.id}/unbind")
        assert answer.status_code == httpx.codes.OK, answer.text
        async with asyncio.timeout(SETTLES_SECONDS):
            await asyncio.gather(at_a.closed(), at_b.closed())
        seconds = time.monotonic() - began

    async def each_has_cut() -> bool:
        return [await _cuts(cell) for cell in (cells.a, cells.b)] == [number + 1 for number in before]

    await eventually(each_has_cut, "each gateway has shut the device out", guard_seconds=SETTLES_SECONDS)
    for cell in (cells.a, cells.b):
        assert await _answer(cell, device.id, device.token) != wire.ACCEPTED
    return seconds


async def _cuts(cell: Site) -> float:
    """How many devices this gateway has shut out since it began."""
    lines = (await cell.http.get("/metrics")).text.splitlines()
    (found,) = [each for each in lines if each.startswith('gateway_access_changes_total{now="closed"}')]
    return float(found.split()[-1])


async def _a_new_token_opens_both(cells: Cells, device: Roaming) -> None:
    """The answer to the bind has waited for both."""
    answer = await cells.b.http.post(f"/v1/devices/{device.id}/bind", json={"end_user_id": "eu_2"})
    assert answer.status_code == httpx.codes.OK, answer.text
    assert "X-Broker-Synced" not in answer.headers
    token = answer.json()["device_token"]
    assert [await _answer(cell, device.id, token) for cell in (cells.a, cells.b)] == [wire.ACCEPTED] * 2


async def _answer(cell: Site, device_id: str, token: str) -> int:
    """What the broker of this cell answers to this token."""
    return await cell.broker.connect_answer(device_id, device_id, mqtt_password_of(token))


async def test_nothing_waits_for_a_broker_that_is_away(tmp_path: Path) -> None:
    """A bind does not wait for it. When it is back, it is compared: commands, accounts and what had ended meanwhile."""
    async with two_cells(tmp_path) as cells:
        ended, kept = await cells.bound("SN-1"), await cells.bound("SN-2")
        answer = await cells.a.http.post(f"/v1/devices/{ended.id}/commands", json={"type": "reboot"})
        assert answer.status_code == httpx.codes.CREATED, answer.text
        await cells.holds(cells.b, {ended.topic("commands/reboot")})
        await cells.b.gateway.kill()
        await _has_no_owner(cells, "brk_b")
        assert await _owned(cells.a) == {"brk_a": 1, "brk_b": 0}
        new = await cells.bound("SN-3")
        answer = await cells.a.http.post(f"/v1/devices/{ended.id}/unbind")
        assert answer.status_code == httpx.codes.OK, answer.text
        answer = await cells.a.http.post(f"/v1/devices/{kept.id}/reset")
        assert answer.status_code == httpx.codes.OK, answer.text
        wanted = {kept.topic("commands/factory_reset")}
        await cells.holds(cells.a, wanted)
        await cells.holds(cells.b, {ended.topic("commands/reboot")})
        await cells.b.gateway.restart()
        await cells.ready()
        await cells.holds(cells.b, wanted)
        async with new.on(cells.b) as client:
            await client.disconnect()
        assert await _answer(cells.b, ended.id, ended.token) != wire.ACCEPTED


async def _has_no_owner(cells: Cells, broker_id: str) -> None:
    """Wait until the lease of the owner that was killed has ended, as ``gateway cluster`` shows it."""

    async def gone() -> bool:
        listed = await run(script("gateway"), "cluster", "--json", "--database", cells.where.url)
        owners = {each["name"]: each["owner"] for each in json.loads(listed.out)["leases"]}
        return owners[f"broker:{broker_id}"] is None

    await eventually(gone, "the lease has ended", guard_seconds=SETTLES_SECONDS)


async def _owned(cell: Site) -> dict[str, float]:
    """Return which brokers have an owner, by the metrics of the gateway of this cell."""
    families = text_string_to_metric_families((await cell.http.get("/metrics")).text)
    samples = [each for family in families for each in family.samples if each.name == "gateway_lease_owned"]
    return {each.labels["broker"]: each.value for each in samples if each.labels["kind"] == "broker"}
