"""The kit in the gateway's place: sends commands to the device under test, and waits for what it answers."""

from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from typing import Any

from device_sim.conformance.acks import Ack, ack_of
from device_sim.conformance.broker import Broker, Link
from device_sim.conformance.findings import DeviationError, Findings, UncheckedError
from device_sim.conformance.http_side import HttpSide
from device_sim.conformance.issuer import Binding, Command, Issuer
from device_sim.conformance.log import Event, Log, MissingError
from device_sim.conformance.packets import CONNACK_ACCEPTED, CONNACK_NOT_AUTHORISED, Connect
from device_sim.conformance.steps import Steps
from device_sim.conformance.tls_side import TlsSide
from device_sim.wire import mqtt_password

RESET = "factory_reset"
REFUSED = 5
"""Refused connections in a row after which a device is taken to have another binding."""
FENCE_TYPE = "stop_recording"
PAUSES = 4
"""A pause may double, and double again after a refused password."""
LATE_SECONDS = 1.0
"""How long the kit waits for an answer after that to a later command. A correct device has answered before."""


@dataclass(frozen=True)
class Settings:
    """Choices for one run. `patience` is the longest wait for the device, in seconds.

    `host` is the name of the kit's first broker for the device, `second_host` that of the second.
    """

    serial: str = "DUT-1"
    host: str = "127.0.0.1"
    second_host: str = "127.0.0.1"
    heartbeat_seconds: float = 60.0
    patience: float = 90.0
    prefix: str = "conformance/"


