"""What happens in a run, made from its seed: the surroundings, and a list of steps that can be shortened."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from tests.simulation.broker_plans import BROKER_FAULT_KINDS, broker_configuration, broker_steps, has_brokers
from tests.simulation.cluster_plans import CLUSTER_FAULT_KINDS, cluster_steps, is_clustered
from tests.simulation.home_plans import has_homes, home_configuration, home_steps
from tests.simulation.job_plans import (
    bulk_reset_broken_off,
    job_cancelled_while_backlogged,
    job_on_a_shelf,
    job_steps,
)
from tests.simulation.key_scenarios import new_key, new_key_and_a_restore
from tests.simulation.scenarios import (
    altered,
    cancelled_and_replayed,
    cancelled_while_backlogged,
    heartbeats_before_a_refresh,
    lost_registry,
    lost_wipe_report,
    numbers_after_a_restore,
    recordings_between_owners,
    reset_after_a_lost_refresh,
    revoked_after_an_outage,
    superseded_while_stalled,
    unsigned_acknowledgements,
)
from tests.simulation.step import Step

ACTIVE_SECONDS: Final = 24.0
"""Steps are spread over this much virtual time."""

SEAMS: Final = (
    "any", "any", "any", "write", "commit", "commit", "committed", "committed", "read", "publish", "published",
    "acknowledge", "batch", "subscribe", "unsubscribe", "connected", "cut", "signal",
)  # fmt: skip
WIPE_STEPS: Final = (
    "publish:ack:delivered", "write:reset_in_progress", "erase:device_token", "erase:pairing", "erase:wifi_networks",
    "write:last_commands", "write:last_command", "erase:reset_in_progress", "publish:ack:executed", "reboot",
    "publish:ack:executed", "publish:ack:executed",
    "erase:recordings", "write:recordings", "upload",
    "erase:last_command", "open_link", "publish:status", "publish:heartbeat", "publish:ack:failed",
)  # fmt: skip
TRESPASSES: Final = (
    "POST /reset", "POST /bind", "POST /unbind", "DELETE ", "PATCH ", "GET ", "POST /heartbeat", "POST /commands",
    "GET /events", "POST /token/refresh", "GET /commands/pending",
)  # fmt: skip
CHOICES: Final = (None, "keep", "wipe", "wipe")
PLAIN: Final = ("reboot", "start_recording", "stop_recording", "trigger_upload")


@dataclass(frozen=True)
class Configuration:
    """What does not change during a run. Latencies are in seconds; ``slow`` bounds reads and commits."""

    kinds: tuple[str, ...] = ("mqtt",)
    embedded: bool = False
    version_5: bool = True
    wildcard_retained: bool = True
    reorder: float = 0.0
    duplicate: float = 0.0
    latency: float = 0.01
    slow: float = 0.005
    watching: bool = False
    mirrored: bool = False
    delivering: bool = False
    """Whether the gateway's worker runs that has bound devices take a new signing key."""
    gateways: int = 1
    """Several share one registry, and one broker (``cluster_plans.py``) or several (``broker_plans.py``)."""
    brokers: int = 1
    joins_late: bool = False
    """Whether the last broker is none of the registry's at the beginning."""
    homes: bool = False
    """Whether each device has one broker (setting ``cells = home``, ``home_plans.py``)."""
    shelf: int = 0
    """Devices that are bound and never switched on: only jobs have to do with them."""


@dataclass(frozen=True)
class Plan:
    """A whole run."""

    seed: int
    configuration: Configuration
    steps: tuple[Step, ...]

    def only(self, steps: tuple[Step, ...]) -> Plan:
        """The same with fewer steps."""
        return replace(self, steps=steps)


Facts = Callable[[random.Random, int], dict[str, Any]]


def _device(rng: random.Random, devices: int) -> dict[str, Any]:
    return {"device": rng.randrange(devices)}


