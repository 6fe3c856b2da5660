"""Scenarios that are written down up to their timing: what has to meet by the second, and by chance would hardly."""

from __future__ import annotations

import random
from typing import Any, Final

from tests.simulation.step import Step

_DEVICE: Final = {"device": 0}
_BIND: Final[dict[str, Any]] = {**_DEVICE, "supersede": True, "lost": False}
_TROUBLED: Final = 0.5
_UNBOUND: Final = 0.6
_RECORDING_STEPS: Final = (
    *("erase:pairing", "erase:recordings", "erase:recordings", "write:last_commands"),
    *("write:reset_in_progress", "publish:ack:executed", "upload", "write:recordings"),
)
_SEAMS: Final = ("acknowledge", "batch", "commit", "write", "any")


def lost_wipe_report(rng: random.Random) -> tuple[Step, ...]:
    """A wipe whose acknowledgement is lost, a new binding, and a disturbance just when a heartbeat reports the wipe."""
    bound = 1.0 + rng.uniform(3.0, 5.0)
    disturbance = rng.choice((_gateway_killed_repeatedly, _gateway_and_broker_down, _unbound_before_processing))
    return (
        Step(0.5, "power_cut", {**_DEVICE, "before": "publish:ack:executed", "off": 0.3}),
        Step(1.0, "reset", {**_DEVICE, "tries": 1}),
        Step(bound, "provision", _BIND),
        *disturbance(rng, bound),
    )


def lost_registry(rng: random.Random) -> tuple[Step, ...]:
    """A backup, a binding and a reset that waits at the broker, a restore, and a new binding that must not obey it."""
    unbound = [Step(0.3, "unbind", _DEVICE), Step(0.8, "reset_by_hand", _DEVICE)] if rng.random() < _UNBOUND else []
    asked = rng.choice(("reset", "reset", "command", "replay"))
    facts: dict[str, dict[str, Any]] = {"reset": {"tries": 1}, "command": {"type": "reboot", "ttl": 300}, "replay": {}}
    bound = 9.0 + rng.uniform(0.0, 2.0)
    after = [
        Step(bound + rng.uniform(0.5, 4.0), kind, {**_DEVICE, **({"tries": 1} if kind == "reset" else {})})
        for kind in rng.sample(("replay", "reset", "reset", "unbind"), rng.randint(0, 3))
    ]
    steps = [
        *unbound,
        Step(1.2, "backup", {}),
        Step(1.5, "provision", _BIND),
        Step(3.5 + rng.uniform(0.0, 0.4), "unplug", {**_DEVICE, "off": rng.uniform(1.0, 12.0)}),
        Step(4.0, asked, {**_DEVICE, **facts[asked]}),
        Step(rng.uniform(4.1, 5.5), "lose_registry", {"down": rng.choice((0.1, 0.5, 2.0))}),
        Step(bound, "provision", _BIND),
        *after,
    ]
    return tuple(sorted(steps, key=lambda step: step.at))


def _gateway_killed_repeatedly(rng: random.Random, at: float) -> list[Step]:
    """Again and again, and the embedded broker with it."""
    steps = []
    for _ in range(rng.randint(1, 4)):
        at += rng.uniform(0.0, 3.0)
        down = rng.choice((0.1, 0.5, 3.0))
        steps.append(Step(at, "kill", {"seam": rng.choice(_SEAMS), "passes": rng.randint(1, 6), "down": down}))
    return steps


def _gateway_and_broker_down(rng: random.Random, at: float) -> list[Step]:
    """The gateway is away while its broker loses what it had confirmed, and is back later than that."""
    away, at = rng.uniform(3.0, 9.0), at + rng.uniform(0.2, 1.0)
    forgetful = {"retained": "keep", "keep_sessions": False}
    deaths = [
        Step(at + rng.uniform(0.3, away), "broker_restart", {**forgetful, "down": rng.uniform(0.1, 3.0)})
        for _ in range(rng.randint(1, 2))
    ]
    return sorted([Step(at, "stop", {"down": away}), *deaths], key=lambda step: step.at)


