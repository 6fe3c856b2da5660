"""Runtime of the firmware: carries out the actions of the state machine in order, and keeps the link up.

The link is MQTT that reconnects with growing pauses, and HTTP while no broker can be reached.
"""

import asyncio
import gc
import json
import os
import time

import mqtt
import net
import wire
from device import Device
from strict_json import require

POLL_MS = 50
REPORT_AFTER_REFUSALS = 3
HTTP_AFTER_FAILURES = 3
LONGEST_COMMAND = 8192  # bytes; the protocol allows 18 KiB, but a command with small params has 2
SLOWEST_MS = 300000  # pause after many refused passwords: there is always a next attempt
# ValueError: Mbed TLS does not trust the certificate. IndexError: an answer without a status.
LOST = (OSError, EOFError, ValueError, IndexError, asyncio.TimeoutError)
FORMER = "former_token"  # flash entry: the token that brought the present one, until that has worked


class Runtime:
    """One device. The last methods carry out the actions of the state machine, by their names."""

    def __init__(self, flash, config, board):
        self.flash, self.config, self.board = flash, config, board
        self.device, self.is_running, self._failures = Device(), True, 0
        self._transport = self._client = self._binding = None
        self._inbox = [self._power_on()]
        self._beat_at = self._ask_again_at = time.ticks_ms()

    async def run(self):
        """Run until `is_running` is false: power on, connect, send heartbeats, execute commands; go offline cleanly."""
        while self.is_running:
            await self.step()
        await self._close_link()

    async def step(self):
        """Process one event, or wait for a moment."""
        if self._inbox:
            await self._feed(self._inbox[0])
            self._inbox.pop(0)
        elif time.ticks_diff(time.ticks_ms(), self._beat_at) >= 0:
            percent = 90 + int.from_bytes(os.urandom(2), "big") % 21  # spreads the heartbeats of a fleet
            pause = int(self.config.get("heartbeat_seconds", 60) * 10 * percent)
            self._beat_at = time.ticks_add(time.ticks_ms(), pause)
            await self._feed(("heartbeat_due",))
        elif self._binding:
            await self._feed(await self._next_event())
        else:
            await asyncio.sleep_ms(POLL_MS)

    async def deliver(self, event):
        """Have `run` process an event, and return when it has."""
        self._inbox.append(event)
        while event in self._inbox:
            await asyncio.sleep_ms(POLL_MS)

    async def _feed(self, event):
        """Pass an event to the state machine, and the events that its actions lead to."""
        waiting = [event] if event else []
        while waiting:
            for action in self.device.handle(waiting.pop(0), self.board.now_ms()):
                answer = await getattr(self, action[0])(*action[1:])
                if answer:
                    waiting.append(answer)

    def _power_on(self):
        wiped, kept = self.flash.read("wiped"), self.flash.read("kept")
        self._former = wiped.get(FORMER)
        return ("power_on", wiped, kept)

    # --- the link -----------------------------------------------------------------------------------------------------

    async def _next_event(self):
        """Work on the link for a moment, and return what has happened, or None."""
        if self._events:
            return self._events.pop(0)
        if self._client and self._client.received:
            topic, payload = self._client.received.pop(0)
            kind = topic.split("/")[-1]
            if payload is None:
                reason = "it is longer than longest_command_bytes"
                return await self.tell("message_dropped", {"topic": topic, "reason": reason})
            return ("errors", payload) if kind == "errors" else ("command", kind, payload)
        # Over BLE a companion app carries what there is, see provisioning.py.
        is_wanted = self._connection != "ble" and self.config.get("transport") != "http"
        try:
            if self._client:
                await self._client.poll(POLL_MS)
            elif is_wanted and time.ticks_diff(time.ticks_ms(), self._connect_at) >= 0:
                await self._connect()
            else:
                await asyncio.sleep_ms(POLL_MS)
        except Exception as error:  # whatever a broker sent, or a heap that is full: the link starts again
            self._lost(error)
        return None

    async def _connect(self):
        """Connect over MQTT, and subscribe."""
        broker, config = self._binding["mqtt"], self.config
        await self.board.join(self._connection, self.flash.read("wiped").get("wifi_networks") or ())
        streams = await net.connect(broker["host"], broker["port"], broker["tls"], config.get("trusted"))
        longest = config.get("longest_command_bytes", LONGEST_COMMAND)
        client = self._client = mqtt.Mqtt(streams, config.get("keepalive_seconds", 60), longest)
        password = wire.mqtt_password(self._binding["device_token"])
        topics = [(self._topic("commands/" + each), 1) for each in wire.COMMAND_TYPES] + [(self._topic("errors"), 0)]
        await client.connect(self._binding["device_id"], password, self._topic("status"), wire.OFFLINE, topics)
        self._up_since = time.ticks_ms()
        self._is_up("mqtt")

    def _is_up(self, transport):
        self._transport = transport
        self._events.append(("link_up", self._connection, transport))

    def _lost(self, error):
        """Process the end of a connection or of an attempt, and choose the time of the next one."""
        reason, refused = str(error).strip() or repr(error), isinstance(error, mqtt.RefusedError)
        if self._client:
            net.close(self._client.writer)
            self._client = None
        held = time.ticks_diff(time.ticks_ms(), self._up_since) if self._transport == "mqtt" else 0
        if refused or self._transport != "http":
            self._transport = None
            self._events.append(("link_down", reason))
        self._count_refusal(refused, reason)
        self._connect_at = time.ticks_add(time.ticks_ms(), self.pause(held, refused))
        is_unreachable = self._failures >= HTTP_AFTER_FAILURES and not refused
        if is_unreachable and self._transport is None and self._api_url:
            self._is_up("http")

    def _count_refusal(self, refused, reason):
        self._refusals = self._refusals + 1 if refused else 0
        if self._refusals == REPORT_AFTER_REFUSALS:
            self._events.append(("link_refused", REPORT_AFTER_REFUSALS, reason))

    def pause(self, held, refused):
        """Return the milliseconds until the next attempt, after a link that was up for `held` ms, or was refused.

        They double and have jitter. A link that was cut soon does not reset the count.
        """
        stable = held >= self.config.get("backoff_stable_ms", 10000)
        self._failures = 1 if stable else self._failures + 1
        longest = SLOWEST_MS if refused else self.config.get("backoff_longest_ms", 60000)
        ceiling = min(longest, self.config.get("backoff_first_ms", 500) << min(self._failures - 1, 16))
        return ceiling // 2 + int.from_bytes(os.urandom(4), "big") % (ceiling // 2 + 1)

    async def _close_link(self):
        """Go offline: publish `offline`, wait for its PUBACK, send DISCONNECT. A broken link gets none of it."""
        if self._client:
            try:
                await self._client.publish(self._topic("status"), wire.OFFLINE, retain=True)
                await self._client.leave()
            except LOST:
                pass
            net.close(self._client.writer)
        self._client = self._binding = self._transport = None

    def _topic(self, what):
        """Return the full name of `heartbeat`, `status`, `errors`, `commands/reboot`, `commands/reboot/ack`."""
        return f"{self._binding['mqtt']['topic_prefix']}devices/{self._binding['device_id']}/{what}"

    async def _send_over_http(self, kind, payload, command_id):
        path = "heartbeat" if kind == "heartbeat" else f"commands/{command_id}/ack"
        status, body, _ = await self.post(path, self._binding["device_token"], payload)
        self._count_refusal(status == 401, "HTTP 401")
        require(status // 100 == 2, f"the gateway answered {status}")
        if kind == "heartbeat":
            for command in wire.read_json(body).get("commands", ()):
                self._events.append(("command", command["type"], wire.encode(command)))

    async def post(self, path, token, payload, header=""):
        """Send a request about this device to the gateway over HTTP; return what `net.post` does."""
        require(self._api_url, "neither the binding nor the configuration has the gateway's URL")
        url = f"{self._api_url.rstrip('/')}/v1/devices/me/{path}"
        return await net.post(url, self.config.get("trusted"), token, payload, header)

    # --- actions ----------------------------------------------------------------------------------------------------

    async def tell(self, name, details):
        """Print a fact as one line of JSON. It never holds a secret."""
        print(json.dumps(dict(details, fact=name)))

    async def write(self, area, name, value):
        """Write a value to the flash."""
        self.flash.write(area, name, value)
        await self.tell("written", {"area": area, "name": name})

    async def erase(self, area, name):
        """Erase a value, and before the token the one that brought it."""
        if name == "device_token":
            await self.erase(area, FORMER)
        self.flash.erase(area, name)
        await self.tell("erased", {"area": area, "name": name})

    async def publish(self, *message):
        """Send a message, wait until the broker or the gateway has confirmed it; return the event that says so."""
        kind, payload, command_id, command_type, _ = message
        action = ("publish",) + message
        try:
            if self._transport == "http":
                await self._send_over_http(kind, payload, command_id)
            else:
                require(self._client, "the link is down")
                topic = self._topic(f"commands/{command_type}/ack" if kind == "ack" else kind)
                await self._client.publish(topic, payload, retain=kind == "status")
        except LOST as error:
            if self._client and self._transport == "mqtt":
                self._lost(error)
            await self.tell("not_sent", {"kind": kind, "reason": str(error)})
            return ("publish_failed", action, str(error))
        await self.tell("sent", {"kind": kind, "payload": payload})
        if kind == "heartbeat" and self._former not in (None, self._binding["device_token"]):
            await self.erase("wiped", FORMER)  # the token has worked
            self._former = None
        return ("published", action)

    async def open_link(self, connection, binding):
        """Open a link with what the flash holds. After an update ask once for another token before.

        The token may come from a time before passwords at the broker were derived. A new one is written first, then the
        version when the link opens again.
        """
        await self._close_link()
        self._api_url = binding.get("http") or self.config.get("api_url")
        version = self.config["firmware_version"]
        if self.flash.read("kept").get("firmware_version") != version:
            if self._former in (None, binding["device_token"]):
                answer = await self.refresh_token(binding)
                if answer[0] == "token_refreshed":
                    return answer
            await self.write("kept", "firmware_version", version)
        self._connection, self._binding, self._events = connection, binding, []
        self._failures = self._refusals = 0
        self._connect_at = time.ticks_ms()
        if self.config.get("transport") == "http":
            self._is_up("http")
        return None

    async def refresh_token(self, binding):
        """Ask for another token. The key of a request is derived from the token, so a repetition is harmless."""
        status = 401
        try:
            require(time.ticks_diff(time.ticks_ms(), self._ask_again_at) >= 0, "the gateway asked to wait")
            # If the gateway does not know a token that has never worked, the one before it brings another.
            for token, purpose in ((binding["device_token"], b"refresh"), (self._former, b"refresh again")):
                if status == 401 and token:
                    key = wire.base64url(wire.hmac_sha256(token.encode(), purpose))
                    header = f"Idempotency-Key: {key}\r\n"
                    status, body, wait = await self.post("token/refresh", token, b"{}", header)
                    if status == 200:
                        new, mqtt = wire.token_from_answer(wire.read_json(body), binding["mqtt"])
                        self._former = token
                        await self.write("wiped", FORMER, token)
                        return ("token_refreshed", new, mqtt)
        except LOST as error:
            return ("refresh_failed", str(error), False)
        self._ask_again_at = time.ticks_add(time.ticks_ms(), min(wait, 3600) * 1000)
        return ("refresh_failed", f"HTTP {status}", status == 401)

    async def upload(self, recording_id, generation, binding):
        """Upload a recording with the token of this binding: put your own upload here."""
        under = binding["binding_generation"]
        await self.tell("uploaded", {"recording_id": recording_id, "made_in": generation, "under": under})

    async def reboot(self):
        """Restart: the board itself, or on the Unix port the state machine."""
        await self._close_link()
        self.board.reboot()  # does not return on a board
        self.device = None
        gc.collect()  # as a reboot does, or what the session left splits a small heap into small pieces
        self.device = Device()
        return self._power_on()
