"""Runtime of the firmware: carries out the actions of the state machine in order, and keeps the link up."""

import asyncio
import gc
import json
import os
import time

import net
import wire
from device import Device
from link import LOST, POLL_MS, Link

FORMER = "former_token"  # flash entry: the token that brought the present one, until that has worked


class Runtime:
    """One device."""

    def __init__(self, flash, config, board):
        self.flash, self.config, self.board = flash, config, board
        self.device = Device()
        self.is_running = True
        self._link = self._former = None
        self._inbox = []
        self._beat_at = self._ask_again_at = time.ticks_ms()
        self._asked_after_update = False

    def before_step(self):
        """Called before each write to flash and each message: tests cut the power here."""

    async def run(self):
        """Run until `is_running` is false: power on, connect, send heartbeats, execute commands; go offline cleanly."""
        self._plan_heartbeat()
        await self._feed(self._power_on())
        while self.is_running:
            event = await self._next_event()
            if event:
                await self._feed(event)
        await self._close_link()

    def deliver(self, event):
        """Have `run` process an event; the returned asyncio.Event says when it has."""
        done = asyncio.Event()
        self._inbox.append((event, done))
        return done

    def tell(self, name, details):
        """Print a fact as one line of JSON. It never holds a secret."""
        fact = {"fact": name}
        for key, value in details.items():
            fact[key] = value.decode() if isinstance(value, bytes) else value
        print(json.dumps(fact))

    def url(self, binding):
        """Return the gateway's URL that came with the binding, else that of the configuration, or None."""
        return binding.get("http") or self.config.get("api_url")

    async def post(self, binding, path, token, payload, key=None):
        """Send a request about this device to the gateway over HTTP; return what `net.post` does."""
        url = f"{self.url(binding).rstrip('/')}/v1/devices/me/{path}"
        return await net.post(url, self.config.get("trusted"), token, payload, key)

    def _power_on(self):
        wiped, kept = self.flash.read("wiped"), self.flash.read("kept")
        self._former = wiped.get(FORMER)
        return ("power_on", wiped, kept)

    async def _next_event(self):
        if self._inbox:
            event, done = self._inbox.pop(0)
            await self._feed(event)
            done.set()
            return None
        if time.ticks_diff(time.ticks_ms(), self._beat_at) >= 0:
            self._plan_heartbeat()
            return ("heartbeat_due",)
        if self._link:
            return await self._link.next_event()
        await asyncio.sleep_ms(POLL_MS)
        return None

    def _plan_heartbeat(self):
        """Choose the time of the next heartbeat, with a jitter of one tenth that spreads those of a fleet."""
        pause = int(self.config.get("heartbeat_seconds", 60) * 10) * (90 + int.from_bytes(os.urandom(2), "big") % 21)
        self._beat_at = time.ticks_add(time.ticks_ms(), pause)

    async def _feed(self, event):
        """Pass an event to the state machine, and the events that its actions lead to."""
        waiting = [event]
        while waiting:
            for action in self.device.handle(waiting.pop(0), self.board.now_ms()):
                answer = await getattr(self, "_" + action[0])(*action[1:])
                if answer is not None:
                    waiting.append(answer)
            self.board.show(self.device.state)

    # --- actions ----------------------------------------------------------------------------------------------------

    async def _tell(self, name, details):
        self.tell(name, details)

    async def _write(self, area, name, value):
        self.before_step()
        self.flash.write(area, name, value)
        self.tell("written", {"area": area, "name": name})

    async def _erase(self, area, name):
        if name == "device_token":
            await self._erase(area, FORMER)
        self.before_step()
        self.flash.erase(area, name)
        self.tell("erased", {"area": area, "name": name})

    async def _publish(self, *message):
        kind, payload, command_id, command_type, _ = message
        action = ("publish",) + message
        self.before_step()
        try:
            if self._link is None:
                raise OSError("no link is open")
            await self._link.send(kind, payload, command_id, command_type)
        except LOST as error:
            self.tell("not_sent", {"kind": kind, "reason": str(error)})
            return ("publish_failed", action, str(error))
        self.tell("sent", {"kind": kind, "payload": payload})
        if kind == "heartbeat" and self._former not in (None, self._link.binding["device_token"]):
            await self._erase("wiped", FORMER)  # the token has worked
            self._former = None
        return ("published", action)

    async def _open_link(self, connection, binding):
        await self._close_link()
        version = self.config["firmware_version"]
        if self.flash.read("kept").get("firmware_version") != version:
            # After an update ask once: the token may come from a time before passwords at the broker were derived.
            asked, self._asked_after_update = self._asked_after_update, True
            answer = None if asked else await self._refresh_token(binding)
            if answer and answer[0] == "token_refreshed":
                return answer  # the token is written first, then the version when the link opens again
            await self._write("kept", "firmware_version", version)
        self._link = Link(connection, binding, self.flash.read("wiped").get("wifi_networks") or (), self)
        return None

    async def _refresh_token(self, binding):
        """Ask for another token. The key of a request is derived from the token, so a repetition is harmless."""
        if not self.url(binding):
            return ("refresh_failed", "neither the binding nor the configuration has the gateway's URL", False)
        if time.ticks_diff(self._ask_again_at, time.ticks_ms()) > 0:
            return ("refresh_failed", "the gateway asked to wait", False)
        self.before_step()
        status = 401
        try:
            # If the gateway does not know a token that has never worked, the one before it brings another.
            for token, purpose in ((binding["device_token"], b"refresh"), (self._former, b"refresh again")):
                if status == 401 and token:
                    key = wire.base64url(wire.hmac_sha256(token.encode(), purpose))
                    status, body, wait = await self.post(binding, "token/refresh", token, b"{}", key)
                    used = token
            if status == 200:
                self._former = used
                await self._write("wiped", FORMER, used)
                return ("token_refreshed", wire.read_json(body)["device_token"])
        except LOST as error:
            return ("refresh_failed", str(error), False)
        self._ask_again_at = time.ticks_add(time.ticks_ms(), min(wait or 0, 3600) * 1000)
        return ("refresh_failed", f"HTTP {status}", status == 401)

    async def _upload(self, recording_id, generation, binding):
        """Upload a recording with the token of this binding: put your own upload here."""
        under = binding["binding_generation"]
        self.tell("uploaded", {"recording_id": recording_id, "made_in": generation, "under": under})

    async def _reboot(self):
        self.tell("rebooting", {})
        await self._close_link()
        self.board.reboot()  # does not return on a board
        self.device = None
        gc.collect()  # as a reboot does, or what the session left splits a small heap into small pieces
        self.device = Device()
        return self._power_on()

    async def _close_link(self):
        link, self._link = self._link, None
        if link is not None:
            if link.transport == "mqtt":
                self.before_step()
            await link.close()
