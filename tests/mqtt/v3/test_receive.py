"""Receiving over MQTT 3.1.1: what has arrived is returned once, also where the wait for it was cancelled."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.mqtt.connect import BrokerAddress
from gateway.mqtt.session import ReceivedMessage
from gateway.mqtt.v3 import session as v3
from gateway.mqtt.v3.session import open_session
from tests.mqtt.support import open_testbed

TOPIC = "gateways/marks"


@pytest.mark.parametrize("turns", range(6))
async def test_a_wait_that_is_cancelled_loses_no_message(
    turns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wait is cancelled so many turns of the loop after the message arrived, as at the end of a look for others."""
    loop, real = asyncio.get_running_loop(), v3._Inbox.put_nowait  # noqa: SLF001 - what aiomqtt fills

    def cancelled_after(left: int) -> None:
        if left:
            loop.call_soon(cancelled_after, left - 1)
        else:
            waiting.cancel()

    def put(self: Any, item: Any) -> None:
        real(self, item)
        cancelled_after(turns)

    async with open_testbed("embedded", tmp_path) as testbed:
        address = BrokerAddress("127.0.0.1", testbed.broker.port, "gateway", testbed.broker.gateway_password)
        async with open_session(address, client_id="gateway", will=("gateways/g/status", b"")) as session:
            await session.subscribe([TOPIC])
            monkeypatch.setattr(v3._Inbox, "put_nowait", put)  # noqa: SLF001 - the same
            waiting = asyncio.create_task(session.receive_batch())
            await session.publish(TOPIC, b"the message")
            received: list[ReceivedMessage] = []
            with suppress(asyncio.CancelledError):
                received += await waiting
            if not received:
                async with asyncio.timeout(60):
                    received += await session.receive_batch()
            assert [each.message.payload for each in received] == [b"the message"]