def _unbound_before_processing(rng: random.Random, at: float) -> list[Step]:
    """It is unbound before the gateway processes its message."""
    at += rng.uniform(0.0, 0.5)
    return [
        Step(at, "stall", {"who": "gateway", "seconds": rng.choice((0.5, 3.0))}),
        Step(at + rng.uniform(0.1, 2.0), "unbind", _DEVICE),
        Step(at + 4.0, "reset_by_hand", _DEVICE),
        Step(at + 5.0, "provision", _BIND),
    ]


def revoked_after_an_outage(rng: random.Random) -> tuple[Step, ...]:
    """One device is unbound while the broker is away, so that the gateway tries in vain; another once it is back."""
    away = rng.uniform(3.0, 9.0)
    back = 0.5 + away
    return (
        Step(0.5, "broker_restart", {"retained": "keep", "keep_sessions": True, "down": away}),
        Step(0.6 + rng.uniform(0.0, 2.0), "unbind", _DEVICE),
        Step(back + rng.uniform(0.2, 6.0), "unbind", {"device": 1}),
    )


def heartbeats_before_a_refresh(rng: random.Random) -> tuple[Step, ...]:
    """Heartbeats of the old token wait at the broker while the answer to a refresh is lost, and a reset follows."""
    stalled_at = 0.6 + rng.uniform(0.0, 0.4)
    refreshed = stalled_at + rng.uniform(4.0, 5.0)  # a heartbeat comes every 4 s
    resumed = refreshed + rng.uniform(1.0, 3.0)
    return (
        Step(stalled_at, "stall", {"who": "gateway", "seconds": resumed - stalled_at}),
        Step(refreshed, "refresh", {**_DEVICE, "lost": True}),
        Step(resumed + rng.uniform(1.0, 4.0), "reset", {**_DEVICE, "tries": 1}),
    )


def cancelled_while_backlogged(rng: random.Random) -> tuple[Step, ...]:
    """A device takes its reset while the gateway receives nothing, and the reset is cancelled meanwhile."""
    stalled_at = 2.0 + rng.uniform(0.0, 0.5)
    back = stalled_at + rng.uniform(0.5, 1.0)
    return (
        Step(0.5, "unplug", {**_DEVICE, "off": back - 0.5}),
        Step(1.0 + rng.uniform(0.0, 0.5), "reset", {**_DEVICE, "tries": 1}),
        Step(stalled_at, "stall", {"who": "gateway", "seconds": 12.0}),
        Step(back + rng.uniform(2.0, 5.0), "cancel", _DEVICE),
    )


def superseded_while_stalled(rng: random.Random) -> tuple[Step, ...]:
    """A reset waits at the broker for a device that is away, and a bind supersedes it while nothing can be cleared."""
    stalled_at = 15.0 + rng.uniform(0.0, 1.0)
    return (
        Step(12.0, "unplug", {**_DEVICE, "off": 12.0}),
        Step(13.0, "reset", {**_DEVICE, "tries": 1}),
        Step(stalled_at, "stall", {"who": "gateway", "seconds": 8.0}),
        Step(stalled_at + rng.uniform(0.2, 2.0), "provision", _BIND),
    )


def reset_after_a_lost_refresh(rng: random.Random) -> tuple[Step, ...]:
    """The broker knows a token that the device never got, and a reset follows, sometimes with a gateway kill."""
    reset = 0.6 + rng.uniform(0.0, 3.0)
    steps = [
        Step(0.5, "refresh", {**_DEVICE, "lost": True}),
        Step(reset, "reset", {**_DEVICE, "tries": 1}),
    ]
    if rng.random() < _TROUBLED:
        seam = {"seam": rng.choice(_SEAMS), "passes": rng.randint(1, 6), "down": rng.choice((0.1, 0.5, 3.0))}
        steps.append(Step(reset + rng.uniform(0.0, 3.0), "kill", seam))
    return tuple(steps)


