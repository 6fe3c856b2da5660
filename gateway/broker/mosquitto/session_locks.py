"""Session locks: end the sessions of users whose password changes, before Mosquitto 2.0 reads the new password file.

Mosquitto 2.0 notes a session that expires once more at each SIGHUP that cuts it, but frees it once, and crashes. A
SIGHUP must therefore find no session to cut. Mosquitto's dynamic security plugin decides before the password file does.
A client entry there, with a password that only the gateway knows, refuses the user from that moment. With the same
password the gateway takes the session over and ends it. The entry goes when the broker has read the new file.

Measurements and the reading of the source: docs/mosquitto.md, "A crash to stay clear of".
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
"""The account that may manage the plugin, and do nothing else."""
FIXED_SINCE: Final = (2, 1)
AT_ONCE: Final = 100
"""How many users one message locks."""
CONNECTIONS: Final = 16
STEP_SECONDS: Final = 2.0
"""How long a step may take before it is tried again."""
PATIENCE_SECONDS: Final = 6.0
"""How long locks are tried before the password file changes all the same. A revocation must not wait for ever."""
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
    """Return the password of :data:`NAME`. It is derived, so it is stored nowhere and survives a restart."""
    digest = hmac.digest(gateway_password.encode("utf-8", "surrogatepass"), NAME.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class SessionLocks:
    """Locks users out while the password file is being replaced, and ends their sessions.

    ``target`` is where the broker is, ``password`` that of :data:`NAME`.
    """

    def __init__(self, target: ProbeTarget, password: str) -> None:
        self.caution: str | None = None
        """That a device can crash this broker, and the remedy; None when it cannot."""
        self.needed = False
        """Whether the broker is one that crashes, and has the plugin."""
        self._target = target
        self._password = password
        self._held: set[str] = set()
        self._passing: set[str] = set()
        """Users that :meth:`sweep` locks for a moment."""
        self._ended: set[str] = set()
        self._failing_since: float | None = None

    async def examine(self) -> int:
        """Read the broker's version and whether it has the plugin; return how many away sessions it holds.

        Locks that an earlier run of the gateway has left count as held from now on.

        Raises:
            ProbeError: it cannot be reached, or refuses :data:`NAME`.
        """
        self._ended.clear()
        self._passing.clear()
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

    async def end(self, usernames: Collection[str]) -> Collection[str]:
        """Refuse these users, and end their sessions, connected or away. Their last wills are not sent.

        Return the users that could not be locked. They are logged after PATIENCE_SECONDS, and left to the password
        file.

        Raises:
            UnavailableError: not all of it is done yet. Call it again before the password file changes.
        """
        if not self.needed:
            return usernames
        left: list[str] = []
        for names in _chunks(sorted(set(usernames) - self._ended)):
            self._held.update(names)
            self._passing.difference_update(names)
            once = secrets.token_urlsafe(_SECRET_BYTES)
            if await self._locked(names, once):
                await self._take_over(names, once)
            else:
                left += names
        return left

    async def sweep(self, usernames: Collection[str]) -> None:
        """End the sessions of these users, who may reconnect at once unless they are locked out.

        Call it with a few users at a time: all of them are locked meanwhile.

        Raises:
            ProbeError: the broker went away.
            TimeoutError: it does not answer in time.
            UnavailableError: not every session has ended.
        """
        names = sorted(set(usernames) - self._ended)
        known = self._held | self._passing
        self._passing.update(set(names) - self._held)
        if names:
            once = secrets.token_urlsafe(_SECRET_BYTES)
            await self._lock(names, once, known=known)
            await self._take_over(names, once)
        await self._unlock(self._passing)

    async def release(self) -> None:
        """Remove the locks: the password file decides again who may connect.

        Raises:
            ProbeError: the broker went away.
            TimeoutError: it does not answer in time.
        """
        await self._unlock(self._held | self._passing)

    async def _unlock(self, usernames: Collection[str]) -> None:
        for names in _chunks(sorted(usernames)):
            async with asyncio.timeout(STEP_SECONDS), self._steering() as probe:
                await self._ask(probe, [{"command": "deleteClient", "username": name} for name in names])
            for locked in (self._held, self._passing, self._ended):
                locked.difference_update(names)

    async def _locked(self, names: Sequence[str], once: str) -> bool:
        """Lock these users. Return False when that fails and the password file has waited long enough."""
        now = asyncio.get_running_loop().time()
        self._failing_since = self._failing_since or now
        try:
            await self._lock(names, once, known=names)
        except TimeoutError as error:
            if now - self._failing_since < PATIENCE_SECONDS:
                raise UnavailableError("Mosquitto did not lock users out in time; it is tried again.") from error
            log.error("broker.sessions_not_ended", users=names[:10], reason="no answer in time")  # noqa: TRY400
            return False
        except ProbeError as error:  # it has ended: the sessions that it restores are ended when it is back
            log.error("broker.sessions_not_ended", users=names[:10], reason=str(error))  # noqa: TRY400
            return False
        self._failing_since = None
        return True

    async def _lock(self, names: Sequence[str], once: str, *, known: Collection[str]) -> None:
        """Lock these users; cut the connected ones of those that are ``known``: they may be locked already."""
        commands = [each for name in names for each in _lock(name, once, kick=name in known)]
        async with asyncio.timeout(STEP_SECONDS), self._steering() as probe:
            if await self._ask(probe, commands) is None:
                raise TimeoutError("the dynamic security plugin does not answer")

    async def _take_over(self, names: Sequence[str], once: str) -> None:
        """End the sessions of locked users. Waiting loses nothing: they are refused already."""
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
        """Return what the plugin answers, or None when nothing answers."""
        mark = secrets.token_hex(8)
        marked = [{**each, "correlationData": mark} for each in commands]
        await probe.publish(_CONTROL, json.dumps({"commands": marked}).encode())
        return await probe.find(lambda heard: _answer(heard, mark), seconds=STEP_SECONDS / 2)


def _lock(name: str, password: str, *, kick: bool) -> Iterable[dict[str, str]]:
    """Return the commands that give the user a password that only the gateway knows.

    With ``kick`` a connected client is cut, without its will. The second command does that; it also sets the password
    of a user that is locked already.
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
    """Return the number of sessions of clients that are away, without the gateway's own."""
    told = {each.topic: each.payload for each in heard}
    just_started = told.get(_UPTIME_TOPIC, b"").startswith(b"0 ")
    try:
        return max(0, int(told.get(_AWAY_TOPIC, b"0")) - just_started)
    except ValueError:
        return 0


def _chunks(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE))
