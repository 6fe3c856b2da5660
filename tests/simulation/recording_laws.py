"""Laws about recordings: what devices recorded, under which generation, and what must be gone after a reset."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from device_sim.actions import Publish, Upload
from device_sim.recordings import RECORDINGS
from tests.simulation.model_state import RESET, ModelState

if TYPE_CHECKING:
    from tests.simulation.device_host import DeviceHost


class RecordingLaws:
    """Records of its own beside the labels of the devices: the token that a device held when it recorded something."""

    def __init__(self, model: ModelState) -> None:
        self._model = model
        self._generation_of: dict[str, int] = {}
        self._made_in: dict[tuple[str, str], int] = {}
        self._wiped: dict[str, set[str]] = defaultdict(set)
        self._counts: dict[str, dict[str, int]] = {}

    def record_token(self, token: str, generation: int) -> None:
        """The gateway has answered this token; a refresh keeps the generation."""
        self._generation_of[token] = generation

    def record_write(self, device: DeviceHost, stored: dict[str, int]) -> None:
        """A device writes the index of its recordings: what is new was made under the token that it holds."""
        binding = device.binding
        generation = None if binding is None else self._generation_of.get(binding.device_token)
        if generation is not None:
            for recording_id in stored:
                self._made_in.setdefault((device.serial, recording_id), generation)

    def check_upload(self, device: DeviceHost, upload: Upload) -> None:
        """A device uploads a recording with a token."""
        made_in = self._made_in.get((device.serial, upload.recording_id))
        under = self._generation_of.get(upload.binding.device_token)
        if made_in is not None and under is not None and made_in != under:
            detail = f"{device.serial} uploads {upload.recording_id} of generation {made_in} under {under}"
            self._model.violate(2, "a recording is uploaded under the token of its own generation alone", detail)

    def record_reset(self, device: DeviceHost, command_id: str) -> None:
        """A device begins a reset: from here on it is known what it has to wipe and to keep."""
        stored = set(_stored(device))
        is_wipe = device.accepted_params.get(command_id, {}).get(RECORDINGS) == "wipe"
        if is_wipe:
            self._wiped[device.serial] |= stored
        self._counts[command_id] = {"wiped": len(stored) if is_wipe else 0, "kept": 0 if is_wipe else len(stored)}

    def check_publish(self, device: DeviceHost, what: Publish) -> None:
        """A device that sends something has finished the wipe before it, and counts rightly what that was."""
        self.check_wiped(device)
        if what.status == "executed" and what.command_type == RESET and what.command_id in self._counts:
            result: dict[str, Any] = json.loads(what.payload).get("result") or {}
            right = self._counts[what.command_id]
            if result.get(RECORDINGS) != right:
                detail = f"{device.serial} says {result.get(RECORDINGS)} for {what.command_id}, and it was {right}"
                self._model.violate(2, "a reset counts the recordings that it wiped and kept", detail)

    def check_wiped(self, device: DeviceHost) -> None:
        """A device that is in no reset has none of the recordings that it was to wipe."""
        left = self._wiped[device.serial] & set(_stored(device))
        if left:
            detail = f"{device.serial} still has {', '.join(sorted(left))}"
            self._model.violate(2, "a reset with `wipe` leaves no recording", detail)


def _stored(device: DeviceHost) -> dict[str, int]:
    stored: dict[str, int] = device.flash.kept_area.get(RECORDINGS, {})
    return stored
