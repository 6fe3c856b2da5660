"""Runner: binds the device, runs the scenarios one after the other, and collects the findings."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TypeAlias

from device_sim.conformance.command_checks import COMMAND_SCENARIOS, RECONNECT_SCENARIOS
from device_sim.conformance.findings import DeviationError, UncheckedError
from device_sim.conformance.home_checks import HOME_SCENARIOS
from device_sim.conformance.http_server import HttpServer
from device_sim.conformance.kit import Kit
from device_sim.conformance.link_checks import LINK_SCENARIOS, POWER_SCENARIOS
from device_sim.conformance.passive_checks import judge
from device_sim.conformance.reset_checks import RESET_SCENARIOS
from device_sim.conformance.scenario import Scenario

SCENARIOS = (
    *COMMAND_SCENARIOS,
    *LINK_SCENARIOS,
    *HOME_SCENARIOS,
    *RECONNECT_SCENARIOS,
    *POWER_SCENARIOS,
    *RESET_SCENARIOS,
)
"""In this order: back-off is measured before other scenarios cut links, and what wipes comes last."""

Progress = Callable[[int, int, str], None]
Address: TypeAlias = tuple[str, int]


@contextlib.asynccontextmanager
async def serving(kit: Kit, mqtt: Sequence[Address], http: Address) -> AsyncIterator[HttpServer]:
    """Listen for the device at these addresses, two of them for MQTT; port 0 takes a free one.

    Raises:
        OSError: an address is in use, or is not one of this machine.
    """
    server = HttpServer(kit.http.handle, kit.tls.plain_context if kit.tls else None)
    try:
        for address in mqtt:
            await kit.broker.start(*address)
        await server.start(*http)
        yield server
    finally:
        await server.stop()
        await kit.broker.stop()


async def run(kit: Kit, on_progress: Progress = lambda _number, _count, _name: None) -> None:
    """Run all scenarios of the wanted lines against the device. A cancellation leaves the rest not checked."""
    try:
        await _run(kit, on_progress)
    except asyncio.CancelledError:
        kit.findings.interrupted = True
        raise
    finally:
        judge(kit)


async def _run(kit: Kit, on_progress: Progress) -> None:
    wanted = _wanted(kit)
    on_progress(0, len(wanted), "wait for the device")
    try:
        await kit.bind(first=True)
    except DeviationError as error:
        kit.findings.failed("C2", str(error))
        _leave(kit, kit.findings.of_line, "the device did not come online")
        return
    for number, scenario in enumerate(wanted, 1):
        on_progress(number, len(wanted), scenario.name)
        await _one(kit, scenario)


def _wanted(kit: Kit) -> list[Scenario]:
    """Return the scenarios of the wanted lines, and those that they need, in order."""
    wanted = [each for each in SCENARIOS if set(each.lines) & set(kit.findings.of_line)]
    needed = {each.needs for each in wanted}
    return [each for each in SCENARIOS if each in wanted or each.name in needed]


async def _one(kit: Kit, scenario: Scenario) -> None:
    kit.restore_defaults()
    kit.line = scenario.lines[0]
    try:
        if scenario.begins_online:
            await kit.ready()
    except (DeviationError, UncheckedError) as error:
        _leave(kit, scenario.lines, f"the device was not online before it: {error}")
        return
    try:
        await scenario.run(kit)
    except UncheckedError as error:
        kit.findings.unchecked(kit.line, str(error))
        _leave(kit, scenario.lines, str(error))
    except DeviationError as error:
        kit.findings.failed(kit.line, str(error))
        _leave(kit, scenario.lines, f"the step of {kit.line} before it failed")
        await _settle(kit)


async def _settle(kit: Kit) -> None:
    """Begin another connection after a failure, with which whatever is under way ends."""
    kit.restore_defaults()
    if kit.wiped or kit.is_lost:
        return
    with contextlib.suppress(DeviationError):
        await kit.online()
        kit.cut_link()


def _leave(kit: Kit, lines: Iterable[str], why: str) -> None:
    for line in lines:
        if not kit.findings.has(line):
            kit.findings.unchecked(line, why)