def _down(rng: random.Random) -> float:
    return round(rng.choice((0.1, 0.5, 2.0, 6.0)) * rng.uniform(0.5, 1.5), 2)


def _cut(rng: random.Random, devices: int) -> dict[str, Any]:
    who = rng.choice(["gateway", *range(devices)])
    return {"who": who, "far_after": rng.choice((0.0, 0.0, 0.5, 4.0))}


STEPS: Final[Mapping[str, tuple[float, Facts]]] = {
    # what operators do
    "provision": (3.0, lambda r, n: {**_device(r, n), "supersede": r.random() < 0.5, "lost": r.random() < 0.15}),
    "unbind": (0.6, _device),
    "reset": (5.0, lambda r, n: {**_device(r, n), "tries": r.choice((1, 1, 2, 4)), "recordings": r.choice(CHOICES)}),
    "bulk_reset": (0.5, lambda r, n: {"devices": sorted(r.sample(range(n), r.randint(1, n)))}),
    "cancel": (1.2, _device),
    "command": (2.0, lambda r, n: {**_device(r, n), "type": r.choice(PLAIN), "ttl": r.choice((1, 5, 300))}),
    "delete": (0.5, _device),
    "restore": (0.8, _device),
    "refresh": (0.6, lambda r, n: {**_device(r, n), "lost": r.random() < 0.3}),
    "reset_by_hand": (0.6, _device),
    "reset_beside": (0.4, _device),
    "bulk_cancel": (0.3, lambda r, n: {"devices": sorted(r.sample(range(n), r.randint(1, n)))}),
    "trespass": (0.3, lambda r, n: {**_device(r, n), "verb": r.choice(TRESPASSES)}),
    "rotate_signing_key": (0.2, lambda r, n: {}),  # noqa: ARG005
    # what goes wrong
    "kill": (3.0, lambda r, n: {"seam": r.choice(SEAMS), "passes": r.randint(1, 12), "down": _down(r)}),  # noqa: ARG005
    "stop": (0.4, lambda r, n: {"down": _down(r)}),  # noqa: ARG005
    "broker_restart": (
        1.0,
        lambda r, n: {  # noqa: ARG005
            "retained": r.choice(("keep", "forget", "old")),
            "keep_sessions": r.random() < 0.5,
            "down": _down(r),
        },
    ),
    "cut": (1.5, _cut),
    "stall": (0.6, lambda r, n: {"who": r.choice(["gateway", *range(n)]), "seconds": r.choice((0.5, 3.0))}),
    "power_cut": (1.5, lambda r, n: {**_device(r, n), "before": r.choice(WIPE_STEPS), "off": _down(r)}),
    "power_cut_after": (1.0, lambda r, n: {**_device(r, n), "actions": r.randint(1, 14), "off": _down(r)}),
    "unplug": (0.6, lambda r, n: {**_device(r, n), "off": _down(r)}),
    "disk_full": (0.5, lambda r, n: {"seconds": _down(r)}),  # noqa: ARG005
    "disk_unreadable": (0.3, lambda r, n: {"seconds": r.choice((0.05, 0.5, 3.0))}),  # noqa: ARG005
    "clock": (0.4, lambda r, n: {"ms": r.choice((-3_600_000, -2_000, 2_000, 60_000, 86_400_000))}),  # noqa: ARG005
    "refuse": (0.4, lambda r, n: {"seconds": _down(r)}),  # noqa: ARG005
    "forge_ack": (0.4, lambda r, n: {**_device(r, n), "status": r.choice(("executed", "delivered", "failed"))}),
    "replay": (0.8, _device),
}
"""How often each kind is drawn, and how its facts are."""

