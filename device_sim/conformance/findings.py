"""Findings: what was seen for each line of the checklist in docs/firmware.md."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["passed", "failed", "not checked"]

LINES: Mapping[str, str] = {
    "C1": "The token is in flash: it survives a power cut",
    "C2": "User name, client id and topics are those of the bind answer",
    "C3": "The grant key is that of the last bind, and is wiped with the token",
    "C4": "A generation may be millions higher than the last one",
    "C5": "MQTT 3.1.1, and a retained last will `offline` on the status topic",
    "C6": "Clean session off",
    "C7": "Keepalive of at most 300 s, never 0",
    "C8": "First subscribe and wait for the SUBACK, then publish `online`",
    "C9": "Command topics with QoS 1, errors with QoS 0",
    "C10": "`offline` with its PUBACK before each DISCONNECT",
    "C11": "The password is derived from the token; the token itself is never sent",
    "C13": "TLS refuses a broker with another certificate",
    "C14": "Each command topic by its full name",
    "C15": "Reconnect with growing pauses, also when cut off right after a connect",
    "C16": "Three refusals lead to a token refresh over HTTP",
    "C17": "A refresh is repeated under the same Idempotency-Key",
    "C18": "Heartbeats are valid, paced, and not retained",
    "C20": "An empty payload is not acknowledged",
    "C21": "The grant is checked: signature, alg, aud, jti, cmd, gen, exp, and not iat",
    "C22": "An unknown kid is refused, and no key is fetched",
    "C23": "The params are those that were signed",
    "C24": "The sequence rises",
    "C25": "Sequence and id are in flash; another binding starts without a sequence",
    "C26": "Only the own generation is obeyed",
    "C27": "A known id repeats its acknowledgement and does nothing else",
    "C28": "The retain flag decides nothing",
    "C29": "Reset: `delivered` with its receipt, and nothing before its PUBACK",
    "C30": "Reset: the receipt for `executed` is made with the wiped token",
    "C31": "Reset: token, pairing and WiFi networks are reported as wiped",
    "C32": "Reset: `executed` over the session that is still open",
    "C33": "Reset: no reconnect with what was wiped",
    "C34": "Reset: unpaired after the reboot, and ready for a bind",
    "C35": "Reset: a wipe that a power cut interrupted is finished",
    "C36": "Reset: last_command in heartbeats 1, 2, 4, 8 until it is refused",
    "C37": "A new grant key counts beside the old one, then alone",
    "C38": "A refused signature names the own key and the refused one",
    "C39": "A reset that says neither to keep nor to wipe recordings fails",
    "C40": "Recordings that a reset kept are not offered to the next binding",
    "C41": "Reset with `wipe`: no recording of any generation is left",
    "C42": "Reset: the result counts the recordings and says how things were wiped",
}
"""Title of each line that this kit checks, by its id in the checklist."""

OUTSIDE: Mapping[str, str] = {
    "C12": "the update of a device that was bound before MQTT passwords existed",
    "C19": "a clock that is not set",
}
"""Lines of the checklist that no kit can see from the network."""


class DeviationError(Exception):
    """The device did something else than the checklist says. The text says what was seen."""


class UncheckedError(Exception):
    """A step cannot be made in this run. The text says what it needs."""


@dataclass
class Finding:
    """Everything that was seen for one line."""

    line: str
    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """Return `passed` only if something held, nothing failed, and nothing was left out."""
        if self.failed:
            return "failed"
        return "passed" if self.passed and not self.unchecked else "not checked"

    @property
    def seen(self) -> list[str]:
        """Return what decided, or why nothing did."""
        return self.failed or self.unchecked or self.passed or ["its step was not reached"]


class Findings:
    """Findings of a run. `on_new` is called with each new one: its line, its verdict, and what was seen."""

    def __init__(self, lines: list[str], on_new: Callable[[str, Verdict, str], None] | None = None) -> None:
        self.of_line = {line: Finding(line) for line in lines}
        self.interrupted = False
        self._on_new = on_new or (lambda _line, _verdict, _seen: None)

    def passed(self, line: str, seen: str) -> None:
        """Record that something of a line held."""
        self._add(line, "passed", seen)

    def failed(self, line: str, seen: str) -> None:
        """Record that something of a line did not hold."""
        self._add(line, "failed", seen)

    def unchecked(self, line: str, why: str) -> None:
        """Record that something of a line could not be checked."""
        self._add(line, "not checked", why)

    def hold(self, line: str, holds: bool, seen: str) -> None:  # noqa: FBT001  # reads as `hold("C5", …)`
        """Record whether something of a line held."""
        self._add(line, "passed" if holds else "failed", seen)

    def has(self, line: str) -> bool:
        """Return whether something was recorded for a line."""
        finding = self.of_line.get(line)
        return finding is not None and bool(finding.passed or finding.failed or finding.unchecked)

    def verdicts(self) -> dict[str, Verdict]:
        """Return the verdict of each line."""
        return {line: finding.verdict for line, finding in self.of_line.items()}

    def _add(self, line: str, verdict: Verdict, seen: str) -> None:
        if line not in self.of_line:
            return
        finding = self.of_line[line]
        place = {"passed": finding.passed, "failed": finding.failed, "not checked": finding.unchecked}[verdict]
        if seen not in place:
            place.append(seen)
            self._on_new(line, verdict, seen)
