"""Facts: the events of a device, for people and for machines. They never contain a secret."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from device_sim.actions import (
    Action,
    EraseFlash,
    OpenLink,
    Publish,
    Reboot,
    RecordFact,
    RefreshToken,
    Upload,
    WriteFlash,
)
from device_sim.binding import PAIRING, TOKEN, WIFI
from device_sim.recordings import RECORDINGS
from device_sim.reset import IN_PROGRESS
from device_sim.wire import rfc3339

SENTENCES: Mapping[str, str] = {
    "registered": "registered as {device_id}",
    "bound": "bound to {end_user_id} as {device_id}, generation {generation}",
    "provisioned": "the companion app wrote token and pairing over BLE",
    "provisioning_refused": "provisioning refused: {reason}",
    "powered_on": "powered on, {pairing}",
    "state": "{before} → {after}",
    "online": "online over {connection} ({transport})",
    "offline": "offline: {reason}",
    "refused": "the token was refused {refusals} times: {reason}",
    "token_refreshed": "got another token of generation {generation} over HTTP",
    "token_not_refreshed": "got no other token over HTTP: {reason}",
    "status": "status {status} published, retained",
    "heartbeat": "heartbeat: battery {battery_percent} %, {device_state}",
    "not_sent": "{kind} not sent: {reason}",
    "message_refused": "the gateway refused a message: {answer}",
    "command_received": "command {type} received ({command_id}, generation {generation})",
    "command_refused": "command {type} refused: {code} ({command_id})",
    "command_ignored": "command {type} ignored: {reason}",
    "already_done": "delivered again, done before: {command_id} was {status}",
    "acknowledged": "{type} acknowledged: {status} ({command_id})",
    "acknowledgement_lost": "nobody took the acknowledgement of {command_id}; it is kept for a later heartbeat",
    "reset_postponed": "reset not begun, its acknowledgement was not confirmed: {reason}",
    "reset_withdrawn": "reset withdrawn before it was begun ({command_id})",
    "reset_begun": "reset in progress ({command_id}): {wiped_recordings} recordings to wipe, {kept_recordings} to keep",
    "wipe_resumed": "power is back in the middle of a reset: finishing the wipe ({command_id})",
    "wiped": "wiped {what}",
    "grant_key_added": "new grant key {kid}; the old one counts until the first command under the new one",
    "grant_key_dropped": "grant key {kid} dropped: a command under the new one arrived",
    "uploaded": "recording {recording_id} of generation {made_in} uploaded under the token of generation {under}",
    "wifi_given": "WiFi network {ssid} added over BLE",
    "wifi_refused": "WiFi network {ssid} refused: {reason}",
    "flash_written": "flash: {what} written ({area} area)",
    "flash_erased": "flash: {what} erased ({area} area)",
    "rebooting": "rebooting",
    "power_cut": "power cut before {step}",
}


@dataclass(frozen=True)
class Fact:
    """One event of one device, `at` milliseconds since the epoch."""

    at: int
    serial: str
    name: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Return the fact as a sentence."""
        return SENTENCES.get(self.name, self.name).format_map(_WithPlaceholders(self.details))

    def as_dict(self) -> dict[str, Any]:
        """Return the fact for a machine."""
        return {"at": rfc3339(self.at), "serial_number": self.serial, "fact": self.name, **self.details}


class _WithPlaceholders(dict[str, Any]):
    """Details of a sentence. A missing one has a placeholder, so that the sentence is still printed."""

    def __missing__(self, key: str) -> str:
        return f"(no {key})"


OnFact = Callable[[Fact], None]


def step(action: Action) -> str:  # noqa: PLR0911  # a table: one line per action
    """Return the name of an action, by which a power cut can be set before it, such as `erase:device_token`."""
    match action:
        case RecordFact():
            return f"tell:{action.name}"
        case Publish():
            return f"publish:{action.kind}" + (f":{action.status}" if action.status else "")
        case WriteFlash():
            return f"write:{action.name}"
        case EraseFlash():
            return f"erase:{action.name}"
        case OpenLink():
            return "open_link"
        case RefreshToken():
            return "refresh_token"
        case Upload():
            return "upload"
        case Reboot():
            return "reboot"


def describe_flash_change(action: WriteFlash | EraseFlash) -> tuple[str, dict[str, Any]]:
    """Return name and details of a change of the flash. Values are left out, since they may be secrets."""
    if isinstance(action, WriteFlash) and action.name == IN_PROGRESS:
        recordings = (action.value["result"] or {}).get("recordings", {})
        counts = {f"{done}_recordings": number for done, number in recordings.items()}
        return "reset_begun", {
            "command_id": action.value["command_id"],
            "receipt": action.value["receipt"],
            **counts,
        }
    if isinstance(action, EraseFlash) and action.name in (TOKEN, PAIRING, WIFI, RECORDINGS):
        return "wiped", {"what": action.name}
    verb = "flash_written" if isinstance(action, WriteFlash) else "flash_erased"
    return verb, {"area": str(action.area), "what": action.name}


def describe_upload(action: Upload) -> dict[str, Any]:
    """Return the details of an upload: the recording, the generation of its label, and that of the token used."""
    return {"recording_id": action.recording_id, "made_in": action.made_in, "under": action.binding.generation}
