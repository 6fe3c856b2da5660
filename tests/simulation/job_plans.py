"""Steps of jobs: drawn apart for ordinary seeds, so that their other steps stay as they are, and three scenarios."""

from __future__ import annotations

import random
from typing import Any, Final

from tests.simulation.step import Step

JOB_KINDS: Final = ("create_job", "pause_job", "resume_job", "cancel_job", "bulk_reset", "repeat_bulk_reset")
"""Steps that need the worker of jobs."""
SHELVES: Final = (12, 60, 60)
"""Devices on a shelf in the scenario: more than the 50 that may have their turn at once."""
_SOMETIMES: Final = 0.3
_OFTEN: Final = 0.6
_SEAMS: Final = ("write", "write", "commit", "commit", "committed", "committed", "read", "any")


def job_steps(seed: int, seconds: float) -> list[Step]:
    """Return one or two jobs for the devices of some runs, with what operators do to them meanwhile."""
    rng = random.Random(f"jobs {seed}")  # noqa: S311 - reproducible on purpose
    steps: list[Step] = []
    for _ in range(rng.choice((0, 0, 1, 2))):
        at = rng.uniform(0.0, seconds)
        steps += [Step(at, "create_job", _job(rng, "devices")), *_changes(rng, at)]
    return steps


def job_on_a_shelf(rng: random.Random) -> tuple[Step, ...]:
    """Make a job for many devices that are switched off, and stop the gateway in the middle, again and again.

    Their commands expire, so such a job fails at each device and aborts.
    """
    facts = _job(rng, rng.choice(("shelf", "shelf", "all")))
    steps = [Step(1.0, "create_job", facts), *_changes(rng, 1.0)]
    at = 1.0
    for _ in range(rng.randint(0, 3)):
        at += rng.uniform(0.1, 4.0)
        steps.append(rng.choice((_kill, _kill, _stop, _disk_full))(rng, at))
    if rng.random() < _SOMETIMES:
        steps.append(Step(1.5, "provision", {"device": 0, "supersede": True, "lost": False}))
    return tuple(sorted(steps, key=lambda step: step.at))


def job_cancelled_while_backlogged(rng: random.Random) -> tuple[Step, ...]:
    """A device takes the reset of a job while the gateway receives nothing, and the job is cancelled meanwhile."""
    stalled_at = 2.0 + rng.uniform(0.0, 0.5)
    back = stalled_at + rng.uniform(0.5, 1.0)
    plain = {"unknown": False, "ttl": 300, "per_minute": 600, "ramp": None, "abort": None, "start_in": None, "tries": 1}
    job = {"targets": "devices", "type": "factory_reset", **plain}
    return (
        Step(0.5, "unplug", {"device": 0, "off": back - 0.5}),
        Step(1.0 + rng.uniform(0.0, 0.5), "create_job", job),
        Step(stalled_at, "stall", {"who": "gateway", "seconds": 12.0}),
        Step(back + rng.uniform(2.0, 5.0), "cancel_job"),
    )


def bulk_reset_broken_off(rng: random.Random) -> tuple[Step, ...]:
    """A kill between the transactions of a bulk reset, and new bindings before its client repeats it."""
    kill = {"seam": rng.choice(("write", "commit", "committed")), "passes": rng.randint(1, 4), "down": 0.1}
    bulk = {"devices": [0, 1], "tries": 4, "pause": rng.choice((0.4, 4.0, 6.0))}
    steps = [Step(1.0, "kill", kill), Step(1.01, "repeat_bulk_reset", bulk)]
    for device in rng.sample((0, 1), rng.randint(1, 2)):
        binding = {"device": device, "supersede": True, "lost": False}
        steps += [Step(at := rng.uniform(1.3, 3.5), "unbind", {"device": device}), Step(at + 0.2, "provision", binding)]
    return tuple(sorted(steps, key=lambda step: step.at))


def _kill(rng: random.Random, at: float) -> Step:
    facts = {"seam": rng.choice(_SEAMS), "passes": rng.randint(1, 12), "down": rng.choice((0.1, 2.0, 6.0))}
    return Step(at, "kill", facts)


def _stop(rng: random.Random, at: float) -> Step:
    return Step(at, "stop", {"down": rng.choice((0.5, 5.0))})


def _disk_full(rng: random.Random, at: float) -> Step:
    return Step(at, "disk_full", {"seconds": rng.choice((0.5, 3.0))})


def _job(rng: random.Random, targets: str) -> dict[str, Any]:
    is_reset = rng.random() < (_SOMETIMES if targets == "shelf" else _OFTEN)
    return {
        "targets": rng.choice((targets, "all")) if targets == "devices" else targets,
        "unknown": rng.random() < _SOMETIMES,
        "type": "factory_reset" if is_reset else rng.choice(("reboot", "trigger_upload")),
        "ttl": rng.choice((1, 1, 300)),
        "per_minute": rng.choice((240, 600, 60_000)),
        "ramp": rng.choice((None, None, (60, 1), (120, 2))),
        "abort": rng.choice((None, (1, 1), (10, 5), (50, 20))),
        "start_in": rng.choice((None, None, 1.5)),
        "tries": rng.choice((1, 1, 3)),
    }


def _changes(rng: random.Random, at: float) -> list[Step]:
    steps = []
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        at += rng.choice((0.05, 0.3, 1.0, 3.0)) * rng.uniform(0.5, 1.5)
        steps.append(Step(at, rng.choice(("pause_job", "resume_job", "cancel_job")), {}))
    return steps
