"""Runtime of the firmware: carries out the actions of the state machine in order, and keeps the link up."""

import asyncio
import binascii
import gc
import http
import json
import os
import time

import wire
from device import Device
from link import LOST, Backoff, Link

REFRESH = "refresh"  # flash entry: the request for another token that has not had its answer or its first use


class Runtime:
    """One device. `before_step` is called before each write to flash and each message (a test cuts the power there)."""

    def __init__(self, flash, config, board, before_step=lambda: None):
        self.flash, self.config, self.board, self.before_step = flash, config, board, before_step
        self.device = Device()
        self.backoff = Backoff(config)
        self.interval = int(config.get("heartbeat_seconds", 60) * 1000)
        self.is_running = True
        self._link = None
        self._inbox = []
        self._arrived = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._ask_again_at = None
        self._asked_after_update = False
        self._request = None  # what the flash holds as REFRESH
        self._do = {
            "tell": self._tell,
            "publish": self._publish,
            "write": self._write,
            "erase": self._erase,
            "open_link": self._open,
            "refresh_token": self._refresh,
            "upload": self._upload,
            "reboot": self._reboot,
        }

    async def run(self):
        """Run until `stop`: power on, connect, send heartbeats, execute commands."""
        await self.feed(self._power_on())
        beats = asyncio.create_task(self._beat())
        while self.is_running:
            if not self._inbox:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            link, event = self._inbox.pop(0)
            if link is None or link is self._link:
                await self.feed(event)
        beats.cancel()

    async def feed(self, event):
        """Pass an event to the state machine, and the events that its actions lead to."""
        async with self._one_at_a_time:
            waiting = [event]
            while waiting:
                for action in self.device.handle(waiting.pop(0), self.board.now_ms()):
                    answer = await self._do[action[0]](*action[1:])
                    if answer is not None:
                        waiting.append(answer)
                self.board.show(self.device.state)

    async def stop(self):
        """Go offline cleanly, and end `run`: before a deep sleep or when the power is switched off."""
        async with self._one_at_a_time:
            await self._close()
        self.is_running = False
        self._arrived.set()

    def waiting_bytes(self):
        """Return the size of the messages in the queue."""
        return sum(len(event[-1]) for _, event in self._inbox if event[0] in ("command", "errors"))

    def deliver(self, event, link=None):
        """Put an event into the queue of `run`. Events of a link that was closed meanwhile are dropped."""
        self._inbox.append((link, event))
        self._arrived.set()

    def gateway(self, binding):
        """Return the gateway over HTTP at the URL that came with the binding, else of the configuration, or None."""
        url = binding.get("http") or self.config.get("api_url")
        return http.Gateway(url, self.config.get("trusted")) if url else None

    def _power_on(self):
        wiped, kept = self.flash.read("wiped"), self.flash.read("kept")
        self._request = wiped.get(REFRESH)
        return ("power_on", wiped, kept)

    async def _beat(self):
        """Report each heartbeat that is due, with a jitter of one tenth that spreads the heartbeats of a fleet."""
        while True:
            share = 90 + int.from_bytes(os.urandom(2), "big") % 21
            pause = self.interval * share // 100
            left = 0 if self._ask_again_at is None else time.ticks_diff(self._ask_again_at, time.ticks_ms())
            if left > 0:
                pause = min(pause, left + 1)
            await asyncio.sleep_ms(pause)
            if not self._inbox:
                self.deliver(("heartbeat_due",))

    # --- actions ----------------------------------------------------------------------------------------------------

    async def _tell(self, name, details):
        self.tell(name, details)

    def tell(self, name, details):
        """Print a fact as one line of JSON. It never holds a secret."""
        fact = {"fact": name}
        for key, value in details.items():
            fact[key] = value.decode() if isinstance(value, bytes) else value
        print(json.dumps(fact))

    async def _write(self, area, name, value):
        self.before_step()
        self.flash.write(area, name, value)
        self.tell("written", {"area": area, "name": name})

    async def _erase(self, area, name):
        if (area, name) == ("wiped", "device_token"):
            await self._erase("wiped", REFRESH)  # it holds tokens, too
        self.before_step()
        self.flash.erase(area, name)
        if name == REFRESH:
            self._request = None
        self.tell("erased", {"area": area, "name": name})

    async def _publish(self, *message):
        action = ("publish",) + message
        self.before_step()
        try:
            if self._link is None:
                raise OSError("no link is open")
            kind, payload, command_id, command_type, _ = message
            await self._link.send(kind, payload, command_id, command_type)
        except LOST as error:
            self.tell("not_sent", {"kind": message[0], "reason": str(error)})
            return ("publish_failed", action, str(error))
        self.tell("sent", {"kind": message[0], "payload": message[1].decode()})
        if message[0] == "heartbeat":
            await self._token_works()
        return ("published", action)

    async def _upload(self, recording_id, generation, binding):
        """Upload a recording with the token of this binding: put your own upload here."""
        under = binding["binding_generation"]
        self.tell("uploaded", {"recording_id": recording_id, "made_in": generation, "under": under})

    async def _reboot(self):
        self.tell("rebooting", {})
        await self._close()
        self.board.reboot()  # does not return on a board
        self.device = None
        gc.collect()  # as a reboot does, or what the session left splits a small heap into small pieces
        self.device = Device()
        return self._power_on()

    # --- the token --------------------------------------------------------------------------------------------------

    async def _refresh(self, binding):
        """Ask for another token. The key stays in flash until the answer is used, so that a repetition is harmless."""
        gateway = self.gateway(binding)
        if gateway is None:
            return ("refresh_failed", "neither the binding nor the configuration has the gateway's URL", False)
        if self._ask_again_at is not None and time.ticks_diff(self._ask_again_at, time.ticks_ms()) > 0:
            return ("refresh_failed", "the gateway asked to wait", False)
        self._ask_again_at = None
        token, kept = binding["device_token"], self._request
        if kept is None or kept["token"] != token:
            former = kept["token"] if kept else None
            kept = {"token": token, "key": binascii.hexlify(os.urandom(16)).decode(), "former": former}
            await self._write("wiped", REFRESH, kept)
            self._request = kept
        self.before_step()
        try:
            answer = await gateway.refresh_token(token, kept["key"])
            if answer.status == 401 and kept["former"]:  # the new token never worked; the one before it may
                answer = await gateway.refresh_token(kept["former"], kept["key"] + "-former")
            return self._refreshed(answer)
        except LOST as error:
            return ("refresh_failed", str(error), False)

    def _refreshed(self, answer):
        if answer.status == 200:
            return ("token_refreshed", wire.read_json(answer.body)["device_token"])
        if answer.retry_after is not None:
            self._ask_again_at = time.ticks_add(time.ticks_ms(), min(answer.retry_after, 3600) * 1000)
        return ("refresh_failed", f"HTTP {answer.status}", answer.status == 401)

    async def _refresh_after_update(self, binding):
        """Ask once after an update: the token may come from a time before passwords at the broker were derived."""
        version = self.config["firmware_version"]
        if self.flash.read("kept").get("firmware_version") == version:
            return None
        if not self._asked_after_update:
            self._asked_after_update = True
            answer = await self._refresh(binding)
            if answer[0] == "token_refreshed":
                return answer  # the token is written first, then the version with the next open_link
        await self._write("kept", "firmware_version", version)
        return None

    async def _token_works(self):
        """Drop the former token once the new one has brought a heartbeat through."""
        if self._request is not None and self._request["token"] != self._link.binding["device_token"]:
            await self._erase("wiped", REFRESH)

    # --- the link ---------------------------------------------------------------------------------------------------

    async def _open(self, connection, binding):
        await self._close()
        answer = await self._refresh_after_update(binding)
        if answer is None:
            self._link = Link(connection, binding, self.flash.read("wiped").get("wifi_networks") or (), self)
        return answer

    async def _close(self):
        link, self._link = self._link, None
        if link is not None:
            await link.close()
