"""A broker in memory with MQTT's rules: persistent sessions, retained messages, QoS 1, wills, takeover, rights.

It keeps what a real one keeps and loses what a real one may lose. The gateway's own ``broker.access`` decides who
may do what. The ``admit`` that the gateway's side has set up decides who may connect.
"""

import asyncio
import json
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from gateway.broker import access_rules
from gateway.broker.embedded.session import ClientIdentity
from gateway.core.topics import Topics
from gateway.mqtt.retained_scan import matches
from tests.simulation.broker_session import Admit, OnPuback, Packet, Peer, PendingPuback, Session
from tests.simulation.heard_devices import HeardDevices

GATEWAY_WINDOW = 1_000
DEVICE_WINDOW = 20
SNAPSHOTS = 12
CLOSING_SECONDS = 0.5


class Broker:
    """``version_5`` gives refused publishes a reason; without ``wildcard_retained`` it is as RabbitMQ is.

    With ``delays_pubacks`` it is as the embedded one: a PUBACK follows the gateway's, and no message of a device is
    processed before the gateway has subscribed.
    """

    def __init__(self, rng: random.Random, log: Callable[..., None]) -> None:
        self.up = True
        self.restarted_at = -math.inf
        self.version_5 = True
        self.wildcard_retained = True
        self.publishes_will_on_cut = True
        self.delays_pubacks = False
        self.commit_count: Callable[[], int] = lambda: 0
        self.on_puback: OnPuback = lambda packet, arrived: None  # noqa: ARG005 - the form is the point
        self.reorder = self.duplicate = 0.0
        self.sessions: dict[str, Session] = {}
        self.retained: dict[str, bytes] = {}
        self.admit: Admit | None = None
        self.refuses_topic: Callable[[str], bool] = lambda topic: False  # noqa: ARG005 - the form is the point
        self.on_message: Callable[[str, bytes], None] = lambda topic, payload: None  # noqa: ARG005 - the same
        self.on_publish: Callable[[ClientIdentity, Packet], None] = lambda sender, packet: None  # noqa: ARG005
        self.tamper: Callable[[Packet], Packet | None] = lambda packet: packet
        """What a dishonest broker makes of a message to a device."""
        self.acknowledged_statuses: set[tuple[str, str]] = set()
        """Command and status of each acknowledgement of a device that was queued for the gateway."""
        self.heard = HeardDevices()
        self._rng = rng
        self._log = log
        self._snapshots: deque[dict[str, bytes]] = deque(maxlen=SNAPSHOTS)
        self._connecting: dict[str, list[Peer]] = {}
        self._admit_tasks: set[asyncio.Task[None]] = set()
        self._held_publishes: list[Callable[[], None]] = []

    # --- clients ------------------------------------------------------------------------------------------------------

    def connect(self, peer: Peer, password: str, answer: Callable[[bool], None]) -> None:
        """A CONNECT has arrived."""
        if not self.up or self.admit is None:
            peer.connection.cut("the broker is not there")
            return
        task = asyncio.get_running_loop().create_task(self._admit(self.admit, peer, password, answer))
        self._admit_tasks.add(task)
        task.add_done_callback(self._admit_tasks.discard)

    async def _admit(self, admit: Admit, peer: Peer, password: str, answer: Callable[[bool], None]) -> None:
        connecting = self._connecting.setdefault(peer.client_id, [])
        connecting.append(peer)
        try:
            identity = await admit(peer.client_id, peer.username, password)
        except Exception:  # noqa: BLE001 - without a decision the client is refused
            identity = None
        finally:
            connecting.remove(peer)
        if not self.up or not peer.connection.is_open:
            peer.connection.cut("the broker went away")
        elif identity is None:
            peer.connection.down.send(answer, False)  # noqa: FBT003 - a CONNACK
            peer.connection.down.send(peer.connection.cut, "not authorised")
        else:
            self._accept(peer, identity, answer)

    def _accept(self, peer: Peer, identity: ClientIdentity, answer: Callable[[bool], None]) -> None:
        session = self.sessions.setdefault(peer.client_id, Session(peer.client_id))
        if session.peer is not None:
            self._end(session.peer, will=True, reason="taken over")
        peer.identity, session.peer = identity, peer
        session.is_gateway = identity.role == access_rules.Role.GATEWAY
        peer.connection.on_server_close = lambda reason: self._end(peer, will=True, reason=reason)
        peer.connection.down.send(answer, True)  # noqa: FBT003 - a CONNACK
        for packet in list(session.inflight.values()):  # again, in the old order [MQTT-4.4.0-1]
            peer.connection.down.send(peer.receive, packet)
        self._pump(session)

    def _end(self, peer: Peer, *, will: bool, reason: str) -> None:
        session = self.sessions.get(peer.client_id)
        if session is None or session.peer is not peer:
            return
        session.peer = None
        peer.connection.on_server_close = lambda reason: None  # noqa: ARG005 - it has ended already
        peer.connection.cut(reason)
        if will and self.up and peer.identity is not None:
            self._route(peer.identity, *peer.will, retain=True)

    def disconnect(self, peer: Peer) -> None:
        """A DISCONNECT has arrived: the will is dropped [MQTT-3.14.4-3]."""
        self._end(peer, will=False, reason="disconnected")

    def cut(self, client_id: str, *, forget: bool) -> bool:
        """End a live session by the operator's will; ``forget`` drops what the broker keeps of it too."""
        session = self.sessions.get(client_id)
        was_live = session is not None and session.peer is not None
        if session is not None and session.peer is not None and session.peer.pending_pubacks:
            self._close_after_pubacks(session, session.peer)
        elif session is not None and session.peer is not None:
            self._end(session.peer, will=self.publishes_will_on_cut, reason="cut by the broker")
        if forget:
            self.sessions.pop(client_id, None)
        for peer in list(self._connecting.get(client_id, ())):  # its CONNACK may be out of date
            peer.connection.cut("cut while connecting")
        return was_live

    def _close_after_pubacks(self, session: Session, peer: Peer) -> None:
        """Process no more of its packets. Close its socket after the PUBACKs that are due, or after 0.5 s."""
        session.peer = None
        peer.connection.on_server_close = lambda reason: None  # noqa: ARG005 - it has ended already
        peer.closing_reason = "cut by the broker"
        asyncio.get_running_loop().call_later(CLOSING_SECONDS, peer.connection.cut, peer.closing_reason)

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
        refused = self.refuses_topic(packet.topic) and identity.role == access_rules.Role.GATEWAY
        allowed = not refused and access_rules.may(
            identity.role, identity.username, access_rules.Action.PUBLISH, packet.topic
        )
        if self._must_wait(identity, packet) and allowed:
            self._held_publishes.append(partial(self.publish, peer, packet, answer))
            return
        refusal = None if allowed or not self.version_5 else "not authorised"
        puback = self._add_puback(peer, packet, partial(answer, refusal), allowed=allowed)
        if allowed:
            self.on_publish(identity, packet)
            self._route(identity, packet.topic, packet.payload, retain=packet.retain, qos=packet.qos, puback=puback)
        self._send_pubacks(peer)

    def _must_wait(self, identity: ClientIdentity, packet: Packet) -> bool:
        """Return whether a device sends this before the gateway has subscribed."""
        if not self.delays_pubacks or identity.role != access_rules.Role.DEVICE:
            return False
        gateways = [session for session in self.sessions.values() if session.is_gateway]
        return not any(matches(each, packet.topic) for session in gateways for each in session.filters)

    def _add_puback(
        self, peer: Peer, packet: Packet, answer: Callable[[], None], *, allowed: bool
    ) -> PendingPuback | None:
        if not packet.qos:
            return None
        arrived = self.commit_count()

        def confirm() -> None:
            if allowed and peer.identity is not None and peer.identity.role == access_rules.Role.DEVICE:
                self.on_puback(packet, arrived)
            peer.connection.down.send(answer)

        puback = PendingPuback(peer, confirm)
        peer.pending_pubacks.append(puback)
        return puback

    def _send_pubacks(self, peer: Peer) -> None:
        """Send the PUBACKs that are due, in the order of the messages [MQTT-4.6.0-2]."""
        while peer.pending_pubacks and not peer.pending_pubacks[0].open_copies:
            peer.pending_pubacks.popleft().confirm()
        if peer.closing_reason and not peer.pending_pubacks:
            peer.connection.down.send(peer.connection.cut, peer.closing_reason)

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
        puback: PendingPuback | None = None,
    ) -> None:
        if retain:
            self._retain(sender, topic, payload)
        self.on_message(topic, payload)
        late = puback if self.delays_pubacks and sender.role != access_rules.Role.GATEWAY else None
        packet = Packet(topic, payload, qos, retain=False, puback=late)
        self._record_device_message(sender, packet)
        for session in self.sessions.values():
            if any(matches(each, topic) for each in session.filters):
                self._enqueue(session, packet)

    def _record_device_message(self, sender: ClientIdentity, packet: Packet) -> None:
        """An acknowledgement that the broker keeps for the gateway, which alone subscribes to those."""
        if sender.role != access_rules.Role.DEVICE or not packet.qos:
            return
        if packet.topic.endswith("/status"):
            self.heard.status(sender.username, self, packet.payload)
        if not any(matches(each, packet.topic) for session in self.sessions.values() for each in session.filters):
            return
        if packet.topic.endswith("/heartbeat"):
            self.heard.heartbeat(sender.username, self)
        if packet.topic.endswith("/ack"):
            acknowledgement = json.loads(packet.payload)
            self.acknowledged_statuses.add((acknowledgement["command_id"], acknowledgement["status"]))

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
            puback = packet.puback if session.is_gateway else None
            if puback is not None:
                puback.open_copies += 1
            self._insert(session.queue, replace(packet, puback=puback))
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
                delivered_packet = self.tamper(packet)
                if delivered_packet is None:
                    continue
                packet = delivered_packet
            if not access_rules.may(
                peer.identity.role, peer.identity.username, access_rules.Action.RECEIVE, packet.topic
            ):
                continue
            if packet.qos:
                session.last_id = packet.packet_id = session.last_id + 1
                session.inflight[packet.packet_id] = packet
            peer.connection.down.send(peer.receive, packet)

    def acknowledged(self, peer: Peer, packet_id: int) -> None:
        """A PUBACK has arrived."""
        session = self.sessions.get(peer.client_id)
        if session is not None and session.peer is peer:
            packet = session.inflight.pop(packet_id, None)
            if packet is not None and packet.puback is not None:
                packet.puback.open_copies -= 1
                self._send_pubacks(packet.puback.peer)
            self._pump(session)

    def subscribe(self, peer: Peer, filters: Iterable[str], answer: Callable[[bool], None]) -> None:
        """A SUBSCRIBE has arrived: granted, then what is retained [MQTT-3.3.1-8]."""
        if not self._is_live(peer) or peer.identity is None:
            return
        session = self.sessions[peer.client_id]
        peer.connection.down.send(answer, True)  # noqa: FBT003 - a SUBACK
        for each in filters:
            if not access_rules.may(peer.identity.role, peer.identity.username, access_rules.Action.SUBSCRIBE, each):
                continue
            session.filters[each] = 1
            if self.wildcard_retained or "+" not in each:
                self._queue_retained(session, each)
        self._pump(session)
        if session.is_gateway:
            held_publishes, self._held_publishes = self._held_publishes, []
            for publish in held_publishes:
                publish()

    def _queue_retained(self, session: Session, topic_filter: str) -> None:
        for topic, payload in list(self.retained.items()):
            if matches(topic_filter, topic):
                self._insert(session.queue, Packet(topic, payload, 1, retain=True))

    def unsubscribe(self, peer: Peer, filters: Iterable[str], answer: Callable[[bool], None]) -> None:
        """An UNSUBSCRIBE has arrived."""
        if self._is_live(peer):
            for each in filters:
                self.sessions[peer.client_id].filters.pop(each, None)
            peer.connection.down.send(answer, True)  # noqa: FBT003 - an UNSUBACK

    def inject(self, sender: ClientIdentity, topic: str, payload: bytes, *, retain: bool) -> None:
        """Publish a message from a client that is not simulated."""
        self._route(sender, topic, payload, retain=retain)

    # --- its own failures ---------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Be killed: no wills, and every connection breaks."""
        self.up = False
        self._held_publishes.clear()
        for session in self.sessions.values():
            if session.peer is not None:
                peer, session.peer = session.peer, None
                peer.connection.cut("the broker was killed")

    def start(self, *, retained: str, keep_sessions: bool) -> None:
        """Be back with what was kept: ``retained`` is "keep", "forget", or "old" (what was there some changes ago)."""
        if retained == "forget":
            self.retained.clear()
        elif retained == "old" and self._snapshots:
            self.retained = dict(self._rng.choice(self._snapshots))
        if not keep_sessions:
            self.sessions.clear()
            self.acknowledged_statuses.clear()
            self.heard.forget(self)
        self.restarted_at = asyncio.get_running_loop().time()
        self.up = True
