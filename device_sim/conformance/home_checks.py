"""Scenario of homes: the answer to a token refresh names another broker, or an invalid address."""

from collections.abc import Mapping
from typing import Any

from device_sim.conformance.broker import Link
from device_sim.conformance.findings import DeviationError
from device_sim.conformance.kit import REFUSED, Kit
from device_sim.conformance.link_checks import HEARTBEATS, refresh_request
from device_sim.conformance.packets import CONNACK_ACCEPTED
from device_sim.conformance.scenario import Scenario

NOWHERE = 0
"""A port that no broker has: none knows the device."""
WRONG_ADDRESSES: Mapping[str, Mapping[str, Any]] = {
    "no host": {"host": None},
    "an empty host": {"host": ""},
    "a host with a line break": {"host": "broker.example\r\n"},
    "a host of 300 characters": {"host": "b" * 300},
    "port 0": {"port": 0},
    "port 65536": {"port": 65536},
}
"""What is wrong with each answer. A device that stores one of them never finds a broker again."""


async def home(kit: Kit) -> None:
    """Move the device to the second broker, after answers that name none, and back to the first; then it loses both."""
    await _steady(kit, await kit.online())
    first, second = kit.broker.ports
    await _move(kit, second, WRONG_ADDRESSES)
    await _move(kit, first, {})
    await _lost_again(kit, second)


async def _move(kit: Kit, port: int, wrong: Mapping[str, Mapping[str, Any]]) -> None:
    """Let the broker at this port alone know the device. Answer its refreshes by wrong addresses, then by this one."""
    since = kit.log.now
    kit.broker.home = port
    kit.http.refreshes.extend({**kit.address(), **each} for each in wrong.values())
    kit.cut_link()
    await refresh_request(kit, since, 0)
    for number, name in enumerate(wrong, 1):
        try:
            await refresh_request(kit, since, number)
        except DeviationError as error:
            raise DeviationError(f"an answer with {name}: {error}") from error
        kit.findings.passed("C16", f"asked again after an answer with {name}")
    link = await _arrived(kit)
    kit.findings.passed("C16", "connected to the broker that the answer to a refresh named")
    await _steady(kit, link)


async def _lost_again(kit: Kit, port: int) -> None:
    """Name the broker at this port, which does not know the device any more when it connects: it was moved again."""
    since = kit.log.now
    kit.broker.home = NOWHERE
    kit.http.refreshes.append({**kit.address(), "port": port})
    kit.cut_link()
    await refresh_request(kit, since, 0)
    try:
        await refresh_request(kit, since, 1)
    except DeviationError as error:
        raise DeviationError(f"after the broker that an answer had named refused it: {error}") from error
    kit.broker.home = None
    await _steady(kit, await _arrived(kit))
    kit.findings.passed("C16", "asked again after the broker that an answer had named refused it, too")


async def _steady(kit: Kit, link: Link) -> None:
    """Wait until a link has lived so long that many devices begin with short pauses after it."""
    await kit.heartbeats(link.number, HEARTBEATS)


async def _arrived(kit: Kit) -> Link:
    """Return the connection to the broker that alone knows the device, once the device is online there."""
    since = kit.log.now

    def arrived() -> Link | None:
        refused = sum(each.data != CONNACK_ACCEPTED for each in kit.log.of("connack", since=since))
        if refused >= REFUSED:
            raise DeviationError(f"its former broker refused it {refused} times after the answer had named another one")
        link = kit.broker.link
        return link if link is not None and link.is_online else None

    return await kit.log.until(arrived, "connect to the broker that the answer named", within=kit.patience)


HOME_SCENARIOS = (Scenario("another broker", ("C16",), home),)
