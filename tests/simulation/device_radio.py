"""A device's MQTT connection on the virtual broker: what ``device_sim.radio`` is on a real one."""

import asyncio
import random
from collections.abc import Callable

from device_sim.actions import CommandReceived, LinkDown, LinkRefused, LinkUp, Publish, RefusalReceived
from device_sim.backoff import Backoff
from device_sim.binding import Binding
from device_sim.errors import RadioError
from device_sim.radio import CONFIRM_SECONDS, REPORT_AFTER_REFUSALS, Deliver
from device_sim.wire import OFFLINE, Topics
from tests.simulation.broker import Broker
from tests.simulation.broker_session import Packet
from tests.simulation.mqtt_client import Client, ClosedError, NotAuthorisedError


class VirtualRadio:
    """Keeps itself up, with growing pauses, until its task is cancelled."""

    def __init__(
        self,
        binding: Binding,
        deliver: Deliver,
        broker: Callable[[Binding], Broker],
        rng: random.Random,
        latency: Callable[[], float],
    ) -> None:
        self._binding = binding
        self._deliver = deliver
        self._broker = broker
        self._latency = latency
        self._topics = Topics(binding.device_id)
        self._backoff = Backoff(rng, first=0.2, longest=4.0, stable=5.0)
        self.client: Client | None = None

    async def run(self) -> None:
        """Connect, and connect again, until cancelled."""
        while True:
            pause = await self._run_connection()
            await asyncio.sleep(pause)

    async def _run_connection(self) -> float:
        loop = asyncio.get_running_loop()
        client, up_since = Client(self._broker(self._binding), self._latency), loop.time()
        try:
            will = (self._topics.of("status"), OFFLINE)
            await client.connect(self._binding.device_id, self._binding.device_id, self._binding.mqtt_password, will)
            await client.subscribe(self._topics.subscriptions())
            self.client = client
            self._deliver(LinkUp("wifi", "mqtt"))
            while True:
                await client.wait_for_message()
                packet = client.inbox.popleft()
                if packet.qos:
                    client.acknowledge(packet)
                self.receive(packet)
        except NotAuthorisedError as error:
            return self._count_refusal(str(error))
        except ClosedError as error:
            self._deliver(LinkDown(str(error)))
            return self._backoff.after_loss(held=loop.time() - up_since)
        finally:
            self.client = None
            client.connection.cut("the device hung up")

    def receive(self, packet: Packet) -> None:
        """Hand a message to the firmware; whether it was retained does not matter."""
        leaf = packet.topic.rpartition("/")[2]
        is_refusal = packet.topic == self._topics.of("errors")
        self._deliver(RefusalReceived(packet.payload) if is_refusal else CommandReceived(leaf, packet.payload))

    def _count_refusal(self, reason: str) -> float:
        delay = self._backoff.after_refusal()
        if self._backoff.refusals == REPORT_AFTER_REFUSALS:
            self._deliver(LinkRefused(self._backoff.refusals, reason))
        return delay

    async def publish(self, message: Publish) -> None:
        """Send with QoS 1 and wait for the PUBACK.

        Raises:
            RadioError: none came; the link is given up.
        """
        client = self.client
        if client is None:
            raise RadioError("the link is down")
        answer = client.send(self._topic(message), message.payload, qos=1, retain=message.kind == "status")
        await asyncio.wait((answer, client.closed), timeout=CONFIRM_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            client.connection.cut("no PUBACK")
            raise RadioError("no PUBACK")

    def _topic(self, message: Publish) -> str:
        return self._topics.ack(str(message.command_type)) if message.kind == "ack" else self._topics.of(message.kind)

    def cut(self) -> None:
        """Break the connection without a DISCONNECT."""
        if self.client is not None:
            self.client.connection.cut("the device's link broke")