def cancelled_and_replayed(rng: random.Random) -> tuple[Step, ...]:
    """The broker keeps a command to itself until it is cancelled, and hands it over once a later one was obeyed."""
    kind = rng.choice(("trigger_upload", "reboot", "start_recording"))
    command = {**_DEVICE, "type": kind, "ttl": 300}
    later = 5.0 + rng.uniform(0.0, 1.0)
    replays = [Step(later + rng.uniform(3.0, 9.0), "replay", {**_DEVICE, "type": kind}) for _ in range(4)]
    steps = [
        Step(0.5, "withhold", {**_DEVICE, "seconds": 3.5}),
        Step(1.0 + rng.uniform(0.0, 0.5), "command", command),
        Step(3.0, "cancel", _DEVICE),
        Step(later, "command", command),
        *replays,
    ]
    return tuple(sorted(steps, key=lambda step: step.at))


def recordings_between_owners(rng: random.Random) -> tuple[Step, ...]:
    """Recordings of several owners, uploads, resets that keep or wipe them, and the power that goes meanwhile."""
    steps, at = [], 0.3
    for _ in range(rng.randint(1, 3)):
        uploads = ["trigger_upload"] if rng.random() < _TROUBLED else []
        for kind in (*uploads, "start_recording", *rng.sample(("stop_recording",), rng.randint(0, 1))):
            steps.append(Step(at, "command", {**_DEVICE, "type": kind, "ttl": 300}))
            at += rng.uniform(0.3, 1.5)
        if rng.random() < _TROUBLED:
            before = rng.choice(_RECORDING_STEPS)
            steps.append(Step(at, "power_cut", {**_DEVICE, "before": before, "off": rng.choice((0.1, 1.0))}))
        choice = rng.choice(("keep", "wipe", "wipe"))
        steps.append(Step(at + 0.3, "reset", {**_DEVICE, "tries": 1, "recordings": choice}))
        at += rng.uniform(5.0, 7.0)
        steps.append(Step(at, "provision", _BIND))
        at += rng.uniform(1.0, 2.0)
    steps.append(Step(at, "command", {**_DEVICE, "type": "trigger_upload", "ttl": 300}))
    return tuple(steps)


def altered(rng: random.Random) -> tuple[Step, ...]:
    """The broker changes the params of what a device receives, of a reset or of another command."""
    facts: dict[str, dict[str, Any]] = {
        "reset": {"tries": 1, "recordings": rng.choice(("keep", "wipe"))},
        "command": {"type": "trigger_upload", "ttl": 300},
    }
    asked = rng.choice(("reset", "command", "command"))
    return (
        Step(0.5, "alter", {**_DEVICE, "seconds": rng.uniform(4.0, 8.0)}),
        Step(1.0 + rng.uniform(0.0, 2.0), asked, {**_DEVICE, **facts[asked]}),
        Step(10.0, asked, {**_DEVICE, **facts[asked]}),
    )


def numbers_after_a_restore(rng: random.Random) -> tuple[Step, ...]:
    """Commands that only the lost registry knew of, and others after the restore, under the same binding."""
    command = {**_DEVICE, "type": "trigger_upload", "ttl": 300}
    lost = [Step(1.0 + number * rng.uniform(0.8, 1.5), "command", command) for number in range(rng.randint(1, 3))]
    return (
        Step(0.5, "backup", {}),
        *lost,
        Step(6.5, "lose_registry", {"down": rng.choice((0.1, 0.5, 2.0))}),
        Step(11.0 + rng.uniform(0.0, 2.0), "command", command),
        Step(15.0 + rng.uniform(0.0, 2.0), "reset", {**_DEVICE, "tries": 1}),
    )


def unsigned_acknowledgements(rng: random.Random) -> tuple[Step, ...]:
    """Others on the broker speak of a reset in the device's name, without a receipt, while the device is away."""
    forgeries = [
        Step(2.0 + rng.uniform(0.0, 4.0), "forge_ack", {**_DEVICE, "status": status, "signed": False})
        for status in rng.sample(("delivered", "failed", "executed"), 2)
    ]
    steps = [
        Step(0.5, "unplug", {**_DEVICE, "off": 8.0}),
        Step(1.0, "reset", {**_DEVICE, "tries": 1}),
        *forgeries,
    ]
    return tuple(sorted(steps, key=lambda step: step.at))