MOTIFS: Final[tuple[tuple[str, ...], ...]] = (
    ("power_cut", "reset", "provision"),
    ("power_cut", "reset", "provision"),
    ("power_cut", "reset", "provision", "replay"),
    ("reset", "reset_by_hand", "provision", "replay"),
    ("unplug", "reset", "provision", "command"),
    ("refresh", "kill", "reset"),
    ("refresh", "refresh", "cut"),
    ("command", "kill", "reset", "kill", "provision"),
    ("stall", "reset", "provision", "broker_restart"),
    ("reset", "cancel", "provision", "replay"),
    ("disk_full", "reset", "kill"),
    ("delete", "restore", "provision", "replay"),
)
"""What is most telling close together and in this order, on one device."""

_UNHURRIED: Final = 0.6
_LATE: Final = 0.5
"""How often a motif cuts the power after a wipe and before its report."""

_ONE: Final[dict[str, Any]] = {"kinds": ("mqtt",), "embedded": False}
_RESTORED: Final[dict[str, Any]] = {**_ONE, "mirrored": False, "watching": False}
_NEW_KEY: Final[dict[str, Any]] = {"delivering": True, "watching": False}
_CLUSTER: Final[dict[str, Any]] = {
    "kinds": ("mqtt",),
    "embedded": False,
    "watching": False,
    "shelf": 6,
}
_UNBOUND_FIRST: Final = 0.7
"""How often operators unbind all devices before they erase the person."""
SCENARIO_PERIOD: Final = 50
SCENARIOS: Final[Mapping[int, tuple[Callable[[random.Random], tuple[Step, ...]], dict[str, Any]]]] = {
    0: (revoked_after_an_outage, {"kinds": ("mqtt", "mqtt"), "embedded": False}),
    5: (lost_registry, _RESTORED),
    15: (lost_registry, _RESTORED),
    25: (cancelled_while_backlogged, _ONE),
    34: (superseded_while_stalled, _ONE),
    35: (reset_after_a_lost_refresh, _ONE),
    45: (heartbeats_before_a_refresh, _ONE),
    9: (recordings_between_owners, _ONE),
    29: (recordings_between_owners, {"kinds": ("http",)}),
    49: (recordings_between_owners, _ONE),
    3: (cancelled_and_replayed, _ONE),
    13: (altered, _ONE),
    23: (numbers_after_a_restore, _RESTORED),
    33: (unsigned_acknowledgements, _ONE),
    43: (altered, _ONE),
    7: (new_key, _NEW_KEY),
    17: (new_key, _NEW_KEY),
    27: (new_key_and_a_restore, _NEW_KEY | _RESTORED),
    37: (new_key, _NEW_KEY),
    2: (job_on_a_shelf, {**_ONE, "shelf": 12}),
    22: (job_on_a_shelf, {**_ONE, "shelf": 60}),
    12: (job_cancelled_while_backlogged, _ONE),
    32: (bulk_reset_broken_off, {"kinds": ("mqtt", "mqtt")}),
    42: (job_on_a_shelf, {"kinds": ("mqtt",), "shelf": 60}),
    **dict.fromkeys((10, 20, 30, 40), (lost_wipe_report, {"kinds": ("mqtt",)})),
}
"""Twenty-eight of fifty seeds are scenarios of ``scenarios`` instead: events with a timing that chance hardly gives."""

SCENARIO_FAULT_KINDS: Final = ("backup", "lose_registry", "withhold", "alter", "forge_key")
"""Faults of scenarios alone: after a restore, or at a hostile broker, only a known course can be judged."""

FAULT_KINDS: Final = (
    *SCENARIO_FAULT_KINDS,
    *CLUSTER_FAULT_KINDS,
    *BROKER_FAULT_KINDS,
    *(kind for kind in STEPS if list(STEPS).index(kind) >= list(STEPS).index("kill")),
)


