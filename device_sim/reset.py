"""Params, result and wipe of a factory reset (sections 4 and 7)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from device_sim.actions import APN, SERIAL, Action, Area, EraseFlash
from device_sim.binding import WIPED_BY_A_RESET, Binding
from device_sim.grant import INVALID_PARAMS, RefusalError
from device_sim.journal import Outcome
from device_sim.recordings import RECORDINGS, Recordings
from device_sim.wire import Command

RESET = "factory_reset"
IN_PROGRESS = "reset_in_progress"
KEEP, WIPE = "keep", "wipe"
TECHNIQUE = "deleted"
"""How this simulator wipes: it removes the file of a value. It overwrites nothing and has no key to destroy."""


def check_params(command: Command) -> None:
    """Check what a reset is to do with recordings. Other members of its params mean nothing to this firmware.

    Raises:
        RefusalError: `invalid_params`: neither `keep` nor `wipe`, so nothing is to be wiped.
    """
    if command.type == RESET and command.params.get(RECORDINGS, KEEP) not in (KEEP, WIPE):
        raise RefusalError(INVALID_PARAMS, f"params.{RECORDINGS} of a reset is {KEEP} or {WIPE}")


def outcome_of(command: Command, binding: Binding, recordings: Recordings) -> Outcome:
    """Return the outcome of a reset whose params were checked. Its result also says what the wipe has to do."""
    return replace(Outcome.of(command, "executed", binding), result=_result_of(command.params, recordings))


def _result_of(params: Mapping[str, Any], recordings: Recordings) -> dict[str, Any]:
    count, is_wiped = recordings.count(), params.get(RECORDINGS) == WIPE
    wiped = [*WIPED_BY_A_RESET, *([RECORDINGS] if is_wiped else [])]
    kept_recordings = [RECORDINGS] if count and not is_wiped else []
    return {
        "wiped": wiped,
        "kept": [SERIAL, APN, "last_command_id", *kept_recordings],
        "recordings": {"wiped": count, "kept": 0} if is_wiped else {"wiped": 0, "kept": count},
        "technique": dict.fromkeys(wiped, TECHNIQUE),
    }


def erase(outcome: Outcome, recordings: Recordings) -> list[Action]:
    """Return the erasures of a reset with this outcome. A repetition is safe."""
    wiped = (outcome.result or {}).get("wiped", ())
    erased = recordings.wipe() if RECORDINGS in wiped else []
    return [*(EraseFlash(Area.WIPED, each) for each in WIPED_BY_A_RESET), *erased]
