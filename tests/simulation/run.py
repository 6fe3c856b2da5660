"""Runs a plan from its first step to the rest after its last, and says which invariant it broke, if any."""

from __future__ import annotations

import asyncio
import gc
import random
from dataclasses import dataclass
from typing import Any, Final

import structlog

from tests.simulation.faults import Trouble
from tests.simulation.gateway_process import KilledError
from tests.simulation.integrator import Broken
from tests.simulation.invariants import Judge
from tests.simulation.model_state import Violation
from tests.simulation.operators import People
from tests.simulation.plan import FAULTS, Plan
from tests.simulation.step import Step
from tests.simulation.virtual_loop import VirtualLoop
from tests.simulation.world import World

RECONNECT_SECONDS: Final = 6.0
REST_SECONDS: Final = 6.0
LONGEST_RUN_SECONDS: Final = 600.0
LOOK_AGAIN_SECONDS: Final = 2.0
LONGEST_REST_LOOKS: Final = 20
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
        return loop.run_until_complete(_run(plan))
    finally:
        structlog.configure(**logging)  # other tests of this process read the log
        asyncio.set_event_loop(None)
        loop.close()


async def _run(plan: Plan) -> Outcome:
    world = World(plan)
    _listen(world)
    script = asyncio.create_task(_script(world), name="script")
    over = asyncio.create_task(world.over.wait(), name="over")
    await asyncio.wait((script, over), timeout=LONGEST_RUN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    if not (script.done() or over.done()):
        world.ghost.violate(
            _UNFORESEEN, "a run comes to its end", f"not within {LONGEST_RUN_SECONDS:g} virtual seconds"
        )
    if script.done() and not script.cancelled() and script.exception() is not None:
        raise script.exception() or AssertionError
    violations = world.ghost.violations
    outcome = Outcome(plan, violations[0] if violations else None, tuple(world.story), world.loop.time())
    await _end(world)
    return outcome


async def _end(world: World) -> None:
    """Cancel what is left, without looking at how it ends."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    world.host.kill()
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


def _listen(world: World) -> None:
    """An unforeseen error breaks every promise: what the gateway logs as a bug in itself, and lost tasks."""

    def lost(_: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, asyncio.CancelledError | KilledError):
            world.ghost.violate(_UNFORESEEN, "no error is unforeseen", f"{context['message']}: {error!r}")
            world.check()

    def log(_: Any, __: str, event: Any) -> Any:
        error = event.get("exc_info")
        if error:
            world.ghost.violate(_UNFORESEEN, "no error is unforeseen", f"{event['event']}: {error!r}")
            world.check()
        raise structlog.DropEvent

    world.loop.set_exception_handler(lost)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40), processors=[log])


async def _script(world: World) -> None:
    people, trouble, judge = People(world), Trouble(world), Judge(world)
    world.host.start()
    await asyncio.sleep(1.0)
    for device in world.devices:
        device.switch_on()
        await people.register(device)
        await people.do("provision", {"device": world.devices.index(device)})
    await asyncio.sleep(1.0)
    watching = asyncio.create_task(judge.watch(), name="judge")
    await _steps(world, people, trouble)
    await judge.rest(await _mend(world, judge))
    watching.cancel()


async def _steps(world: World, people: People, trouble: Trouble) -> None:
    """Each step is a separate task, so that one goes on while the next begins."""
    start, running = world.loop.time(), []
    for step in world.plan.steps:
        await asyncio.sleep(max(0.0, start + step.at - world.loop.time()))
        running.append(asyncio.create_task(_step(world, people, trouble, step), name=step.kind))
    if running:
        await asyncio.wait(running)
    for task in running:
        task.result()


async def _step(world: World, people: People, trouble: Trouble, step: Step) -> None:
    await (trouble if step.kind in FAULTS else people).do(step.kind, step.facts)
    world.check()


async def _mend(world: World, judge: Judge) -> list[Broken]:
    """Nothing goes wrong any more; every device is switched off and on. What has not come to its end by then."""
    world.tell("world", "from here on nothing goes wrong")
    for device in world.devices:
        device.cuts.clear()
        device.cut_after = None
        device.off_seconds = 0.2
    await asyncio.sleep(RECONNECT_SECONDS)
    for device in world.devices:
        device.switch_off()
        device.switch_on()
    world.tell("world", "every device is switched off and on")
    await asyncio.sleep(REST_SECONDS)
    for _ in range(LONGEST_REST_LOOKS):
        if not judge.unfinished():
            return []
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    return judge.unfinished()


gc.freeze()
