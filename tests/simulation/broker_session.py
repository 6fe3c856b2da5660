"""What the virtual broker keeps of its clients: their sessions, connections, and messages on the way."""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway.broker.embedded.session import ClientIdentity
from tests.simulation.network import TcpConnection

Will = tuple[str, bytes]
Admit = Callable[[str, str, str], Awaitable[ClientIdentity | None]]
"""Client id, user name and password → the client's account, or None."""


@dataclass
class Packet:
    """A PUBLISH on its way to a subscriber."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int = 0
    puback: "PendingPuback | None" = None
    epoch: int = 0
    """Of the gateway that sent it, where several share a registry; not on the wire."""


@dataclass
class PendingPuback:
    """Where a publisher waits for the gateway: the PUBACK that it gets when ``open_copies`` copies are taken."""

    peer: "Peer"
    confirm: Callable[[], None]
    open_copies: int = 0


@dataclass
class Session:
    """What the broker keeps of a client, connected or not."""

    client_id: str
    filters: dict[str, int] = field(default_factory=dict)
    queue: deque[Packet] = field(default_factory=deque)
    inflight: dict[int, Packet] = field(default_factory=dict)
    last_id: int = 0
    peer: "Peer | None" = None
    is_gateway: bool = False


class Peer:
    """The broker's end of one connection; ``receive`` is the client's."""

    def __init__(
        self, connection: TcpConnection, client_id: str, username: str, will: Will, receive: Callable[[Packet], None]
    ) -> None:
        self.connection = connection
        self.client_id = client_id
        self.username = username
        self.will = will
        self.receive = receive
        self.identity: ClientIdentity | None = None
        self.pending_pubacks: deque[PendingPuback] = deque()
        self.closing_reason = ""


OnPuback = Callable[[Packet, int], None]
"""Called at each PUBACK to a device, with the message and the number of commits when it came."""
