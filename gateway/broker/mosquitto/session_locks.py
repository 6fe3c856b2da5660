"""Ends the sessions of users whose password changes, before Mosquitto 2.0 reads the new password file.

Mosquitto 2.0 notes a session that expires once more at each SIGHUP that cuts it, and frees it once: it crashes. So no
session may be there that a SIGHUP would cut. Its dynamic security plugin decides before the password file does:
a client of that name with a password that only the gateway knows refuses the user from that moment. With the same
password the gateway takes the session over and ends it. The lock goes when the broker has read the new file.

Measured and read in the source: docs/mosquitto.md, "A crash to stay clear of".
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
import secrets
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import structlog

from gateway.core.received_json import parse_json
from gateway.domain.messages import Message
from gateway.errors import UnavailableError
from gateway.mqtt.probe import Probe, ProbeError, ProbeTarget, connected
from gateway.mqtt.takeover import end_session

log = structlog.get_logger()

NAME: Final = "gateway_locks"
"""The account that may steer the plugin, and nothing else."""
FIXED_SINCE: Final = (2, 1)
AT_ONCE: Final = 100
"""How many users are locked by one message."""
CONNECTIONS: Final = 16
STEP_SECONDS: Final = 2.0
"""How long a step may take before it is tried again."""
PATIENCE_SECONDS: Final = 6.0
"""For how long locks are tried before the password file changes all the same: a revocation must not wait for ever."""
EXPOSED: Final = "crashes when a session with an expiry is cut twice"
CAUTION: Final = (
    "Mosquitto {version} " + EXPOSED + ", which a device can bring about, and the plugin by which the gateway "
    "prevents that does not answer. Run 'gateway broker init' again and restart Mosquitto, or install Mosquitto 2.1 "
    "('gateway docs mosquitto')."
)
_CONTROL: Final = "$CONTROL/dynamic-security/v1"
_ANSWERS: Final = f"{_CONTROL}/response"
_VERSION_TOPIC: Final = "$SYS/broker/version"
_AWAY_TOPIC: Final = "$SYS/broker/clients/disconnected"
_UPTIME_TOPIC: Final = "$SYS/broker/uptime"
_VERSION: Final = re.compile(rb"mosquitto version ((\d+)\.(\d+)\S*)")
_SECRET_BYTES: Final = 24


def derived_password(gateway_password: str) -> str:
    """The password of :data:`NAME`: it needs no place of its own, and stays when the gateway is started again."""
    digest = hmac.digest(gateway_password.encode("utf-8", "surrogatepass"), NAME.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class SessionLocks:
    """Locks users out for as long as the password file is on its way, and ends their sessions.

    ``target`` is where the broker is, ``password`` that of :data:`NAME`.
    """

    def __init__(self, target: ProbeTarget, password: str) -> None:
        self.caution: str | None = None
        """That the broker crashes at a device's will, and what to do; ``None`` when it does not."""
        self.needed = False
        """Whether the broker is one that crashes, and has the plugin."""
        self._target = target
        self._password = password
        self._held: set[str] = set()
        self._ended: set[str] = set()
        self._failing_since: float | None = None

    async def examine(self) -> int:
        """Ask the broker which version it is, and whether it has the plugin; the sessions of clients that are away.

        Locks that an earlier run of the gateway has left count as held from now on.

        Raises:
            ProbeError: it cannot be reached, or does not let :data:`NAME` in.
        """
        self._ended.clear()
        async with asyncio.timeout(2 * STEP_SECONDS), self._steering() as probe:
            told = await probe.find(lambda heard: _VERSION.search(heard.payload) if heard.retain else None)
            version, newer = (told[1].decode(), (int(told[2]), int(told[3])) >= FIXED_SINCE) if told else ("", False)
            answer = None if newer else await self._ask(probe, [{"command": "listClients"}])
            self.needed = answer is not None
            self.caution = None if newer or self.needed else CAUTION.format(version=version or "2.0")
            if answer is not None:
                self._held |= {*answer[0].get("data", {}).get("clients", ())}
            if self.caution:
                log.error("broker.sessions_not_locked", message=self.caution)
            return _away(probe.heard) if self.needed else 0

    async def end(self, usernames: Collection[str]) -> None:
        """Refuse these users, and end their sessions, connected or away; their last wills are not sent.

        Users that cannot be locked out are logged after PATIENCE_SECONDS, and left to the password file.

        Raises:
            UnavailableError: not all of it is done yet. Call it again before the password file changes.
        """
        if not self.needed:
            return
        for names in _chunks(sorted(set(usernames) - self._ended)):
            self._held |= set(names)
            once = secrets.token_urlsafe(_SECRET_BYTES)
            if await self._locked(names, once):
                await self._take_over(names, once)

    async def sweep(self, usernames: Collection[str]) -> None:
        """End the sessions of these users, who may come back at once.

        Raises:
            ProbeError: the broker went away.
            TimeoutError: it does not answer in time.
            UnavailableError: not every session has ended.
        """
        for names in _chunks(sorted(usernames)):
            self._held |= set(names)
            once = secrets.token_urlsafe(_SECRET_BYTES)
            await self._lock(names, once, kick=False)
            await self._take_over(names, once)
            await self.release()

    async def release(self) -> None:
        """Leave it to the password file again who may connect.

        Raises:
            ProbeError: the broker went away.
            TimeoutError: it does not answer in time.
        """
        while self._held:
            names = sorted(self._held)[:AT_ONCE]
            async with asyncio.timeout(STEP_SECONDS), self._steering() as probe:
                await self._ask(probe, [{"command": "deleteClient", "username": name} for name in names])
            self._held -= set(names)
            self._ended -= set(names)

    async def _locked(self, names: Sequence[str], once: str) -> bool:
        """Lock these users; False when that cannot be done, and the password file has waited long enough."""
        now = asyncio.get_running_loop().time()
        self._failing_since = self._failing_since or now
        try:
            await self._lock(names, once, kick=True)
        except TimeoutError as error:
            if now - self._failing_since < PATIENCE_SECONDS:
                raise UnavailableError("Mosquitto did not lock users out in time; it is tried again.") from error
            log.error("broker.sessions_not_ended", users=names[:10], reason="no answer in time")  # noqa: TRY400
            return False
        except ProbeError as error:  # it has ended: what it brings back is swept when it is there again
            log.error("broker.sessions_not_ended", users=names[:10], reason=str(error))  # noqa: TRY400
            return False
        self._failing_since = None
        return True

    async def _lock(self, names: Sequence[str], once: str, *, kick: bool) -> None:
        commands = [each for name in names for each in _lock(name, once, kick=kick)]
        async with asyncio.timeout(STEP_SECONDS), self._steering() as probe:
            if await self._ask(probe, commands) is None:
                raise TimeoutError("the dynamic security plugin does not answer")

    async def _take_over(self, names: Sequence[str], once: str) -> None:
        """End the sessions of users that are locked. Nothing is lost by waiting: they are refused already."""
        places = asyncio.Semaphore(CONNECTIONS)

        async def end(name: str) -> None:
            async with places, asyncio.timeout(STEP_SECONDS):
                await end_session(self._target, name, once)
            self._ended.add(name)

        done = await asyncio.gather(*(end(name) for name in names), return_exceptions=True)
        for each in done:
            if isinstance(each, TimeoutError | ProbeError):
                raise UnavailableError("Not every session at Mosquitto has ended yet; it is tried again.") from each
            if isinstance(each, BaseException):
                raise each

    @asynccontextmanager
    async def _steering(self) -> AsyncIterator[Probe]:
        async with connected(self._target, NAME, self._password) as probe:
            await probe.subscribe(_ANSWERS, _VERSION_TOPIC, _AWAY_TOPIC, _UPTIME_TOPIC)
            yield probe

    async def _ask(self, probe: Probe, commands: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """What the plugin answers; ``None`` when nothing does."""
        mark = secrets.token_hex(8)
        marked = [{**each, "correlationData": mark} for each in commands]
        await probe.publish(_CONTROL, json.dumps({"commands": marked}).encode())
        return await probe.find(lambda heard: _answer(heard, mark), seconds=STEP_SECONDS / 2)


def _lock(name: str, password: str, *, kick: bool) -> Iterable[dict[str, str]]:
    """The user has a password from now on that the gateway knows; with ``kick`` a connected one is cut, without will.

    The second command does that, and is what sets the password of a user that is locked already.
    """
    yield {"command": "createClient", "username": name, "password": password}
    if kick:
        yield {"command": "setClientPassword", "username": name, "password": password}


def _answer(heard: Message, mark: str) -> list[dict[str, Any]] | None:
    if heard.topic != _ANSWERS:
        return None
    with suppress(ValueError, AttributeError, TypeError):
        responses: list[dict[str, Any]] = parse_json(heard.payload).get("responses", [])
        return responses if any(each.get("correlationData") == mark for each in responses) else None
    return None


def _away(heard: Sequence[Message]) -> int:
    """Sessions of clients that are not connected, beside the gateway's own, which is away when the broker starts."""
    told = {each.topic: each.payload for each in heard}
    just_started = told.get(_UPTIME_TOPIC, b"").startswith(b"0 ")
    try:
        return max(0, int(told.get(_AWAY_TOPIC, b"0")) - just_started)
    except ValueError:
        return 0


def _chunks(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE))
