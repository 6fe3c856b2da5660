"""A broker in memory with MQTT's rules: persistent sessions, retained messages, QoS 1, wills, takeover, rights.

It keeps what a real one keeps and loses what a real one may lose. Who may do what is decided by the gateway's own
``broker.access``; who may come in by whatever ``admit`` the gateway's side has set up.
"""

import asyncio
import json
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from gateway.broker import access_rules
from gateway.broker.embedded.session import ClientIdentity
from gateway.core.topics import Topics
from gateway.mqtt.retained_scan import matches
from tests.simulation.network import Line

Will = tuple[str, bytes]
Admit = Callable[[str, str, str], Awaitable[ClientIdentity | None]]
"""Client id, user name and password → the client's account, or None."""

GATEWAY_WINDOW = 1_000
DEVICE_WINDOW = 20
SNAPSHOTS = 12
PARTING_SECONDS = 0.5


@dataclass
class Packet:
    """A PUBLISH on its way to a subscriber."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    packet_id: int = 0
    receipt: "Receipt | None" = None


@dataclass
class Receipt:
    """Where a publisher waits for the gateway: the PUBACK that it gets when ``awaited`` copies are taken."""

    peer: "Peer"
    confirm: Callable[[], None]
    awaited: int = 0


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
        self, line: Line, client_id: str, username: str, will: Will, receive: Callable[[Packet], None]
    ) -> None:
        self.line = line
        self.client_id = client_id
        self.username = username
        self.will = will
        self.receive = receive
        self.identity: ClientIdentity | None = None
        self.owed: deque[Receipt] = deque()
        self.parting = ""


Confirming = Callable[[Packet, int], None]
"""Told at each PUBACK to a device: the message, and how many commits there were when it came."""


class Broker:
    """``version_5`` gives refused publishes a reason; without ``wildcard_retained`` it is as RabbitMQ is.

    With ``confirms_late`` it is as the embedded one: a PUBACK follows the gateway's, and no message of a device is
    processed before the gateway has subscribed.
    """

    def __init__(self, rng: random.Random, tell: Callable[..., None]) -> None:
        self.up = True
        self.restarted_at = -math.inf
        self.version_5 = True
        self.wildcard_retained = True
        self.wills_of_the_cut = True
        self.confirms_late = False
        self.commit_now: Callable[[], int] = lambda: 0
        self.confirming: Confirming = lambda packet, arrived: None  # noqa: ARG005 - the form is the point
        self.reorder = 0.0
        self.duplicate = 0.0
        self.sessions: dict[str, Session] = {}
        self.retained: dict[str, bytes] = {}
        self.admit: Admit | None = None
        self.refusing: Callable[[str], bool] = lambda topic: False  # noqa: ARG005 - the form is the point
        self.on_message: Callable[[str, bytes], None] = lambda topic, payload: None  # noqa: ARG005 - the same
        self.tampering: Callable[[Packet], Packet | None] = lambda packet: packet
        """What a dishonest broker makes of a message to a device."""
        self.words: set[tuple[str, str]] = set()
        """Command and status of each acknowledgement that was taken from a device and kept for the gateway."""
        self.heard: dict[str, float] = {}
        """When a heartbeat of a device was taken and kept for the gateway; not of one that said since that it goes."""
        self._rng = rng
        self._tell = tell
        self._snapshots: deque[dict[str, bytes]] = deque(maxlen=SNAPSHOTS)
        self._knocking: dict[str, list[Peer]] = {}
        self._admitting: set[asyncio.Task[None]] = set()
        self._held: list[Callable[[], None]] = []

    # --- clients ------------------------------------------------------------------------------------------------------

    def connect(self, peer: Peer, password: str, answer: Callable[[bool], None]) -> None:
        """A CONNECT has arrived."""
        if not self.up or self.admit is None:
            peer.line.cut("the broker is not there")
            return
        task = asyncio.get_running_loop().create_task(self._admit(self.admit, peer, password, answer))
        self._admitting.add(task)
        task.add_done_callback(self._admitting.discard)

    async def _admit(self, admit: Admit, peer: Peer, password: str, answer: Callable[[bool], None]) -> None:
        knocking = self._knocking.setdefault(peer.client_id, [])
        knocking.append(peer)
        try:
            identity = await admit(peer.client_id, peer.username, password)
        except Exception:  # noqa: BLE001 - who cannot be asked lets nobody in
            identity = None
        finally:
            knocking.remove(peer)
        if not self.up or not peer.line.whole:
            peer.line.cut("the broker went away")
        elif identity is None:
            peer.line.down.send(answer, False)  # noqa: FBT003 - a CONNACK
            peer.line.down.send(peer.line.cut, "not authorised")
        else:
            self._let_in(peer, identity, answer)

    def _let_in(self, peer: Peer, identity: ClientIdentity, answer: Callable[[bool], None]) -> None:
        session = self.sessions.setdefault(peer.client_id, Session(peer.client_id))
        if session.peer is not None:
            self._end(session.peer, will=True, reason="taken over")
        peer.identity, session.peer = identity, peer
        session.is_gateway = identity.role == access_rules.Role.GATEWAY
        peer.line.far = lambda reason: self._end(peer, will=True, reason=reason)
        peer.line.down.send(answer, True)  # noqa: FBT003 - a CONNACK
        for packet in list(session.inflight.values()):  # again, in the old order [MQTT-4.4.0-1]
            peer.line.down.send(peer.receive, packet)
        self._pump(session)

    def _end(self, peer: Peer, *, will: bool, reason: str) -> None:
        session = self.sessions.get(peer.client_id)
        if session is None or session.peer is not peer:
            return
        session.peer = None
        peer.line.far = lambda reason: None  # noqa: ARG005 - it has ended already
        peer.line.cut(reason)
        if will and self.up and peer.identity is not None:
            self._route(peer.identity, *peer.will, retain=True)

    def disconnect(self, peer: Peer) -> None:
        """A DISCONNECT has arrived: the will is dropped [MQTT-3.14.4-3]."""
        self._end(peer, will=False, reason="said good-bye")

    def cut(self, client_id: str, *, forget: bool) -> bool:
        """End a live session by the operator's will; ``forget`` drops what the broker keeps of it too."""
        session = self.sessions.get(client_id)
        was_live = session is not None and session.peer is not None
        if session is not None and session.peer is not None and session.peer.owed:
            self._part(session, session.peer)
        elif session is not None and session.peer is not None:
            self._end(session.peer, will=self.wills_of_the_cut, reason="cut by the broker")
        if forget:
            self.sessions.pop(client_id, None)
        for peer in list(self._knocking.get(client_id, ())):  # what it is about to be told may be out of date
            peer.line.cut("cut while it knocked")
        return was_live

    def _part(self, session: Session, peer: Peer) -> None:
        """Heed it no more; its socket is closed when the PUBACKs that are due are out, after a moment at the latest."""
        session.peer = None
        peer.line.far = lambda reason: None  # noqa: ARG005 - it has ended already
        peer.parting = "cut by the broker"
        asyncio.get_running_loop().call_later(PARTING_SECONDS, peer.line.cut, peer.parting)

    def live(self) -> dict[str, ClientIdentity]:
        """Who is connected."""
        peers = {name: session.peer for name, session in self.sessions.items()}
        return {name: peer.identity for name, peer in peers.items() if peer is not None and peer.identity is not None}

    # --- messages -----------------------------------------------------------------------------------------------------

    def publish(self, peer: Peer, packet: Packet, answer: Callable[[str | None], None]) -> None:
        """A PUBLISH has arrived; ``answer`` gets why it was refused, or ``None``."""
        identity = peer.identity
        if identity is None or not self._is_live(peer):
            return
        refused = self.refusing(packet.topic) and identity.role == access_rules.Role.GATEWAY
        allowed = not refused and access_rules.may(
            identity.role, identity.username, access_rules.Action.PUBLISH, packet.topic
        )
        if self._waits(identity, packet) and allowed:
            self._held.append(partial(self.publish, peer, packet, answer))
            return
        refusal = None if allowed or not self.version_5 else "not authorised"
        receipt = self._owed(peer, packet, partial(answer, refusal), allowed=allowed)
        if allowed:
            self._route(identity, packet.topic, packet.payload, retain=packet.retain, qos=packet.qos, receipt=receipt)
        self._pay(peer)

    def _waits(self, identity: ClientIdentity, packet: Packet) -> bool:
        """Whether a device says this before the gateway listens."""
        if not self.confirms_late or identity.role != access_rules.Role.DEVICE:
            return False
        gateways = [session for session in self.sessions.values() if session.is_gateway]
        return not any(matches(each, packet.topic) for session in gateways for each in session.filters)

    def _owed(self, peer: Peer, packet: Packet, answer: Callable[[], None], *, allowed: bool) -> Receipt | None:
        if not packet.qos:
            return None
        arrived = self.commit_now()

        def confirm() -> None:
            if allowed and peer.identity is not None and peer.identity.role == access_rules.Role.DEVICE:
                self.confirming(packet, arrived)
            peer.line.down.send(answer)

        receipt = Receipt(peer, confirm)
        peer.owed.append(receipt)
        return receipt

    def _pay(self, peer: Peer) -> None:
        """Send the PUBACKs that are due, in the order of the messages [MQTT-4.6.0-2]."""
        while peer.owed and not peer.owed[0].awaited:
            peer.owed.popleft().confirm()
        if peer.parting and not peer.owed:
            peer.line.down.send(peer.line.cut, peer.parting)

    def _is_live(self, peer: Peer) -> bool:
        session = self.sessions.get(peer.client_id)
        return session is not None and session.peer is peer

    def _route(
        self,
        sender: ClientIdentity,
        topic: str,
        payload: bytes,
        *,
        retain: bool,
        qos: int = 1,
        receipt: Receipt | None = None,
    ) -> None:
        if retain:
            self._retain(sender, topic, payload)
        self.on_message(topic, payload)
        late = receipt if self.confirms_late and sender.role != access_rules.Role.GATEWAY else None
        packet = Packet(topic, payload, qos, retain=False, receipt=late)
        self._note_word(sender, packet)
        for session in self.sessions.values():
            if any(matches(each, topic) for each in session.filters):
                self._enqueue(session, packet)

    def _note_word(self, sender: ClientIdentity, packet: Packet) -> None:
        """An acknowledgement that the broker keeps for the gateway, which alone subscribes to those."""
        if sender.role != access_rules.Role.DEVICE or not packet.qos:
            return
        if packet.topic.endswith("/status"):
            self.heard.pop(sender.username, None)
        if not any(matches(each, packet.topic) for session in self.sessions.values() for each in session.filters):
            return
        if packet.topic.endswith("/heartbeat"):
            self.heard[sender.username] = asyncio.get_running_loop().time()
        if packet.topic.endswith("/ack"):
            word = json.loads(packet.payload)
            self.words.add((word["command_id"], word["status"]))

    def _retain(self, sender: ClientIdentity, topic: str, payload: bytes) -> None:
        if not access_rules.may_retain(sender.role, sender.username, topic):
            return
        self._snapshots.append(dict(self.retained))
        if payload:
            self.retained[topic] = payload
        else:
            self.retained.pop(topic, None)

    def _enqueue(self, session: Session, packet: Packet) -> None:
        if packet.qos == 0 and session.peer is None:
            return
        copies = 2 if packet.qos and self._rng.random() < self.duplicate else 1
        for _ in range(copies):
            receipt = packet.receipt if session.is_gateway else None
            if receipt is not None:
                receipt.awaited += 1
            self._insert(session.queue, replace(packet, receipt=receipt))
        self._pump(session)

    def _insert(self, queue: deque[Packet], packet: Packet) -> None:
        """At the end; with reordering anywhere behind the last of the same topic [MQTT-4.6.0-6]."""
        place = len(queue)
        if packet.topic == Topics().marks:  # every broker keeps one queue for a session: a mark overtakes nothing
            queue.append(packet)
            return
        while self.reorder and place and queue[place - 1].topic != packet.topic and self._rng.random() < self.reorder:
            place -= 1
        queue.insert(place, packet)

    def _pump(self, session: Session) -> None:
        peer = session.peer
        if peer is None or peer.identity is None:
            return
        window = GATEWAY_WINDOW if peer.identity.role == access_rules.Role.GATEWAY else DEVICE_WINDOW
        while session.queue and len(session.inflight) < window:
            packet = session.queue.popleft()
            if not session.is_gateway:
                handed = self.tampering(packet)
                if handed is None:
                    continue
                packet = handed
            if not access_rules.may(
                peer.identity.role, peer.identity.username, access_rules.Action.RECEIVE, packet.topic
            ):
                continue
            if packet.qos:
                session.last_id = packet.packet_id = session.last_id + 1
                session.inflight[packet.packet_id] = packet
            peer.line.down.send(peer.receive, packet)

    def acknowledged(self, peer: Peer, packet_id: int) -> None:
        """A PUBACK has arrived."""
        session = self.sessions.get(peer.client_id)
        if session is not None and session.peer is peer:
            packet = session.inflight.pop(packet_id, None)
            if packet is not None and packet.receipt is not None:
                packet.receipt.awaited -= 1
                self._pay(packet.receipt.peer)
            self._pump(session)

    def subscribe(self, peer: Peer, filters: Iterable[str], answer: Callable[[bool], None]) -> None:
        """A SUBSCRIBE has arrived: granted, then what is retained [MQTT-3.3.1-8]."""
        if not self._is_live(peer) or peer.identity is None:
            return
        session = self.sessions[peer.client_id]
        peer.line.down.send(answer, True)  # noqa: FBT003 - a SUBACK
        for each in filters:
            if not access_rules.may(peer.identity.role, peer.identity.username, access_rules.Action.SUBSCRIBE, each):
                continue
            session.filters[each] = 1
            if self.wildcard_retained or "+" not in each:
                self._hand_over(session, each)
        self._pump(session)
        if session.is_gateway:
            held, self._held = self._held, []
            for publish in held:
                publish()

    def _hand_over(self, session: Session, topic_filter: str) -> None:
        for topic, payload in list(self.retained.items()):
            if matches(topic_filter, topic):
                self._insert(session.queue, Packet(topic, payload, 1, retain=True))

    def unsubscribe(self, peer: Peer, filters: Iterable[str], answer: Callable[[bool], None]) -> None:
        """An UNSUBSCRIBE has arrived."""
        if self._is_live(peer):
            for each in filters:
                self.sessions[peer.client_id].filters.pop(each, None)
            peer.line.down.send(answer, True)  # noqa: FBT003 - an UNSUBACK

    def inject(self, sender: ClientIdentity, topic: str, payload: bytes, *, retain: bool) -> None:
        """Publish a message from a client that is not simulated."""
        self._route(sender, topic, payload, retain=retain)

    # --- its own troubles ---------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Be killed: no wills, and every connection breaks."""
        self.up = False
        self._held.clear()
        for session in self.sessions.values():
            if session.peer is not None:
                peer, session.peer = session.peer, None
                peer.line.cut("the broker was killed")

    def start(self, *, retained: str, keep_sessions: bool) -> None:
        """Be back with what was kept: ``retained`` is "keep", "forget", or "old" (what was there some changes ago)."""
        if retained == "forget":
            self.retained.clear()
        elif retained == "old" and self._snapshots:
            self.retained = dict(self._rng.choice(self._snapshots))
        if not keep_sessions:
            self.sessions.clear()
            self.words.clear()
            self.heard.clear()
        self.restarted_at = asyncio.get_running_loop().time()
        self.up = True