class Kit:
    """One run against one device."""

    def __init__(
        self, settings: Settings, findings: Findings, steps: Steps, log: Log, tls: TlsSide | None = None
    ) -> None:
        self.settings = settings
        self.findings = findings
        self.log = log
        self.tls = tls
        if tls is not None:
            tls.on_handshake = lambda is_right: log.add("handshake", 0, is_right)
        self.broker = Broker(log, tls.context if tls else None)
        self.issuer = Issuer(settings.serial, settings.prefix)
        self.http = HttpSide(self.issuer, log, self.bind_answer, self.address, lambda: self.wiped)
        self.line = ""
        self.longest_pause: float | None = None
        self.is_lost = False
        self.resets: list[tuple[Binding, Command, str]] = []
        self.recordings_left: int | None = None
        """How many recordings the device had after its last reset, as it said; None: not known."""
        self._steps = steps
        self.restore_defaults()

    @property
    def patience(self) -> float:
        """Return the longest wait for the device, in seconds: longer for one that already pauses between connects."""
        return self.settings.patience + PAUSES * (self.longest_pause or 0.0)

    @property
    def binding(self) -> Binding:
        """Return the newest binding."""
        return self.issuer.binding

    def restore_defaults(self) -> None:
        """Let the broker and the HTTP side behave as those of a gateway do."""
        self.broker.admit = self.admit
        self.broker.answer = lambda _message: "puback"
        self.broker.retained = {}
        self.broker.home = None
        self.http.refreshes.clear()

    def admit(self, connect: Connect) -> int:
        """Accept the token of the newest bind until its reset is executed. A raw token is accepted, and fails C11."""
        token = self.binding.token
        known = {mqtt_password(token).encode(), token.encode()}
        return CONNACK_NOT_AUTHORISED if self.wiped or connect.password not in known else CONNACK_ACCEPTED

    @property
    def wiped(self) -> bool:
        """Return whether the device has acknowledged a reset of the newest binding as executed."""
        return self._has_reset(0)

    def _has_reset(self, since: int) -> bool:
        mine = [command for binding, command, _ in self.resets if binding is self.binding]
        return any(ack.status == "executed" for command in mine for ack in self.acks(command, since=since))

    # --- binding, link, power -----------------------------------------------------------------------------------------

    def address(self) -> dict[str, Any]:
        """Return the address of the broker that knows the device, as a gateway answers it: the first, if each does."""
        first = self.broker.ports[0]
        port = self.broker.home or first
        host = self.settings.host if port == first else self.settings.second_host
        return {"host": host, "port": port, "tls": self.tls is not None}

    def bind_answer(self) -> dict[str, Any]:
        """Return the bind answer of the newest binding."""
        password = mqtt_password(self.binding.token)
        return self.issuer.answer(self.address(), password, self.settings.heartbeat_seconds)

    async def bind(self, *, first: bool = False) -> Link:
        """Have a bind answer written into the device, and return the connection that it makes with it.

        Raises:
            UncheckedError: this run has no way to bind again.
            MissingError: the device did not connect.
        """
        if not first:
            self.issuer.bind()
        after = self.broker.latest
        self.http.may_bind = True
        await self._steps.bind(self.bind_answer(), first=first)
        link = await self.online(after=after, within=self._steps.patience(self.patience, first=first))
        self.http.may_bind, self.is_lost = False, False
        return link

    async def cut_power(self) -> int:
        """Have the power cut and switched on again. Return the number of the connection before it, for `online`.

        Raises:
            UncheckedError: this run has no way to cut the power.
        """
        before, latest = self.broker.link, self.broker.latest
        try:
            await self._steps.cut_power()
        except UncheckedError:
            self.broker.cut()  # a device that waits for a withheld PUBACK would block the next step
            raise
        if before is not None:
            self.broker.close(before)
        return latest

    def cut_link(self) -> int:
        """Cut the connection, and return its number, for `online`."""
        self.broker.cut()
        return self.broker.latest

    async def online(self, *, after: int = 0, within: float | None = -1) -> Link:
        """Return the connection with a number above `after`, once the device has published `online` on it."""
        latest = self.broker.latest

        def present() -> Link | None:
            self._check_reachable(latest)
            link = self.broker.link
            return link if link is not None and link.number > after and link.is_online else None

        patience = self.patience if within == -1 else within
        return await self.log.until(present, "connect, subscribe and publish `online`", within=patience)

    def _check_reachable(self, latest: int) -> None:
        """Raise `DeviationError` when none of many connections after this one could be accepted."""
        newer = [each for each in self.log.events if each.link > latest]
        refused = [each.data for each in newer if each.kind == "connack" and each.data != CONNACK_ACCEPTED]
        foreign = [each.data for each in newer if each.kind == "violation"]
        if len(refused) + len(foreign) < REFUSED:
            return
        if foreign:
            raise DeviationError(f"the device sends no MQTT 3.1.1 ({foreign[-1]}); does it speak TLS, and the kit not?")
        if refused[-1] != CONNACK_NOT_AUTHORISED:
            raise DeviationError("the device speaks another version than MQTT 3.1.1, which is all that the kit has")
        raise DeviationError(f"the device was refused {len(refused)} times: it does not use this bind answer")

    async def ready(self) -> None:
        """Bring the device online, with another bind if it has wiped the last one."""
        if self.wiped or self.is_lost:
            await self.bind()
        try:
            await self.online()
        except MissingError:
            self.is_lost = True
            raise

    # --- commands -----------------------------------------------------------------------------------------------------

    def send(self, command: Command, *, retain: bool = False, dup: bool = False) -> int:
        """Publish a command, and return the place in the log from before it."""
        since = self.log.now
        self.broker.send(self.issuer.topics.command(command.topic_type), command.payload, retain=retain, dup=dup)
        return since

    def reset(self, **changed: Any) -> Command:
        """Return a right reset of the newest binding, and remember its token for the receipts."""
        command = self.issuer.command(RESET, **changed)
        self.resets.append((self.binding, command, self.binding.token))
        return command

    def acks(self, command: Command | None = None, *, since: int = 0) -> Iterator[Ack]:
        """Yield the acknowledgements from `since` on, of one command if it is given."""
        for event in self.log.events[since:]:
            ack = ack_of(event)
            if ack is not None and (command is None or ack.body.get("command_id") == command.id):
                yield ack

    async def ack(self, command: Command, status: str, since: int) -> Ack:
        """Return the acknowledgement of a command with this status.

        Raises:
            DeviationError: `failed` arrived instead, or nothing in time.
        """

        def answered() -> Ack | None:
            if command.topic_type != RESET and self._has_reset(since):
                raise DeviationError("the device carried out a reset instead of answering")
            return next((ack for ack in self.acks(command, since=since) if ack.status in (status, "failed")), None)

        what = f"acknowledge {command.topic_type} as {status}"
        ack = await self.log.until(answered, what, within=self.patience)
        if ack.status != status:
            raise DeviationError(f"{command.topic_type} was acknowledged as {ack}, not as {status}")
        return ack

    async def obeyed(self, command: Command, *, retain: bool = False) -> Ack:
        """Publish a right command, and return its `executed`, which has to follow its `delivered`."""
        since = self.send(command, retain=retain)
        final = await self.ack(command, "executed", since)
        given = [str(ack) for ack in self.acks(command, since=since)]
        if given != ["delivered", "executed"]:
            raise DeviationError(f"{command.topic_type} was acknowledged as {', '.join(given)}")
        for ack in self.acks(command, since=since):
            self.check_receipt(ack, command)
        return final

    async def refused(self, command: Command, code: str) -> None:
        """Publish a wrong command, which has to be acknowledged once, as failed with this code."""
        since = self.send(command)
        await self.fence()
        answers = list(self.acks(command, since=since)) or await self._late(command, since)
        if [(ack.status, ack.code) for ack in answers] != [("failed", code)]:
            given = ", ".join(str(ack) for ack in answers) or "nothing"
            raise DeviationError(f"acknowledged as {given}, not as failed {code}")
        self.check_receipt(answers[0], command)

    async def not_obeyed(self, command: Command) -> None:
        """Publish a payload that the device may refuse or ignore, and must not obey."""
        since = self.send(command)
        await self.fence()
        given = [str(ack) for ack in self.acks(command, since=since)]
        if {"delivered", "executed"} & set(given):
            raise DeviationError(f"acknowledged as {', '.join(given)}")

    async def repeated(self, command: Command, final: Ack, *, retain: bool = False, dup: bool = False) -> None:
        """Publish a known command again: the stored acknowledgement has to come, and nothing else."""
        since = self.send(command, retain=retain, dup=dup)
        await self.fence()
        await self.check_repeated(command, final, since)

    async def check_repeated(self, command: Command, final: Ack, since: int) -> None:
        """Check that since then only the stored acknowledgement of a command came."""
        answers = list(self.acks(command, since=since)) or await self._late(command, since)
        if [ack.body for ack in answers] != [final.body]:
            given = ", ".join(str(ack) for ack in answers) or "nothing"
            raise DeviationError(f"a known id was acknowledged as {given}, not with the stored {final}")

    async def fence(self) -> None:
        """Have one more command executed: what the device did about earlier messages has then arrived."""
        await self.obeyed(self.issuer.command(FENCE_TYPE))

    async def _late(self, command: Command, since: int) -> list[Ack]:
        try:
            late = min(LATE_SECONDS, self.patience)
            await self.log.until(lambda: next(self.acks(command, since=since), None), "answer", within=late)
        except MissingError:
            return []
        return list(self.acks(command, since=since))

    # --- verdicts -----------------------------------------------------------------------------------------------------

    async def attempt(self, line: str, name: str, step: Awaitable[Any]) -> bool:
        """Do one step, and record for a line whether it went as it has to. Return whether it did."""
        try:
            await step
        except DeviationError as error:
            self.findings.failed(line, f"{name}: {error}")
            return False
        self.findings.passed(line, name)
        return True

    def check_receipt(self, ack: Ack, command: Command, *, token: str | None = None, needed: bool = False) -> None:
        """Check the receipt of an acknowledgement, if there is one or `needed` says that there must be.

        Raises:
            DeviationError: it is missing or wrong.
        """
        given = ack.body.get("receipt")
        if given is None and needed:
            raise DeviationError(f"{ack} of a {command.topic_type} came without a receipt")
        if given is not None and given != command.receipt(token or self.binding.token, str(ack.status)):
            raise DeviationError(f"{ack} came with a receipt that the device's token does not make")

    def hold_receipt(self, line: str, ack: Ack, command: Command, *, token: str | None = None) -> None:
        """Record for a line whether an acknowledgement has the receipt that it needs."""
        try:
            self.check_receipt(ack, command, token=token, needed=True)
        except DeviationError as error:
            self.findings.failed(line, str(error))
        else:
            self.findings.passed(line, f"{ack} of a {command.topic_type} with its receipt")

    async def heartbeats(self, link: int, count: int) -> list[Event]:
        """Return the first heartbeats of a connection; one that was repeated counts once."""
        topic = self.issuer.topics.of("heartbeat")

        def enough() -> list[Event] | None:
            sent = {
                each.data.payload: each
                for each in reversed(list(self.log.of("publish", link=link)))
                if each.data.topic == topic
            }
            return list(reversed(sent.values()))[:count] if len(sent) >= count else None

        within = self.patience + count * self.settings.heartbeat_seconds
        return await self.log.until(enough, f"send {count} heartbeats on one connection", within=within)
