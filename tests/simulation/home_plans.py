"""Plans of several brokers where each device has a home: devices are moved, and brokers are drained and given up."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from tests.simulation.broker_plans import LONG, SHORT, broker_steps, has_brokers
from tests.simulation.cluster_plans import ACTIVE_SECONDS, CALLS, Facts, drawn
from tests.simulation.step import Step

_PERIOD: Final = 400
_WITH_HOMES: Final = 314
_CLOSER: Final = 0.5
"""As in other plans of several brokers."""
_MOVES: Final[Mapping[str, tuple[float, Facts]]] = {
    "move": (4.0, lambda r: {"device": r.choice((0, 0, 1)), "to": r.randrange(3)}),
    "move_all": (1.0, lambda r: {"source": r.randrange(3), "to": r.randrange(3)}),
    "drain": (1.0, lambda r: {"broker": r.randrange(3), "draining": r.random() < 0.7}),
}


def has_homes(seed: int) -> bool:
    """Return whether devices have homes in the plan of this seed: in one of four that have several brokers."""
    return has_brokers(seed) and seed % _PERIOD == _WITH_HOMES


def home_steps(rng: random.Random, *, joins_late: bool) -> tuple[Step, ...]:
    """Return the steps of a plan of several brokers, and moves among them."""
    steps = list(broker_steps(rng, joins_late=joins_late))
    weights = {kind: weight for kind, (weight, _) in _MOVES.items()}
    moves = [drawn(rng, weights, _MOVES) for _ in range(rng.randint(1, 3))]
    for _ in range(rng.choice((1, 1, 2))):
        moves += rng.choice(_MOTIFS)(rng)
    steps += [replace(step, at=round(step.at * _CLOSER, 3)) for step in moves]
    return tuple(sorted(steps, key=lambda step: step.at))


def _call(rng: random.Random, at: float, kind: str) -> Step:
    return Step(at, kind, CALLS[kind][1](rng) | {"device": 0})


def _moved_with_a_command(rng: random.Random) -> list[Step]:
    """A device has an open command when it is moved, and may be switched off meanwhile."""
    at = rng.uniform(0.0, ACTIVE_SECONDS)
    steps = [_call(rng, at, rng.choice(("reset", "reset", "command")))]
    if rng.random() < 0.7:
        steps.append(Step(at - 0.2, "unplug", {"device": 0, "off": rng.choice((1.0, 6.0))}))
    moves = rng.choice((1, 1, 2))
    return [*steps, *(Step(at + rng.uniform(0.0, 2.0), "move", _MOVES["move"][1](rng)) for _ in range(moves))]


def _moved_while_away(rng: random.Random) -> list[Step]:
    """Devices are moved from a broker that is away, perhaps for long, and that comes back with what it had."""
    at, broker = rng.uniform(1.0, ACTIVE_SECONDS / 2), rng.randrange(3)
    seconds = rng.uniform(*rng.choice((SHORT, LONG, LONG)))
    restart = {"broker": broker, "retained": "keep", "keep_sessions": rng.random() < 0.5, "down": round(seconds, 2)}
    trouble = rng.choice((Step(at, "broker_restart", restart), Step(at, "stop", {"gateway": broker, "down": seconds})))
    moved = at + rng.uniform(0.1, 1.2) * seconds / _CLOSER
    steps = [
        Step(at - 4.0, "move", {"device": 0, "to": broker}),
        trouble,
        Step(moved, "move_all", {"source": broker, "to": broker + 1}),
    ]
    if rng.random() < 0.5:
        steps.append(_call(rng, at - 0.3, rng.choice(("reset", "command"))))
    if rng.random() < 0.5:  # what is asked for stays open until the broker is back
        steps.append(Step(at - 0.6, "unplug", {"device": 0, "off": round(seconds + rng.uniform(2.0, 6.0), 2)}))
    return steps


def _bound_while_drained(rng: random.Random) -> list[Step]:
    """A broker is drained, and a device is bound that had it as its home."""
    at, broker = rng.uniform(0.0, ACTIVE_SECONDS / 2), rng.randrange(3)
    return [
        Step(at, "move", {"device": 0, "to": broker}),
        Step(at + 0.5, "drain", {"broker": broker, "draining": True}),
        _call(rng, at + 1.5, "unbind"),
        _call(rng, at + 3.0, "provision"),
    ]


_MOTIFS: Final[tuple[Callable[[random.Random], list[Step]], ...]] = (
    *(_moved_with_a_command, _moved_with_a_command, _moved_while_away, _moved_while_away, _bound_while_drained),
)


def home_configuration() -> dict[str, Any]:
    """Two devices, so that the brokers share them."""
    return {"homes": True, "kinds": ("mqtt", "mqtt")}
