"""Scenarios of a new signing key for bound devices: what goes wrong while devices take it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from tests.simulation.step import Step

_DEVICE: Final = {"device": 0}
_SEAMS: Final = ("acknowledge", "batch", "commit", "committed", "write", "publish", "published", "any")
_CUT_BEFORE: Final = (
    *("publish:ack:delivered", "write:last_sequences", "write:pairing", "write:last_commands"),
    "publish:ack:executed",
)
_OFTEN: Final = 0.6
_SELDOM: Final = 0.3


def _down(rng: random.Random) -> float:
    return rng.choice((0.1, 0.5, 3.0)) * rng.uniform(0.5, 1.5)


_TROUBLES: Final[tuple[tuple[str, Callable[[random.Random], dict[str, Any]]], ...]] = (
    ("power_cut", lambda r: {**_DEVICE, "before": r.choice(_CUT_BEFORE), "off": _down(r)}),
    ("power_cut", lambda r: {**_DEVICE, "before": r.choice(_CUT_BEFORE), "off": _down(r)}),
    ("power_cut_after", lambda r: {**_DEVICE, "actions": r.randint(1, 14), "off": _down(r)}),
    ("unplug", lambda r: {**_DEVICE, "off": _down(r)}),
    ("kill", lambda r: {"seam": r.choice(_SEAMS), "passes": r.randint(1, 8), "down": _down(r)}),
    ("kill", lambda r: {"seam": r.choice(_SEAMS), "passes": r.randint(1, 8), "down": _down(r)}),
    ("cut", lambda r: {"who": r.choice(("gateway", 0)), "far_after": r.choice((0.0, 0.5, 4.0))}),
    ("stall", lambda r: {"who": r.choice(("gateway", 0)), "seconds": r.choice((0.5, 3.0))}),
    (
        "broker_restart",
        lambda r: {
            "retained": r.choice(("keep", "forget", "old")),
            "keep_sessions": r.random() < _OFTEN,
            "down": _down(r),
        },
    ),
    ("disk_full", lambda r: {"seconds": _down(r)}),
    ("refuse", lambda r: {"seconds": _down(r)}),
    ("refresh", lambda r: {**_DEVICE, "lost": r.random() < _SELDOM}),
    ("command", lambda r: {**_DEVICE, "type": r.choice(("trigger_upload", "reboot")), "ttl": 300}),
    ("command", lambda r: {**_DEVICE, "type": r.choice(("start_recording", "reboot")), "ttl": 300}),
    ("replay", lambda _: {**_DEVICE, "type": "set_grant_key"}),
    ("replay", lambda _: {**_DEVICE, "type": "trigger_upload"}),
    ("forge_ack", lambda r: {**_DEVICE, "status": "executed", "signed": r.random() < _SELDOM, "type": "set_grant_key"}),
    ("forge_key", lambda _: _DEVICE),
)


def new_key(rng: random.Random) -> tuple[Step, ...]:
    """Bound devices take a new key, now and then another one at once, in trouble; a reset follows at some time."""
    start = rng.uniform(0.5, 1.5)
    steps = [Step(start, "deliver_key", {}), *_troubles(rng, start - 0.4)]
    if rng.random() < _SELDOM:
        steps.append(Step(start + rng.uniform(0.3, 6.0), "deliver_key", {}))
    if rng.random() < _OFTEN:
        steps.append(Step(start + rng.uniform(0.5, 10.0), "reset", {**_DEVICE, "tries": 1}))
    return tuple(sorted(steps, key=lambda step: step.at))


def new_key_and_a_restore(rng: random.Random) -> tuple[Step, ...]:
    """A backup that has the new key, before or after devices are asked for it; a restore; commands, and a reset."""
    asked, backup = 1.5, rng.choice((1.0, rng.uniform(1.6, 4.0)))
    lost = rng.uniform(max(asked, backup) + 0.3, 7.0)
    command = {**_DEVICE, "type": "trigger_upload", "ttl": 300}
    steps = [
        Step(0.5, "rotate_signing_key", {}),
        Step(backup, "backup", {}),
        Step(asked, "deliver_key", {"rotate": False}),
        Step(lost, "lose_registry", {"down": _down(rng)}),
        Step(lost + rng.uniform(4.0, 6.0), "command", command),
        Step(lost + rng.uniform(4.0, 6.0), "command", {**command, "type": "reboot"}),
        Step(lost + rng.uniform(8.0, 10.0), "reset", {**_DEVICE, "tries": 1}),
    ]
    if rng.random() < _OFTEN:
        steps.append(Step(lost + rng.uniform(5.0, 8.0), "deliver_key", {}))
    if rng.random() < _SELDOM:
        steps.append(Step(1.2 + rng.uniform(0.0, 2.0), "unplug", {**_DEVICE, "off": rng.uniform(1.0, 12.0)}))
    return tuple(sorted(steps, key=lambda step: step.at))


def _troubles(rng: random.Random, start: float) -> list[Step]:
    found = []
    for _ in range(rng.randint(1, 5)):
        kind, facts = rng.choice(_TROUBLES)
        found.append(Step(start + rng.choice((0.0, 0.5, 2.0, 5.0)) * rng.uniform(0.5, 1.5), kind, facts(rng)))
    return found