def make_plan(seed: int) -> Plan:
    """The plan of a seed. Each draws its own mix of what may happen (swarm testing), so that rare things meet."""
    rng = random.Random(f"plan {seed}")  # noqa: S311 - reproducible on purpose
    configuration = _configuration(rng)
    if is_clustered(seed):
        return Plan(
            seed, replace(configuration, **_CLUSTER, mirrored=False, gateways=rng.choice((2, 2, 3))), cluster_steps(rng)
        )
    if has_brokers(seed):
        of_homes = home_configuration() if has_homes(seed) else {}
        several = replace(configuration, **(_CLUSTER | broker_configuration(rng) | of_homes))
        make_steps = home_steps if of_homes else broker_steps
        return Plan(seed, several, make_steps(rng, joins_late=several.joins_late))
    if seed % SCENARIO_PERIOD in SCENARIOS:
        scenario, overrides = SCENARIOS[seed % SCENARIO_PERIOD]
        return Plan(seed, replace(configuration, **overrides), scenario(rng))
    weights = {kind: weight for kind, (weight, _) in STEPS.items() if kind not in FAULT_KINDS or rng.random() < 0.5}
    if not configuration.watching:
        weights.pop("reset_beside", None)
    kinds = rng.choices(list(weights), list(weights.values()), k=rng.randint(4, 18))
    times = [rng.uniform(0.0, ACTIVE_SECONDS) for _ in kinds]
    devices = len(configuration.kinds)
    steps = [_step(rng, at, kind, devices) for at, kind in zip(times, kinds, strict=True)]
    for _ in range(rng.choice((0, 1, 1, 2))):
        steps += _motif(rng, devices)
    steps += [*_erasures(seed), *job_steps(seed, ACTIVE_SECONDS)]
    denser = rng.choice((1.0, 0.25))  # close together, so that things meet
    steps = [replace(step, at=round(step.at * denser, 3)) for step in steps]
    return Plan(seed, configuration, tuple(sorted(steps, key=lambda step: step.at)))


def _erasures(seed: int) -> list[Step]:
    """Erasures of the person in some runs, drawn apart, so that the other steps of a seed stay as they are."""
    rng = random.Random(f"erasures {seed}")  # noqa: S311 - reproducible on purpose
    times = [rng.uniform(0.0, ACTIVE_SECONDS) for _ in range(rng.choice((0, 0, 1, 2)))]
    return [Step(at, "erase", {"unbind": rng.random() < _UNBOUND_FIRST}) for at in times]


def _step(rng: random.Random, at: float, kind: str, devices: int) -> Step:
    return Step(at, kind, STEPS[kind][1](rng, devices))


def _motif(rng: random.Random, devices: int) -> list[Step]:
    at, device, steps = rng.uniform(0.0, ACTIVE_SECONDS), rng.randrange(devices), []
    for kind in rng.choice(MOTIFS):
        if kind == "provision" and rng.random() < _UNHURRIED:  # when the device has done what came before
            at += 3.0
        step = _step(rng, at, kind, devices)
        fixed: dict[str, Any] = {"device": device} if "device" in step.facts else {}
        if kind == "provision":
            fixed |= {"supersede": rng.random() < 0.8, "lost": False}
        if kind == "power_cut" and rng.random() < _LATE:
            fixed |= {"before": "publish:ack:executed"}
        steps.append(replace(step, facts={**step.facts, **fixed}))
        at += rng.choice((0.0, 0.05, 0.5, 2.0, 5.0)) * rng.uniform(0.5, 1.5)
    return steps


def _configuration(rng: random.Random) -> Configuration:
    return Configuration(
        kinds=tuple(rng.choices(("mqtt", "http", "ble"), (8, 2, 1), k=rng.choice((1, 1, 2)))),
        embedded=rng.random() < 0.35,
        version_5=rng.random() < 0.7,
        wildcard_retained=rng.random() < 0.85,
        reorder=rng.choice((0.0, 0.0, 0.5)),
        duplicate=rng.choice((0.0, 0.0, 0.3)),
        latency=rng.choice((0.005, 0.02, 0.15)),
        slow=rng.choice((0.002, 0.02, 0.1)),
        watching=rng.random() < 0.15,
        mirrored=rng.random() < 0.15,
    )
