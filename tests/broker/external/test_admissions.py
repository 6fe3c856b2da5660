"""Rights of a session at a broker that asks: those of the credential that let it in, and of no later one."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.broker.external.admissions import SETTLE_SECONDS
from gateway.domain import epoch
from gateway.store import account_sql
from tests.support.auth_endpoint import Endpoint, serve_auth_endpoint
from tests.support.clock import ManualTimer
from tests.support.registry import GATEWAY_ID, Bound, Registry, registry

GOLDEN = Path(__file__).parent / "golden"
EMQX_READING = {"action": "subscribe", "topic": "gateways/#"}


@dataclass
class BrokerDialect:
    """A broker of one kind: how it asks for a device that comes, and for something that each device may do."""

    endpoint: Endpoint
    clock: ManualTimer
    coming: dict[str, Any]
    doing: dict[str, Any]

    async def lets_in(self, device: Bound) -> bool:
        """Whether the device gets in; its session stands when this returns."""
        good = await self._ask(self.coming, device)
        self.clock.now += SETTLE_SECONDS
        return good

    async def grants(self, device: Bound) -> bool:
        """Whether its session has its rights; the question names no credential."""
        assert "{password}" not in self.doing["body"]
        return await self._ask(self.doing, device)

    async def _ask(self, case: dict[str, Any], device: Bound) -> bool:
        body = case["body"].replace("{device}", device.id).replace("{password}", device.mqtt_password)
        answer = await self.endpoint.ask(case["path"], content=body, headers=case["headers"])
        return bool(
            (answer.status_code, answer.text) == (case["status"], case["answer"].replace("{device}", device.id))
        )


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry."""
    async with registry(tmp_path) as opened:
        yield opened


def recorded(dialect: str, endpoint: Endpoint, clock: ManualTimer) -> BrokerDialect:
    """The recorded questions of this dialect: one that lets a device in, and one that grants it something."""
    cases = json.loads((GOLDEN / f"http_auth_{dialect}.json").read_text())
    coming = next(case for case in cases if case["name"] == "a device with its password")
    doing = next(
        case
        for case in cases
        if case["answer"] == coming["answer"] and "{device}" in case["body"] and "{password}" not in case["body"]
    )
    return BrokerDialect(endpoint, clock, coming, doing)


@pytest.mark.parametrize("dialect", ["emqx", "vernemq", "mosquitto_go_auth", "amqtt", "rabbitmq"])
async def test_a_session_of_an_earlier_binding_has_no_rights(dialect: str, fleet: Registry) -> None:
    """Not after the revocation, nor after the next bind, nor after a restart of the gateway; the new session has."""
    clock = ManualTimer()
    device, bystander = await fleet.bound("SN-1"), await fleet.bound("SN-2")
    async with serve_auth_endpoint(fleet.store, gateway_id=GATEWAY_ID, clock=clock) as endpoint:
        broker = recorded(dialect, endpoint, clock)
        assert await broker.lets_in(device)
        assert await broker.lets_in(bystander)
        assert await broker.grants(device)
        await fleet.unbind(device)
        assert not await broker.grants(device)
        again = await fleet.bound_again(device)
        assert not await broker.grants(device)
    async with serve_auth_endpoint(fleet.store, gateway_id=GATEWAY_ID, clock=clock) as endpoint:
        broker = recorded(dialect, endpoint, clock)
        assert not await broker.grants(device)
        assert await broker.grants(bystander)
        assert not await broker.lets_in(device)
        assert not await broker.grants(device)
        assert await broker.lets_in(again)
        assert await broker.grants(again)


async def test_a_reset_leaves_the_session_its_rights(fleet: Registry) -> None:
    """Until the token is revoked: by it the device fetches the reset."""
    clock, device = ManualTimer(), await fleet.bound("SN-1")
    async with serve_auth_endpoint(fleet.store, gateway_id=GATEWAY_ID, clock=clock) as endpoint:
        broker = recorded("emqx", endpoint, clock)
        assert await broker.lets_in(device)
        await fleet.reset(device)
        assert await broker.grants(device)


async def test_after_a_restore_no_session_has_rights_until_it_reconnects(fleet: Registry) -> None:
    """The copy does not know who was let in after it was made."""
    clock, device = ManualTimer(), await fleet.bound("SN-1")
    async with serve_auth_endpoint(fleet.store, gateway_id=GATEWAY_ID, clock=clock) as endpoint:
        assert await recorded("emqx", endpoint, clock).lets_in(device)
    await fleet.store.write(lambda tx: epoch.begin(tx, epoch.RESTORED))
    async with serve_auth_endpoint(fleet.store, gateway_id=GATEWAY_ID, clock=clock) as endpoint:
        broker = recorded("emqx", endpoint, clock)
        assert not await broker.grants(device)
        assert await broker.lets_in(device)
        assert await broker.grants(device)


async def test_a_new_token_is_refused_until_the_old_session_is_disconnected(fleet: Registry) -> None:
    """Else the broker might begin the old session after the new one, and that would have the new one's rights."""
    device = await fleet.bound("SN-1")
    async with serve_auth_endpoint(fleet.store, gateway_id=GATEWAY_ID) as endpoint:
        broker = recorded("emqx", endpoint, ManualTimer())
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await broker.lets_in(device)
        await fleet.unbind(device)
        again = await fleet.bound_again(device)
        assert await broker.lets_in(again)
        assert loop.time() - began >= SETTLE_SECONDS
        assert await broker.grants(again)


async def _reads(endpoint: Endpoint) -> bool:
    question = {"clientid": "integrator_a-1", "username": "integrator_a", **EMQX_READING}
    return bool((await endpoint.ask("emqx/authorize", json=question)).json()["result"] == "allow")


async def _is_accepted(endpoint: Endpoint, password: str) -> bool:
    question = {"clientid": "integrator_a-1", "username": "integrator_a", "password": password}
    return bool((await endpoint.ask("emqx/authenticate", json=question)).json()["result"] == "allow")


async def test_a_session_of_an_earlier_password_has_no_rights(fleet: Registry) -> None:
    """Rotated, or revoked and made again under the same name; also after a restart of the gateway."""
    clock = ManualTimer()
    password = await fleet.store.write(lambda tx: account_sql.create(tx, "integrator_a"))
    async with serve_auth_endpoint(fleet.store, gateway_id=GATEWAY_ID, clock=clock) as endpoint:
        assert not await _reads(endpoint), "nothing is known of this session"
        assert await _is_accepted(endpoint, password)
        assert await _reads(endpoint)
        await fleet.store.write(lambda tx: account_sql.revoke(tx, "integrator_a"))
        password = await fleet.store.write(lambda tx: account_sql.create(tx, "integrator_a"))
        assert not await _reads(endpoint)
    async with serve_auth_endpoint(fleet.store, gateway_id=GATEWAY_ID, clock=clock) as endpoint:
        assert not await _reads(endpoint)
        assert await _is_accepted(endpoint, password)
        assert await _reads(endpoint)
