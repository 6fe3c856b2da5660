"""Link of a device: MQTT that reconnects with growing pauses, and HTTP while no broker can be reached."""

import asyncio
import os
import time

import mqtt
import net
import wire

REPORT_AFTER_REFUSALS = 3
HTTP_AFTER_FAILURES = 3
LONGEST_COMMAND = 8192  # bytes; the protocol allows 18 KiB, but a command with small params has 2
LOST = (OSError, EOFError, ValueError, asyncio.TimeoutError)  # ValueError: Mbed TLS does not trust the certificate


class Backoff:
    """Pauses in milliseconds. They double and have jitter; a link that was cut soon does not reset the count."""

    def __init__(self, config):
        self.first = config.get("backoff_first_ms", 500)
        self.longest = config.get("backoff_longest_ms", 60000)
        self.stable = config.get("backoff_stable_ms", 10000)
        self.failures = self.refusals = 0

    def after_loss(self, held):
        """Return the pause after a link that was up for `held` milliseconds, 0 if it never was."""
        self.failures = 1 if held >= self.stable else self.failures + 1
        self.refusals = 0
        return self._pause(self.longest)

    def after_refusal(self):
        """Return the pause after a refused password: up to five minutes, but there is always a next attempt."""
        self.refusals += 1
        self.failures += 1
        return 2 * self._pause(max(self.longest, 300000) // 2)

    def _pause(self, longest):
        ceiling = min(longest, self.first << min(self.failures - 1, 16))
        return ceiling // 2 + int.from_bytes(os.urandom(4), "big") % (ceiling // 2 + 1)


class Link:
    """Link that the state machine opened. It passes events to `deliver(event, link)` until it is closed."""

    def __init__(self, connection, binding, networks, runtime):
        self.connection, self.binding, self.networks = connection, binding, networks
        self.config, self.board, self.backoff = runtime.config, runtime.board, runtime.backoff
        self.runtime = runtime
        self.longest = self.config.get("longest_command_bytes", LONGEST_COMMAND)
        self.gateway = runtime.gateway(binding)
        self._client = None
        self._over_http = False
        # Over BLE a companion app carries what there is, see provisioning.py.
        self._task = None if connection == "ble" else asyncio.create_task(self._keep_up())

    def topic(self, what):
        """Return a topic of this device by its full name."""
        return wire.topic(self.binding, what)

    async def send(self, kind, payload, command_id, command_type):
        """Send a message, and wait until the broker or the gateway has confirmed it. Raises one of LOST otherwise."""
        if self._over_http:
            await self._send_over_http(kind, payload, command_id)
        elif self._client is None:
            raise OSError("the link is down")
        elif kind == "ack":
            await self._client.publish(self.topic(f"commands/{command_type}/ack"), payload)
        else:
            await self._client.publish(self.topic(kind), payload, retain=kind == "status")

    async def close(self):
        """Go offline: publish `offline`, wait for its PUBACK, send DISCONNECT. A broken link gets none of it."""
        if self._task is None:
            return
        try:
            if self._client is not None:
                self.runtime.before_step()
                await self._client.publish(self.topic("status"), wire.OFFLINE, retain=True, seconds=2)
                await self._client.leave()
        except LOST:
            pass
        self._task.cancel()
        try:
            await self._task
        except asyncio.CancelledError:
            pass

    def _deliver(self, *event):
        self.runtime.deliver(event, self)

    # --- HTTP -------------------------------------------------------------------------------------------------------

    def _use_http(self):
        self._over_http = True
        self._deliver("link_up", self.connection, "http")

    async def _send_over_http(self, kind, payload, command_id):
        token = self.binding["device_token"]
        if kind == "ack":
            answer = await self.gateway.acknowledge(token, command_id, payload)
        else:
            answer = await self.gateway.heartbeat(token, payload)
        self.backoff.refusals = self.backoff.refusals + 1 if answer.status == 401 else 0
        if self.backoff.refusals == REPORT_AFTER_REFUSALS:
            self._deliver("link_refused", REPORT_AFTER_REFUSALS, "HTTP 401")
        if answer.status // 100 != 2:
            raise OSError(f"the gateway answered {answer.status}")
        if kind == "heartbeat":
            for command in wire.read_json(answer.body).get("commands", ()):
                self._deliver("command", command["type"], wire.canonical(command))

    # --- MQTT -------------------------------------------------------------------------------------------------------

    async def _keep_up(self):
        """Connect, and reconnect after each loss, until cancelled."""
        if self.config.get("transport") == "http":
            self._use_http()
            return
        while True:
            await asyncio.sleep_ms(await self._one_connection())

    async def _one_connection(self):
        """Run one connection to its end, and return the pause after it in milliseconds."""
        up_since = None
        try:
            await self.board.join(self.connection, self.networks)
            client = await self._connect()
            try:
                early = await self._subscribe(client)
                up_since = time.ticks_ms()
                self._is_up(client, early)
                await client.run()
            finally:
                self._client = None
                client.close()
        except mqtt.RefusedError as error:
            return self._refused(str(error))
        except Exception as error:  # whatever a broker sent, or a heap that is full: the link starts again
            reason = str(error).strip() or repr(error)
        if not self._over_http:
            self._deliver("link_down", reason)
        pause = self.backoff.after_loss(0 if up_since is None else time.ticks_diff(time.ticks_ms(), up_since))
        if self.backoff.failures >= HTTP_AFTER_FAILURES and self.gateway is not None and not self._over_http:
            self._use_http()
        return pause

    async def _connect(self):
        broker = self.binding["mqtt"]
        streams = await net.connect(broker["host"], broker["port"], broker["tls"], self.config.get("trusted"))
        client = mqtt.Mqtt(streams, self.config.get("keepalive_seconds", 60), self.longest)
        try:
            password = wire.mqtt_password(self.binding["device_token"])
            await client.connect(self.binding["device_id"], password, self.topic("status"), wire.OFFLINE)
        except BaseException:
            client.close()
            raise
        return client

    async def _subscribe(self, client):
        """Subscribe, and return the messages that arrived before the SUBACK: the state machine gets `link_up` first."""
        early = []
        client.on_message = lambda topic, payload: early.append((topic, payload))
        topics = [(self.topic("commands/" + each), 1) for each in wire.COMMAND_TYPES]
        await client.subscribe(topics + [(self.topic("errors"), 0)])
        return early

    def _is_up(self, client, early):
        self._client, self._over_http = client, False
        self._deliver("link_up", self.connection, "mqtt")
        client.on_message = self._received
        for topic, payload in early:
            self._received(topic, payload)

    def _refused(self, reason):
        pause = self.backoff.after_refusal()
        if self._over_http:
            self._over_http = False
            self._deliver("link_down", reason)
        if self.backoff.refusals == REPORT_AFTER_REFUSALS:
            self._deliver("link_refused", REPORT_AFTER_REFUSALS, reason)
        return pause

    def _received(self, topic, payload):
        if payload is None:
            self.runtime.tell("message_dropped", {"topic": topic, "reason": f"more than {self.longest} bytes"})
        elif self.runtime.waiting_bytes() + len(payload) > 2 * self.longest:
            raise OSError("more commands than memory")  # they are retained, so they arrive again
        elif topic == self.topic("errors"):
            self._deliver("errors", payload)
        else:
            self._deliver("command", topic.split("/")[-1], payload)
