"""The main job beside a real RabbitMQ: `gateway serve` as an operator starts it, asked by the broker at every step."""

import json
from pathlib import Path

import httpx

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import run, script, started
from tests.e2e.support import RESET, Site, rabbitmq_options, running, running_site, token_of, topic
from tests.support import wire
from tests.support.rabbitmq import RabbitMq
from tests.support.wait import eventually

SETTLED = ("device.online", "device.offline")


async def retained(site: Site, name: str) -> bytes | None:
    """What is retained on a topic, for the doctor, who may ask for it by its full name."""
    password = json.loads((site.gateway.data / "doctor.json").read_text())["reader"]
    mark = "devices/dev_doctor0probe/mark"
    async with wire.Wire.open(site.gateway.host, site.gateway.port) as doctor:
        assert await doctor.connect("doctor", "doctor", password) == wire.ACCEPTED
        await doctor.subscribe(name, mark)
        await doctor.publish(mark, b"that was all")
        told = await doctor.read_until(mark)
    return told[0].payload if told else None


async def gone(rabbitmq: RabbitMq, device_id: str) -> None:
    """Wait until no connection and no queue of this device is left."""
    queues = {f"mqtt-subscription-{device_id}qos{qos}" for qos in (0, 1)}
    await eventually(
        lambda: not rabbitmq.connections(device_id) and not queues & rabbitmq.queues(), f"{device_id} is gone"
    )


async def test_a_reset_goes_from_request_to_executed(tmp_path: Path, rabbitmq: RabbitMq) -> None:
    """Bind, heartbeat, reset, token revoked, session cut, topic cleared; then bind again, no wipe, and unbind."""
    async with running_site(tmp_path, "rabbitmq", node=rabbitmq) as site:
        device = site.device()
        device_id, old = (binding := await device.provision(end_user_id="eu_1")).device_id, binding.device_token
        async with running(device):
            await device.wait_for("online")
            await device.wait_for_fact("heartbeat")
            asked = await site.reset(device_id)
            await device.wait_for("unprovisioned")
            command = await site.becomes(device_id, "executed")
            assert command["id"] == asked["id"]
            assert command["result"]["wiped"] == ["device_token", "pairing", "wifi_networks"]
            await site.token_is_dead(device_id, old)
            await gone(rabbitmq, device_id)
            assert await retained(site, topic(device_id)) is None

            await device.provision(end_user_id="eu_2")
            new = token_of(device)
            beats = device.counts["heartbeat"]
            await device.wait_for_fact("heartbeat", count=beats + 3)
            assert (await site.get(device_id))["battery_percent"] is not None
            assert device.counts["reset_begun"] == 1
            await site.token_is_dead(device_id, old)

            await site.post(f"{device_id}/unbind")
            await gone(rabbitmq, device_id)
            await site.token_is_dead(device_id, new)
        assert [kind for kind in await site.events(device_id) if kind not in SETTLED] == [
            "device.registered",
            "device.bound",
            "device.unbound",
            "reset.requested",
            "reset.delivered",
            "reset.completed",
            "token.revoked",
            "device.bound",
            "token.revoked",
            "device.unbound",
        ]


async def test_an_offline_device_fetches_its_reset_later(tmp_path: Path, rabbitmq: RabbitMq) -> None:
    """It lies retained, is handed out by its topic's full name, and published again after a restart of the gateway."""
    async with running_site(tmp_path, "rabbitmq", node=rabbitmq) as site:
        device = site.device(radio="cellular")
        device_id = (await device.provision(end_user_id="eu_1")).device_id
        command = await site.reset(device_id)
        await site.synced()
        assert command["id"].encode() in (await retained(site, topic(device_id)) or b"")
        assert await site.gateway.stop() == 0
        await site.gateway.restart()
        await site.synced()
        assert [line["wildcard_retained"] for line in site.gateway.logged("broker.reconciled")] == [False]
        async with running(device):
            await device.wait_for("unprovisioned")
            await site.becomes(device_id, "executed")
        assert device.counts["reset_begun"] == 1
        assert [each["type"] for each in await site.commands(device_id)] == [RESET]
        await site.synced()
        assert await retained(site, topic(device_id)) is None


async def test_the_doctor_finds_no_problem(tmp_path: Path, rabbitmq: RabbitMq) -> None:
    """Strangers are refused, the made-up device reaches nothing, and open commands are found by name."""
    async with running_site(tmp_path, "rabbitmq", node=rabbitmq) as site:
        device_id = (await site.device().provision(end_user_id="eu_1")).device_id
        await site.reset(device_id)
        await site.synced()
        found = await _examined(site)
        for name in ("anonymous", "wrong password", "gateway's rights", "made-up device: publish"):
            assert found["broker", name]["level"] == "ok", found
        assert found["retained commands", "comparison"]["level"] == "ok", found
        assert found["retained commands", "comparison"]["says"].startswith("1 open commands, all retained; what else")


async def _examined(site: Site) -> dict[tuple[str, str], dict[str, str]]:
    directory = ("--data-dir", str(site.gateway.data))
    outcome = await run(script("gateway"), "doctor", "--json", *directory, *site.gateway.options)
    return {(each["area"], each["name"]): each for each in json.loads(outcome.out)["findings"]}


async def test_an_api_that_refuses_the_gateway_is_reported(tmp_path: Path, rabbitmq: RabbitMq) -> None:
    """A wrong password there: /ready is not ready and names the setting, and never the password."""
    wrong = f"rabbitmq+http://gateway_admin:not-its-password@{rabbitmq.host}:{rabbitmq.api_port}"
    options = [*rabbitmq_options(tmp_path, rabbitmq), "--broker-api-url", wrong]
    gateway = GatewayProcess(tmp_path / "gateway", *options)
    async with started(gateway), httpx.AsyncClient(base_url=gateway.url) as http:

        async def said() -> str:
            report = (await http.get("/ready")).json()
            return "" if report["ready"] else str(report["access"]["error"])

        async def named() -> bool:
            return "Check user and rights in broker_api_url" in await said()

        await eventually(named, "the setting is named")
        assert "not-its-password" not in await said() + gateway.err
