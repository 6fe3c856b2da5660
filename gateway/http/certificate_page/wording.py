"""Words of a certificate: what each outcome means, how entries were wiped, and what a certificate does not prove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Verdict:
    """What an outcome says in two or three words, and in a sentence; ``tone`` is its colour and sign."""

    headline: str
    statement: str
    tone: str


VERDICTS: Final[Mapping[str, Verdict]] = {
    "executed": Verdict("Reset executed", "The device reported that it wiped what is listed below.", "good"),
    "failed": Verdict(
        "Reset failed", "The device reported that it could not carry out the reset. Treat its data as present.", "bad"
    ),
    "cancelled": Verdict(
        "Reset cancelled",
        "The reset was cancelled before the device reported an outcome. Nothing was shown to be wiped.",
        "off",
    ),
    "superseded": Verdict(
        "Reset superseded",
        "The device was bound again before it reported an outcome. Nothing was shown to be wiped.",
        "off",
    ),
}
_UNKNOWN: Final = Verdict("Outcome not known to this version", "Read the signed certificate.", "off")
_LATE: Final[Mapping[str, Verdict]] = {
    "executed": Verdict(
        "Late report: executed",
        "After the certificate named above, the device reported that it wiped what is listed below.",
        "good",
    ),
    "failed": Verdict(
        "Late report: failed", "After the certificate named above, the device reported a failure.", "bad"
    ),
    "delivered": Verdict(
        "Late report: received", "After the certificate named above, the device reported that it has the reset.", "off"
    ),
}
_HOW: Final[Mapping[str, str]] = {
    "overwritten": "overwritten",
    "key_destroyed": "encryption key destroyed",
    "deleted": "deleted, not overwritten",
}
_ENTRIES: Final[Mapping[str, str]] = {
    "device_token": "Device token",
    "pairing": "Bluetooth pairing",
    "wifi_networks": "WiFi networks",
    "serial_number": "Serial number",
    "cellular_apn": "Cellular APN",
    "last_command_id": "Id of the last command",
    "last_command_ids": "Ids of the last commands",
    "recordings": "Recordings",
}
_ALWAYS: Final = (
    "The receipt is the device's own signed report. It is no evidence from the device's hardware.",
    "The gateway did not read the device's storage. How an entry was wiped is what the firmware reported.",
    "The requester is an API key or the command line. Which person used it is not shown.",
    "Copies in other places are not covered: uploaded recordings, backups, other systems.",
)
_NOT_EXECUTED: Final = "It does not show that the device was wiped. It does not show that data is left on it either."
_KEEP: Final = "The request was to keep recordings. They may still be on the device."
_NO_WORD: Final = (
    "The device did not report what it did with recordings, although they were to be wiped. Treat them as present."
)


def verdict(outcome: str, *, late: str | None = None) -> Verdict:
    """Return what an outcome means; ``late`` is the status that an addendum reports."""
    return VERDICTS.get(outcome, _UNKNOWN) if late is None else _LATE.get(late, _UNKNOWN)


def entry(name: str) -> str:
    """Return the words for something that was wiped or kept. A name of the firmware's own stays as it is."""
    return _ENTRIES.get(name, name)


def technique(name: str | None) -> str:
    """Return the words for how an entry was wiped."""
    return "not reported" if name is None else _HOW.get(name, name)


def limits(*, is_wiped: bool, recordings: str, reported: bool) -> list[str]:
    """Return what a certificate does not prove.

    ``recordings`` is what was requested for them, ``reported`` whether the device said what it did with them.
    """
    told = [] if is_wiped else [_NOT_EXECUTED]
    if is_wiped and recordings == "keep":
        told.append(_KEEP)
    elif is_wiped and not reported:
        told.append(_NO_WORD)
    return [*told, *_ALWAYS]
