"""A proxy between the firmware and its broker that keeps each packet, and may cut at one."""

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from tests.e2e.support import Site
from tests.firmware.device import FirmwareDevice, Json
from tests.support.proxy import Direction, MqttProxy, ProxiedConnection, packet_of
from tests.support.wire import Kind, Message, Packet, parse_publish


@dataclass(frozen=True)
class Seen:
    """A packet, where it went, and when (`time.monotonic`)."""

    towards: Direction
    packet: Packet
    at: float

    def __str__(self) -> str:
        """Return its name, with the direction of what both sides send."""
        name = Kind(self.packet.kind).name
        return f"{name} to {self.towards}" if self.packet.kind in (Kind.PUBLISH, Kind.PUBACK) else name


class WatchingProxy(MqttProxy):
    """Forwards to the broker of a site; `seen` holds every packet. `cut_after` cuts after a packet that it accepts."""

    def __init__(self, site: Site) -> None:
        super().__init__(lambda: site.gateway.port)
        self.seen: list[Seen] = []
        self.cut_after: Callable[[Seen], bool] = lambda _: False

    def record_incoming(self, line: ProxiedConnection, towards: Direction, piece: bytes) -> None:  # noqa: ARG002 - all lines count
        """Keep it."""
        self.seen.append(Seen(towards, packet_of(piece), time.monotonic()))

    def record_forwarded(self, line: ProxiedConnection, towards: Direction, piece: bytes) -> None:  # noqa: ARG002 - the same
        """Cut here if the test asked for it."""
        if self.cut_after(Seen(towards, packet_of(piece), 0)):
            self.cut()

    def of(self, kind: Kind) -> list[Seen]:
        """All packets of a kind, in order."""
        return [each for each in self.seen if each.packet.kind == kind]

    def messages(self, towards: Direction) -> list[Message]:
        """All messages in a direction, in order."""
        return [parse_publish(each.packet) for each in self.of(Kind.PUBLISH) if each.towards is towards]


@contextlib.asynccontextmanager
async def behind_proxy(site: Site) -> AsyncIterator[WatchingProxy]:
    """A proxy before the broker of this site."""
    async with WatchingProxy(site) as proxy:
        yield proxy


async def provision_through(proxy: WatchingProxy, site: Site, device: FirmwareDevice) -> Json:
    """Bind a device, and give it the proxy as its broker; the answer of the gateway."""
    known = await site.api.register(device.serial, model="bota_pin", name=None, firmware_version="1.0.0")
    answer: dict[str, Any] = await site.post(f"{known['id']}/bind", {"end_user_id": "eu_1"})
    given = {**answer, "mqtt": {**answer["mqtt"], "host": "127.0.0.1", "port": proxy.port}}
    await device.provision(site, answer=given)
    return answer
