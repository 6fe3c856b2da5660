"""A hostile device against the Mosquitto that the gateway steers: sessions that expire, cut again and again.

Mosquitto 2.0 frees such a session while its list still names it, when SIGHUP has cut it twice (docs/mosquitto.md).
GATEWAY_ATTACK_ROUNDS says how many devices attack, each with ROUND_CUTS changes of its password.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from gateway.broker.mosquitto.orphan import find_orphan
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import GUARD_SECONDS, clean_environment, started
from tests.support import wire
from tests.support.receipts import receipt_of
from tests.support.wait import eventually

ROUNDS = int(os.environ.get("GATEWAY_ATTACK_ROUNDS", "14"))
AT_ONCE = 20
ROUND_CUTS = 3
EXPIRIES = (1, 2, 60)
WAYS = ("connected", "away", "broken", "will", "late will", "knocking", "queued")
ENDINGS = ("unbind", "reset", "delete")
CONNECT_5, ACCEPTED_5 = 0x10, 0
FREED_IS_GARBAGE = {"MALLOC_PERTURB_": "165"}
"""glibc fills what is freed with this byte: who reads it afterwards falls at once."""

Json = dict[str, Any]


def connect_packet(name: str, password: str, *, expiry: int, will: str = "", delay: int = 0) -> bytes:
    """CONNECT of MQTT 5 with a session that outlives its connection for so many seconds."""

    def text(value: str) -> bytes:
        return len(value.encode()).to_bytes(2, "big") + value.encode()

    flags = 0xC0 | (0x2C if will else 0)
    properties = b"\x11" + expiry.to_bytes(4, "big")
    payload = text(name)
    if will:
        payload += b"\x05\x18" + delay.to_bytes(4, "big") + text(will) + text('{"status":"offline"}')
    body = text("MQTT") + bytes([5, flags]) + b"\x00\x3c" + bytes([len(properties)]) + properties + payload
    body += text(name) + text(password)
    return bytes([CONNECT_5]) + wire.remaining_length(len(body)) + body


class CrashTestbed:
    """A gateway with its own Mosquitto, and a client of its API."""

    def __init__(self, gateway: GatewayProcess, http: httpx.AsyncClient) -> None:
        self.gateway = gateway
        self.http = http
        self._open: set[asyncio.StreamWriter] = set()

    async def call(self, path: str, body: Json | None = None, method: str = "POST") -> Json:
        """Do this at the API."""
        answer = await self.http.request(method, f"/v1/devices{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else {}

    async def bound(self, serial: str) -> Json:
        """Register and bind."""
        device = await self.call("", {"serial_number": serial})
        return await self.call(f"/{device['id']}/bind", {"end_user_id": "eu_1"})

    async def connect(self, bound: Json, *, expiry: int, will: bool = False, delay: int = 0) -> asyncio.StreamWriter:
        """Connect as this device; ConnectionRefusedError when the broker says no."""
        name, password = bound["id"], bound["mqtt"].get("password", bound["device_token"])
        reader, writer = await asyncio.open_connection(self.gateway.host, self.gateway.port)
        self._open.add(writer)
        topic = f"devices/{name}/status" if will else ""
        writer.write(connect_packet(name, password, expiry=expiry, will=topic, delay=delay))
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            header = await reader.readexactly(2)
            if (await reader.readexactly(header[1]))[1] == ACCEPTED_5:
                command = f"devices/{name}/commands/reboot".encode()
                body = b"\x00\x01\x00" + len(command).to_bytes(2, "big") + command + b"\x01"
                writer.write(b"\x82" + wire.remaining_length(len(body)) + body)
                await reader.readexactly(2)
                return writer
        self._open.discard(writer)
        writer.close()
        raise ConnectionRefusedError

    async def leave(self, bound: Json, way: str, expiry: int) -> None:
        """Have a session of this device at the broker, in one of the states that a cut can find."""
        late = way == "late will"
        writer = await self.connect(bound, expiry=expiry, will=late or way == "will", delay=2 if late else 0)
        if way == "away":
            writer.write(b"\xe0\x00")
        elif way in ("broken", "late will"):
            writer.transport.abort()
        elif way == "queued":
            writer.transport.abort()
            await self.call(f"/{bound['id']}/commands", {"type": "reboot"})

    async def knock(self, bound: Json) -> None:
        """Connect and disconnect without a pause, until cancelled."""
        while True:
            with suppress(ConnectionError, OSError):
                writer = await self.connect(bound, expiry=1)
                writer.write(b"\xe0\x00")
                self._open.discard(writer)
                writer.close()
            await asyncio.sleep(0)

    async def cut(self, bound: Json, ending: str) -> Json:
        """Take its password away by each of the ways, and bind it again."""
        device = bound["id"]
        if ending == "delete":
            await self.call(f"/{device}", method="DELETE")
            await self.call(f"/{device}/restore")
        elif ending == "reset":
            await self.call(f"/{device}/reset")
            command = (await self.call(f"/{device}/commands?limit=1", method="GET"))["data"][0]
            receipt = receipt_of(bound["device_token"], command, "executed")
            body = {"status": "executed", "result": {}, "receipt": receipt}
            headers = {"Authorization": f"Bearer {bound['device_token']}"}
            answer = await self.http.post(
                f"/v1/devices/{device}/commands/{command['id']}/ack", headers=headers, json=body
            )
            assert answer.is_success, answer.text
        else:
            await self.call(f"/{device}/unbind")
        return await self.call(f"/{device}/bind", {"end_user_id": "eu_1"})

    async def round(self, number: int) -> None:
        """One device attacks."""
        way, expiry = WAYS[number % len(WAYS)], EXPIRIES[number % len(EXPIRIES)]
        bound = await self.bound(f"ATTACKER-{number}")
        await self.leave(bound, way, expiry)
        knocking = asyncio.create_task(self.knock(bound)) if way == "knocking" else None
        for cut in range(ROUND_CUTS):
            bound = await self.cut(bound, ENDINGS[(number + cut) % len(ENDINGS)])
            if cut == 1:
                await self.leave(bound, way, expiry)
        if knocking:
            knocking.cancel()
            await asyncio.wait([knocking])

    async def outlived(self, number: int, *, ends: int = 0) -> None:
        """Wait until the broker has looked through its list of sessions that expire, later than all short ones."""
        witness = await self.bound(f"WITNESS-{number}")
        (await self.connect(witness, expiry=max(EXPIRIES[:-1]) + 1)).write(b"\xe0\x00")

        def expired() -> bool:
            return any(
                f"Expiring client {witness['id']}" in each["text"] for each in self.gateway.logged("mosquitto.log")
            )

        await eventually(lambda: expired() or len(self.died()) > ends, "the session of the witness expires")

    def died(self) -> list[str]:
        """How Mosquitto has ended, each time."""
        return [each["reason"] for each in self.gateway.logged("broker.ended")]

    def stop_broker(self) -> None:
        """Have Mosquitto save its sessions and end; the gateway starts it again."""
        (pid,) = find_orphan((self.gateway.data / "mosquitto" / "mosquitto.conf").resolve())
        os.kill(pid, signal.SIGTERM)

    def close(self) -> None:
        """Hang up."""
        while self._open:
            self._open.pop().close()


@asynccontextmanager
async def attack(folder: Path) -> AsyncIterator[CrashTestbed]:
    """A gateway that runs its Mosquitto where freed memory is garbage."""
    options = ("--broker", "mosquitto", "--rate-limit-per-minute", "0")
    gateway = GatewayProcess(folder, *options, environment=clean_environment(**FREED_IS_GARBAGE))
    try:
        async with started(gateway):
            headers = {"Authorization": f"Bearer {gateway.new_key()}"}
            async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=GUARD_SECONDS) as http:

                async def is_ready() -> bool:
                    return bool((await http.get("/ready")).json()["ready"])

                await eventually(is_ready, "the gateway is ready")
                made = CrashTestbed(gateway, http)
                try:
                    yield made
                finally:
                    made.close()
    finally:
        for pid in find_orphan((gateway.data / "mosquitto" / "mosquitto.conf").resolve()):
            os.kill(pid, signal.SIGKILL)


async def test_no_device_crashes_mosquitto(tmp_path: Path) -> None:
    """Whatever its session is like, and however it is cut, the broker goes on."""
    async with attack(tmp_path) as made:
        for first in range(0, ROUNDS, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, ROUNDS))
            await asyncio.gather(*(made.round(number) for number in numbers))
            made.close()
            await made.outlived(first)
            assert made.died() == [], f"after {numbers.stop} rounds"


async def test_restored_sessions_do_not_crash_mosquitto(tmp_path: Path) -> None:
    """The broker no longer knows their passwords, so each SIGHUP would cut them: they are ended before the first."""
    async with attack(tmp_path) as made:
        bounds = [await made.bound(f"AWAY-{number}") for number in range(4)]
        for bound in bounds:
            (await made.connect(bound, expiry=60)).write(b"\xe0\x00")
        made.stop_broker()
        await eventually(lambda: len(made.gateway.logged("broker.started")) == len(("first", "again")), "it is back")
        for number in range(3):
            await made.bound(f"OTHER-{number}")
        swept = made.gateway.logged("broker.sessions_swept")
        for bound in bounds:
            (await made.connect(bound, expiry=1)).write(b"\xe0\x00")
        await made.outlived(0, ends=1)
        assert len(made.died()) == len(("the stop",))
        assert [each["away"] for each in swept] == [len(bounds)]
