"""Link of a device: MQTT that reconnects with growing pauses, and HTTP while no broker can be reached."""

import asyncio
import os
import time

import mqtt
import net
import wire

POLL_MS = 50
REPORT_AFTER_REFUSALS = 3
HTTP_AFTER_FAILURES = 3
LONGEST_COMMAND = 8192  # bytes; the protocol allows 18 KiB, but a command with small params has 2
SLOWEST_MS = 300000  # pause after many refused passwords: there is always a next attempt
# ValueError: Mbed TLS does not trust the certificate. IndexError: an answer without a status.
LOST = (OSError, EOFError, ValueError, IndexError, asyncio.TimeoutError)


class Link:
    """Link that the state machine opened. Call `next_event` again and again: it connects and receives."""

    def __init__(self, connection, binding, networks, runtime):
        self.connection, self.binding, self.networks, self.runtime = connection, binding, networks, runtime
        self.config = runtime.config
        self.transport = self._client = None
        self._events = []
        self._failures = self._refusals = self._up_since = 0
        self._connect_at = time.ticks_ms()
        if self.config.get("transport") == "http":
            self._is_up("http")

    async def next_event(self):
        """Work on the link for a moment, and return what has happened, or None."""
        if self._events:
            return self._events.pop(0)
        if self._client and self._client.received:
            return self._message(*self._client.received.pop(0))
        try:
            if self._client:
                await self._client.poll(POLL_MS)
            elif self._is_connect_due():
                await self.runtime.board.join(self.connection, self.networks)
                await self._connect()
            else:
                await asyncio.sleep_ms(POLL_MS)
        except Exception as error:  # whatever a broker sent, or a heap that is full: the link starts again
            self._lost(error)
        return None

    async def send(self, kind, payload, command_id, command_type):
        """Send a message, and wait until the broker or the gateway has confirmed it. Raises one of LOST otherwise."""
        if self.transport == "http":
            await self._send_over_http(kind, payload, command_id)
            return
        if self._client is None:
            raise OSError("the link is down")
        topic = self._topic(f"commands/{command_type}/ack" if kind == "ack" else kind)
        try:
            await self._client.publish(topic, payload, retain=kind == "status")
        except LOST as error:
            self._lost(error)
            raise

    def pause(self, held, refused):
        """Return the milliseconds until the next attempt, after a link that was up for `held` ms, or was refused.

        They double and have jitter. A link that was cut soon does not reset the count.
        """
        stable = held >= self.config.get("backoff_stable_ms", 10000)
        self._failures = 1 if stable else self._failures + 1
        longest = SLOWEST_MS if refused else self.config.get("backoff_longest_ms", 60000)
        ceiling = min(longest, self.config.get("backoff_first_ms", 500) << min(self._failures - 1, 16))
        return ceiling // 2 + int.from_bytes(os.urandom(4), "big") % (ceiling // 2 + 1)

    async def close(self):
        """Go offline: publish `offline`, wait for its PUBACK, send DISCONNECT. A broken link gets none of it."""
        if self._client is None:
            return
        try:
            await self._client.publish(self._topic("status"), wire.OFFLINE, retain=True)
            await self._client.leave()
        except LOST:
            pass
        self._client.close()

    def _topic(self, what):
        return wire.topic(self.binding, what)

    def _message(self, topic, payload):
        if payload is None:
            self.runtime.tell("message_dropped", {"topic": topic, "reason": "it is longer than longest_command_bytes"})
            return None
        if topic == self._topic("errors"):
            return ("errors", payload)
        return ("command", topic.split("/")[-1], payload)

    def _is_up(self, transport):
        self.transport = transport
        self._events.append(("link_up", self.connection, transport))

    def _is_connect_due(self):
        """Return whether it is time to connect. Over BLE a companion app carries what there is, see provisioning.py."""
        is_wanted = self.connection != "ble" and self.config.get("transport") != "http"
        return is_wanted and time.ticks_diff(time.ticks_ms(), self._connect_at) >= 0

    async def _connect(self):
        """Connect over MQTT, and subscribe."""
        broker = self.binding["mqtt"]
        streams = await net.connect(broker["host"], broker["port"], broker["tls"], self.config.get("trusted"))
        longest = self.config.get("longest_command_bytes", LONGEST_COMMAND)
        client = self._client = mqtt.Mqtt(streams, self.config.get("keepalive_seconds", 60), longest)
        password = wire.mqtt_password(self.binding["device_token"]).encode()
        will = self._topic("status").encode()
        await client.connect(self.binding["device_id"].encode(), password, will, wire.OFFLINE)
        topics = [(self._topic("commands/" + each), 1) for each in wire.COMMAND_TYPES]
        await client.subscribe(topics + [(self._topic("errors"), 0)])
        self._up_since = time.ticks_ms()
        self._is_up("mqtt")

    def _lost(self, error):
        """Process the end of a connection or of an attempt, and choose the time of the next one."""
        reason, refused = str(error).strip() or repr(error), isinstance(error, mqtt.RefusedError)
        if self._client:
            self._client.close()
            self._client = None
        held = time.ticks_diff(time.ticks_ms(), self._up_since) if self.transport == "mqtt" else 0
        if refused or self.transport != "http":
            self.transport = None
            self._events.append(("link_down", reason))
        self._count_refusal(refused, reason)
        self._connect_at = time.ticks_add(time.ticks_ms(), self.pause(held, refused))
        unreachable = self._failures >= HTTP_AFTER_FAILURES and not refused
        if unreachable and self.transport is None and self.runtime.url(self.binding):
            self._is_up("http")

    def _count_refusal(self, refused, reason):
        self._refusals = self._refusals + 1 if refused else 0
        if self._refusals == REPORT_AFTER_REFUSALS:
            self._events.append(("link_refused", REPORT_AFTER_REFUSALS, reason))

    async def _send_over_http(self, kind, payload, command_id):
        path = "heartbeat" if kind == "heartbeat" else f"commands/{command_id}/ack"
        status, body, _ = await self.runtime.post(self.binding, path, self.binding["device_token"], payload)
        self._count_refusal(status == 401, "HTTP 401")
        if status // 100 != 2:
            raise OSError(f"the gateway answered {status}")
        if kind == "heartbeat":
            for command in wire.read_json(body).get("commands", ()):
                self._events.append(("command", command["type"], wire.canonical(command)))
