"""Plans of several brokers at one registry, each with its gateways: devices roam, and brokers leave and come back."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.simulation.cluster_plans import ACTIVE_SECONDS, CALLS, FAULTS, Facts, cancelled_unread, drawn
from tests.simulation.step import Step

_PERIOD: Final = 100
_SEVERAL: Final = 14
SHORT: Final = (0.3, 2.0)
LONG: Final = (6.0, 9.0)
"""Seconds that a broker is away. After 4 s, which stand for the ten minutes, it is left out (``run.py``)."""
_CLOSER: Final = 0.5
"""A run with two or three brokers costs more than others, so it is shorter."""
_ANY: Final = (0, 1, 2, "fleet")
_RETAINED: Final = ("keep", "forget", "old")


def _away(rng: random.Random) -> float:
    return round(rng.uniform(*rng.choice((SHORT, LONG))), 2)


def _at(kind: str) -> tuple[float, Facts]:
    """A fault of one gateway, of any broker."""
    weight, facts = FAULTS[kind]
    return weight, lambda rng: facts(rng) | {"gateway": rng.choice(_ANY)}


def _restart(rng: random.Random) -> dict[str, Any]:
    return {
        "broker": rng.randrange(3), "retained": rng.choice(_RETAINED), "keep_sessions": rng.random() < 0.5,
        "down": _away(rng),
    }  # fmt: skip


_FAULTS: Final[Mapping[str, tuple[float, Facts]]] = {
    **{kind: _at(kind) for kind in ("pause", "leave_broker", "leave_registry", "set_clock")},
    "kill": (3.0, lambda r: FAULTS["kill"][1](r) | {"gateway": r.choice(_ANY), "down": _away(r)}),
    "stop": (2.0, lambda r: {"gateway": r.choice(_ANY), "down": _away(r)}),
    "broker_restart": (4.0, _restart),
    "forget_broker": (
        1.0,
        lambda r: {"broker": r.randrange(3), "back": r.choice((None, 1.0, 5.0)), "retained": r.choice(_RETAINED)},
    ),
}
_ROAM: Final[tuple[float, Facts]] = (1.0, lambda r: {"device": 0, "far_after": r.choice((0.0, 0.5, 4.0))})
BROKER_FAULT_KINDS: Final = ("roam", "forget_broker", "join_broker")


def has_brokers(seed: int) -> bool:
    """Return whether the plan of this seed has several brokers: one of a hundred does."""
    return seed % _PERIOD == _SEVERAL


def broker_configuration(rng: random.Random) -> dict[str, Any]:
    """Two or three brokers, each with a gateway, and perhaps one more that stands by."""
    brokers = rng.choice((2, 2, 3))
    return {
        "brokers": brokers,
        "gateways": rng.choice((brokers, brokers, 3)),
        "joins_late": rng.random() < 0.2,
        "mirrored": rng.random() < 0.5,
        "wildcard_retained": rng.random() < 0.5,
        "shelf": 0,
    }


def broker_steps(rng: random.Random, *, joins_late: bool) -> tuple[Step, ...]:
    """What operators ask of any gateway, devices that roam, some faults, and something asked while a broker is away."""
    calls = {kind: weight for kind, (weight, _) in CALLS.items()}
    faults = {kind: weight for kind, (weight, _) in _FAULTS.items() if rng.random() < 0.5} or {"broker_restart": 1.0}
    steps = [drawn(rng, calls, CALLS) for _ in range(rng.randint(2, 5))]
    steps += [drawn(rng, faults, _FAULTS) for _ in range(rng.randint(1, 3))]
    steps += [drawn(rng, {"roam": 1.0}, {"roam": _ROAM}) for _ in range(rng.randint(1, 4))]
    for _ in range(rng.choice((1, 1, 2, 2))):
        steps += rng.choice(_MOTIFS)(rng)
    if joins_late:
        retained = rng.choice(("keep", "forget"))
        steps.append(Step(rng.uniform(0.0, ACTIVE_SECONDS / 2), "join_broker", {"retained": retained}))
    closer = [Step(round(step.at * _CLOSER, 3), step.kind, step.facts) for step in steps]
    return tuple(sorted(closer, key=lambda step: step.at))


def _asked_while_away(rng: random.Random) -> list[Step]:
    """One broker or its gateway is away, perhaps for long, and commands and bindings begin and end meanwhile."""
    at, broker, seconds = rng.uniform(1.0, ACTIVE_SECONDS / 2), rng.randrange(3), _away(rng)
    trouble = rng.choice(("broker_restart", "broker_restart", "kill", "stop"))
    facts: dict[str, Any] = {**_FAULTS[trouble][1](rng), "down": seconds}
    facts |= {"broker": broker} if trouble == "broker_restart" else {"gateway": broker}
    asked = ("reset", "command", "cancel", "provision", "unbind", "refresh")
    steps = [Step(at, trouble, facts)]
    for _ in range(rng.randint(2, 4)):
        kind = rng.choice(asked)
        steps.append(Step(at + rng.uniform(0.0, 2.2) * seconds, kind, CALLS[kind][1](rng)))
    if rng.random() < 0.5:
        steps.append(Step(at - 0.5, "reset", CALLS["reset"][1](rng)))
    if rng.random() < 0.5:  # what is asked for then stays open until the broker is back
        steps.append(Step(at - 1.0, "unplug", {"device": 0, "off": 0.5 * seconds + rng.choice((1.0, 7.0))}))
    return steps


def _bound_while_away(rng: random.Random) -> list[Step]:
    """A device is bound when one broker, or its gateway, has been away for long."""
    at, seconds = rng.uniform(1.0, ACTIVE_SECONDS / 4), LONG[1]
    trouble = rng.choice(("broker_restart", "kill"))
    facts: dict[str, Any] = {**_FAULTS[trouble][1](rng), "down": seconds}
    late = at + 0.6 * seconds / _CLOSER  # its owner has noticed long since
    asked = (("unbind", 0.0), ("provision", 0.5), ("unbind", 2.0), ("provision", 2.5))
    return [
        Step(at, trouble, facts),
        *(Step(late + after, kind, CALLS[kind][1](rng) | {"device": 0}) for kind, after in asked),
    ]


def _will_comes_late(rng: random.Random) -> list[Step]:
    """A device goes to another broker, and the one that it has left notices later."""
    at = rng.uniform(0.0, ACTIVE_SECONDS)
    roams = [Step(at, "roam", {"device": 0, "far_after": 4.0})]
    if rng.random() < 0.5:
        trouble = rng.choice(("pause", "kill"))
        roams.append(Step(at - rng.uniform(0.1, 4.0), trouble, _FAULTS[trouble][1](rng)))
    return roams


def _reset_and_roam(rng: random.Random) -> list[Step]:
    """A device takes its reset from one broker, and what it says of it goes to another."""
    at = rng.uniform(0.0, ACTIVE_SECONDS)
    steps = [Step(at, "reset", CALLS["reset"][1](rng))]
    steps += [Step(at + rng.uniform(0.0, 1.5), "roam", _ROAM[1](rng)) for _ in range(rng.randint(1, 3))]
    kind = rng.choice(("provision", "cancel", "replay"))
    steps.append(Step(at + rng.uniform(0.1, 4.0), kind, CALLS[kind][1](rng)))
    return steps


_MOTIFS: Final[tuple[Callable[[random.Random], list[Step]], ...]] = (
    *(_asked_while_away, _asked_while_away, _asked_while_away, _asked_while_away),
    *(_bound_while_away, _will_comes_late, _reset_and_roam, _reset_and_roam, cancelled_unread, cancelled_unread),
)
