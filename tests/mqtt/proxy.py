"""A TCP proxy between the gateway and its broker: it counts packets, cuts connections and turns them away."""

from collections import Counter
from collections.abc import Callable

from tests.support.proxy import Direction, MqttProxy, ProxiedConnection, packet_of
from tests.support.wire import Kind


class Proxy(MqttProxy):
    """Forwards packet by packet. `to_broker` and `to_gateway` count them by kind.

    `last_connect` is the body of the last CONNECT, `cut_after` the kind of packet after which to cut every connection.
    """

    def __init__(self, target_port: Callable[[], int]) -> None:
        super().__init__(target_port)
        self.to_broker: Counter[int] = Counter()
        self.to_gateway: Counter[int] = Counter()
        self.last_connect = b""
        self.cut_after: Kind | None = None

    def record_forwarded(self, line: ProxiedConnection, towards: Direction, piece: bytes) -> None:  # noqa: ARG002 - the proxy's
        """Count it, and cut where that was asked for."""
        packet = packet_of(piece)
        if towards is Direction.CLIENT:
            self.to_gateway[packet.kind] += 1
            if packet.kind == self.cut_after:
                raise ConnectionAbortedError
            return
        self.to_broker[packet.kind] += 1
        if packet.kind == Kind.CONNECT:
            self.last_connect = packet.body
