"""Runs a plan from its first step to the rest after its last, and says which invariant it broke, if any."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

import structlog

from gateway.domain import brokers, erasures, job_creation
from gateway.workers import away_brokers
from tests.simulation.broker_faults import BrokerFaults
from tests.simulation.faults import FaultInjector
from tests.simulation.gateway_process import KilledError
from tests.simulation.home_operators import HomeOperators
from tests.simulation.integrator import Finding
from tests.simulation.invariants import InvariantChecker
from tests.simulation.model_state import Violation
from tests.simulation.plan import FAULT_KINDS, Plan
from tests.simulation.step import Step
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.world import World

START_SECONDS: Final = 1.0
"""All pauses of a run are virtual: exact, part of what the seed determines, and without real time."""
CLUSTER_START_SECONDS: Final = 3.0
"""One of several gateways has taken the lease of the broker, and has compared it."""
RECONNECT_SECONDS: Final = 6.0
REST_SECONDS: Final = 6.0
LONGEST_RUN_SECONDS: Final = 600.0
RECHECK_SECONDS: Final = 2.0
MAX_RECHECKS: Final = 20
"""The longest pauses of devices and gateway are over by then."""
_UNFORESEEN: Final = 0


@dataclass(frozen=True)
class Outcome:
    """How a run ended; ``story`` is what happened, line by line."""

    plan: Plan
    violation: Violation | None
    story: tuple[tuple[float, str, str, dict[str, Any]], ...]
    seconds: float


def run(plan: Plan) -> Outcome:
    """Run it: the same plan always ends in the same way."""
    random.seed(f"jitter {plan.seed}")  # the pauses of the gateway's own back-off
    loop, logging = VirtualLoop(), structlog.get_config()
    try:
        asyncio.set_event_loop(loop)
        with _short_limits(), _short_absences(plan.configuration.brokers):
            return loop.run_until_complete(_run(plan))
    finally:
        structlog.configure(**logging)  # other tests of this process read the log
        asyncio.set_event_loop(None)
        loop.close()


@contextmanager
def _short_limits() -> Iterator[None]:
    """Or one transaction would erase all heartbeats, or write all targets of a job; a run does not last a minute."""
    with (
        patch.object(erasures, "HEARTBEATS_AT_ONCE", 2),
        patch.object(job_creation, "PART", 5),
        patch.object(job_creation, "HELD_MS", 2_000),
    ):
        yield


@contextmanager
def _short_absences(several: int) -> Iterator[None]:
    """Or no run would last until a broker is left out, which is after ten minutes."""
    if several == 1:
        yield
        return
    with (
        patch.object(brokers, "AWAY_MS", 4_000),
        patch.object(brokers, "SEEN_MS", 3_500),
        patch.object(away_brokers, "INTERVAL_SECONDS", 0.5),
    ):
        yield


async def _run(plan: Plan) -> Outcome:
    world = World(plan)
    _catch_unforeseen_errors(world)
    script = asyncio.create_task(_script(world), name="script")
    ended = asyncio.create_task(world.ended.wait(), name="ended")
    await asyncio.wait((script, ended), timeout=LONGEST_RUN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    if not (script.done() or ended.done()):
        world.model.violate(
            _UNFORESEEN, "a run comes to its end", f"not within {LONGEST_RUN_SECONDS:g} virtual seconds"
        )
    if script.done() and not script.cancelled() and script.exception() is not None:
        raise script.exception() or AssertionError
    violations = world.model.violations
    outcome = Outcome(plan, violations[0] if violations else None, tuple(world.story), world.loop.time())
    await _end(world)
    return outcome


async def _end(world: World) -> None:
    """Cancel what is left, without looking at how it ends."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    for host in world.hosts:
        host.kill()
    for device in world.devices:
        device.switch_off()
    for _ in range(3):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        if not tasks:
            break
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=60.0)
    world.disk.close()


def _catch_unforeseen_errors(world: World) -> None:
    """An unforeseen error breaks every promise: what the gateway logs as a bug in itself, and lost tasks."""

    def lost(_: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, asyncio.CancelledError | KilledError):
            world.model.violate(_UNFORESEEN, "no error is unforeseen", f"{context['message']}: {error!r}")
            world.check()

    def log(_: Any, __: str, event: Any) -> Any:
        error = event.get("exc_info")
        if error:
            world.model.violate(_UNFORESEEN, "no error is unforeseen", f"{event['event']}: {error!r}")
            world.check()
        raise structlog.DropEvent

    world.loop.set_exception_handler(lost)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40), processors=[log])


async def _script(world: World) -> None:
    operators, faults, checker = HomeOperators(world), BrokerFaults(world), InvariantChecker(world)
    for host in world.hosts:
        host.start()
    await asyncio.sleep(START_SECONDS if world.cluster is None else CLUSTER_START_SECONDS)
    for device in world.devices:
        device.switch_on()
        await operators.register(device)
        await operators.do("provision", {"device": world.devices.index(device)})
    await asyncio.sleep(START_SECONDS)
    checking = asyncio.create_task(checker.watch(), name="invariants")
    await _steps(world, operators, faults)
    await checker.check_at_rest(await _recover(world, checker))
    checking.cancel()


async def _steps(world: World, operators: HomeOperators, faults: FaultInjector) -> None:
    """Each step is a separate task, so that one goes on while the next begins."""
    start, running = world.loop.time(), []
    for step in world.plan.steps:
        await asyncio.sleep(max(0.0, start + step.at - world.loop.time()))
        running.append(asyncio.create_task(_step(world, operators, faults, step), name=step.kind))
    if running:
        await asyncio.wait(running)
    for task in running:
        task.result()


async def _step(world: World, operators: HomeOperators, faults: FaultInjector, step: Step) -> None:
    await (faults if step.kind in FAULT_KINDS else operators).do(step.kind, step.facts)
    world.check()


async def _recover(world: World, checker: InvariantChecker) -> list[Finding]:
    """Nothing goes wrong any more; every device is switched off and on. What has not come to its end by then."""
    world.log("world", "from here on nothing goes wrong")
    for device in world.devices:
        device.power_cuts.clear()
        device.cut_after = None
        device.off_seconds = 0.2
    await asyncio.sleep(RECONNECT_SECONDS)
    for device in world.devices:
        device.switch_off()
        device.switch_on()
    world.log("world", "every device is switched off and on")
    await asyncio.sleep(REST_SECONDS)
    for _ in range(MAX_RECHECKS):
        if not checker.find_unfinished():
            return []
        await asyncio.sleep(RECHECK_SECONDS)
    return checker.find_unfinished()


gc.freeze()
