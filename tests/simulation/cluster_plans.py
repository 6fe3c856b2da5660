"""Plans of two or three gateways that share a registry: what happens to one of them while devices are reset."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from tests.simulation.scenarios import cancelled_while_backlogged
from tests.simulation.step import Step

_PERIOD: Final = 50
_CLUSTERED: Final = (8, 21, 38)
ACTIVE_SECONDS: Final = 24.0
POINTS: Final = ("publish", "publish", "publish", "published", "read", "write", "connect", "connected", "anywhere")
_SEAMS: Final = ("any", "write", "commit", "committed", "publish", "published", "acknowledge", "signal", "connected")
_BIND: Final[dict[str, Any]] = {"device": 0, "supersede": True, "lost": False}

Facts = Callable[[random.Random], dict[str, Any]]


def _which(rng: random.Random) -> str | int:
    return rng.choice(("owner", "owner", "owner", "fleet", 0, 1, 2))


def _long(rng: random.Random) -> float:
    """Around the lease of 3 s, and longer than it."""
    return round(rng.choice((1.0, 2.6, 4.0, 5.0, 9.0)) * rng.uniform(0.8, 1.2), 2)


FAULTS: Final[Mapping[str, tuple[float, Facts]]] = {
    "pause": (
        4.0,
        lambda r: {"gateway": _which(r), "point": r.choice(POINTS), "passes": r.randint(1, 3), "seconds": _long(r)},
    ),
    "kill": (
        3.0,
        lambda r: {"gateway": _which(r), "seam": r.choice(_SEAMS), "passes": r.randint(1, 9), "down": _long(r)},
    ),
    "stop": (2.0, lambda r: {"gateway": _which(r), "down": _long(r)}),
    "leave_broker": (
        1.0,
        lambda r: {"gateway": _which(r), "seconds": _long(r), "far_after": r.choice((0.0, 0.5, 4.0))},
    ),
    "leave_registry": (
        2.0,
        lambda r: {"gateway": _which(r), "seconds": _long(r), "loses_answer": r.random() < 0.5},
    ),
    "set_clock": (1.5, lambda r: {"gateway": _which(r), "ms": r.choice((-3_600_000, 3_600_000, 2_000))}),
    "broker_restart": (
        1.0,
        lambda r: {
            "retained": r.choice(("keep", "forget", "old")),
            "keep_sessions": r.random() < 0.5,
            "down": r.choice((0.2, 2.0)),
        },
    ),
    "cut": (0.6, lambda r: {"who": r.choice(("gateway", 0)), "far_after": r.choice((0.0, 0.5, 4.0))}),
    "stall": (0.4, lambda r: {"who": r.choice(("gateway", 0)), "seconds": r.choice((0.5, 3.0))}),
}
"""How often each kind is drawn, and how its facts are."""
CLUSTER_FAULT_KINDS: Final = ("pause", "leave_broker", "leave_registry", "set_clock")

CALLS: Final[Mapping[str, tuple[float, Facts]]] = {
    "provision": (3.0, lambda r: {**_BIND, "supersede": r.random() < 0.7}),
    "reset": (5.0, lambda r: {"device": 0, "tries": r.choice((1, 2, 4)), "recordings": r.choice((None, "wipe"))}),
    "cancel": (1.2, lambda _: {"device": 0}),
    "command": (
        2.0,
        lambda r: {"device": 0, "type": r.choice(("reboot", "trigger_upload")), "ttl": r.choice((1, 300))},
    ),
    "unbind": (0.6, lambda _: {"device": 0}),
    "refresh": (0.6, lambda r: {"device": 0, "lost": r.random() < 0.3}),
    "replay": (0.6, lambda _: {"device": 0}),
    "unplug": (0.6, lambda r: {"device": 0, "off": _long(r)}),
    "power_cut": (0.8, lambda r: {"device": 0, "before": "publish:ack:executed", "off": r.choice((0.5, 3.0))}),
}


def is_clustered(seed: int) -> bool:
    """Return whether the plan of this seed has several gateways: three of fifty do."""
    return seed % _PERIOD in _CLUSTERED


def cluster_steps(rng: random.Random) -> tuple[Step, ...]:
    """What operators ask of any gateway, a few faults, and something asked just when a gateway is in trouble."""
    calls, faults = {kind: weight for kind, (weight, _) in CALLS.items()}, _some_faults(rng)
    steps = [drawn(rng, calls, CALLS) for _ in range(rng.randint(2, 6))]
    steps += [drawn(rng, faults, FAULTS) for _ in range(rng.randint(1, 4))]
    for _ in range(rng.choice((0, 1, 1, 2))):
        steps += rng.choice(_MOTIFS)(rng)
    denser = rng.choice((1.0, 0.5))
    moved = [Step(round(step.at * denser, 3), step.kind, step.facts) for step in steps]
    return tuple(sorted(moved, key=lambda step: step.at))


def _some_faults(rng: random.Random) -> dict[str, float]:
    """Each run has its own mix of faults."""
    kept = {kind: weight for kind, (weight, _) in FAULTS.items() if rng.random() < 0.5}
    return kept or {"pause": 1.0}


def drawn(rng: random.Random, weights: Mapping[str, float], kinds: Mapping[str, tuple[float, Facts]]) -> Step:
    """Draw one of these kinds by its weight, at any time."""
    (kind,) = rng.choices(list(weights), list(weights.values()))
    return Step(rng.uniform(0.0, ACTIVE_SECONDS), kind, kinds[kind][1](rng))


def _asked_while_paused(rng: random.Random) -> list[Step]:
    """The owner stands still in the middle of a publish, and its successor has to do something else there."""
    at = rng.uniform(0.0, ACTIVE_SECONDS)
    pause = {"gateway": "owner", "point": rng.choice(POINTS), "passes": rng.randint(1, 2), "seconds": _long(rng)}
    after = at + rng.choice((0.5, 4.0)) * rng.uniform(0.8, 1.2)
    asked, other = rng.choice(("reset", "reset", "command")), rng.choice(("provision", "cancel", "unbind"))
    return [
        Step(at, "pause", pause),
        Step(at + 0.1, asked, CALLS[asked][1](rng)),
        Step(after, other, CALLS[other][1](rng)),
    ]


def _asked_at_once(rng: random.Random) -> list[Step]:
    """Several callers ask within a few milliseconds, each another gateway perhaps."""
    at, kinds = (
        rng.uniform(0.0, ACTIVE_SECONDS),
        rng.choices(("command", "refresh", "reset", "cancel", "provision"), k=8),
    )
    return [Step(at + rng.uniform(0.0, 0.03), kind, CALLS[kind][1](rng)) for kind in kinds]


def cancelled_unread(rng: random.Random) -> list[Step]:
    """A device takes its reset while the owner receives nothing, and a cancel is asked of any gateway."""
    at = rng.uniform(0.0, ACTIVE_SECONDS)
    return [replace(step, at=at + step.at) for step in cancelled_while_backlogged(rng)]


def _taken_over_without_memory(rng: random.Random) -> list[Step]:
    """The broker loses what it retained while its owner is away."""
    at = rng.uniform(0.0, ACTIVE_SECONDS)
    trouble = rng.choice(("pause", "kill"))
    facts = {**FAULTS[trouble][1](rng), "gateway": "owner"} | (
        {"seconds": 9.0} if trouble == "pause" else {"down": 9.0}
    )
    restart = {"retained": rng.choice(("forget", "old")), "keep_sessions": rng.random() < 0.5, "down": 0.2}
    return [
        Step(at, "unplug", {"device": 0, "off": 14.0}),
        Step(at + 0.2, "reset", {"device": 0, "tries": 2}),
        Step(at + 1.0, trouble, facts),
        Step(at + rng.uniform(1.2, 3.0), "broker_restart", restart),
    ]


def _job(rng: random.Random) -> list[Step]:
    """A job for devices on a shelf, and the fleet worker in trouble."""
    at = rng.uniform(0.0, ACTIVE_SECONDS / 2)
    asked = {
        "targets": rng.choice(("shelf", "all")), "unknown": False, "type": "reboot", "ttl": 300,
        "per_minute": rng.choice((240, 600)), "ramp": None, "abort": None, "start_in": None, "tries": 3,
    }  # fmt: skip
    trouble = rng.choice(("pause", "kill", "stop", "leave_registry"))
    return [
        Step(at, "create_job", asked),
        Step(at + rng.uniform(0.1, 2.0), trouble, {**FAULTS[trouble][1](rng), "gateway": "fleet"}),
    ]


_MOTIFS: Final = (
    *(_asked_while_paused, _asked_while_paused, _asked_at_once, _asked_at_once, _asked_at_once),
    *(cancelled_unread, cancelled_unread, _taken_over_without_memory, _job),
)
