"""Checks of the broker from outside: who can connect, what a made-up device reaches, what is retained."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gateway.broker.access_rules import PROBED
from gateway.broker.doctor_accounts import DEVICE, READER, ProbeAccounts
from gateway.core import topics
from gateway.core.received_json import parse_json
from gateway.doctor.findings import Area, Finding
from gateway.mqtt.probe import Probe, ProbeError, ProbeRefusedError, ProbeTarget, connected
from gateway.mqtt.publisher import payload
from gateway.store import View, command_sql, device_sql, outbox_sql
from gateway.store.command_sql import CommandRecord

BROKER, RETAINED = Area("broker"), Area("retained commands")
LOOKS: Final = 3
NAMED: Final = 50
"""How many differences are listed."""
_ACCESS_REMEDY: Final = "Let Mosquitto use the acl file of 'gateway broker init', and its own rules for nobody else."


class Owner(NamedTuple):
    """Who may say online at the broker: the registry's id, and the process that holds the broker's lease."""

    registry_id: str | None
    instance: str | None


@dataclass(frozen=True)
class Looking:
    """What the checks of a broker need."""

    target: ProbeTarget
    accounts: ProbeAccounts
    names: topics.Topics
    gateway_id: str
    owner: Owner
    reading: Callable[[], AbstractContextManager[View]]

    @property
    def marker(self) -> str:
        """Return the topic on which the doctor receives its own marker."""
        return self.names.under(f"devices/{PROBED}/marker")


async def strangers(target: ProbeTarget) -> AsyncIterator[Finding]:
    """Check that a client without a name, or with a wrong password, cannot connect."""
    for what, username, password in (
        ("anonymous", None, None),
        ("wrong password", DEVICE, secrets.token_urlsafe()),
    ):
        try:
            async with connected(target, username, password):
                yield BROKER.error(
                    what, "is let in", "Set 'allow_anonymous false' and the password file at the broker."
                )
        except ProbeRefusedError:
            yield BROKER.ok(what, "is refused")
        except ProbeError as error:
            yield BROKER.error(
                "reachable", f"{target.address} cannot be reached: {error}", "Start the broker; check address and TLS."
            )
            return


async def inside(looking: Looking) -> AsyncIterator[Finding]:
    """Check what a made-up device reaches, and what is retained. Nothing of the check stays."""
    try:
        async with connected(looking.target, READER, looking.accounts.reader) as reader:
            reads = looking.names.under
            await reader.subscribe(reads(f"devices/{PROBED}/#"), reads("gateways/#"), reads("devices/+/commands/+"))
            if not await _marked(looking, reader):
                yield BROKER.error("rights", "what the doctor publishes does not come back", _ACCESS_REMEDY)
                return
            by_name = not _told_status(looking, reader)
            if by_name:  # some brokers (RabbitMQ) send nothing retained to a wildcard
                await reader.subscribe(looking.names.gateway_status(looking.gateway_id))
            await _ask_by_name(looking, reader)
            yield _own_status(looking, reader)
            yield _others(looking, reader)
            async for finding in _made_up_device(looking, reader):
                yield finding
            yield await _compared(looking, reader, by_name=by_name)
    except ProbeRefusedError:
        yield BROKER.warning(
            "looked at from inside",
            "the broker does not let the doctor in: its accounts are not the gateway's to make",
            "For Mosquitto set mosquitto_password_file; for another broker see 'gateway docs other-brokers'.",
        )
    except ProbeError as error:
        yield BROKER.error("looked at from inside", str(error), "Look at the broker's log.")


async def _marked(looking: Looking, reader: Probe) -> bool:
    """Send a marker and wait for it. All that the broker had to send came before it.

    A broker that had more to send than it queues may drop the marker, too. So it is sent twice.
    """
    for _ in range(2):
        mark = secrets.token_hex(8).encode()
        await reader.publish(looking.marker, mark)
        if await reader.until(looking.marker, mark):
            return True
    return False


def _told_status(looking: Looking, reader: Probe) -> list[bytes]:
    topic = looking.names.gateway_status(looking.gateway_id)
    return [each.payload for each in reader.heard if each.topic == topic]


def _usurper(looking: Looking, status: bytes) -> str | None:
    """Return who says online under the id of this registry, though its owner does not, or None."""
    said: Any = None
    with suppress(ValueError):
        said = parse_json(status)
    if not isinstance(said, dict) or said.get("status") != "online":
        return None
    registry_id, instance = said.get("registry_id"), said.get("instance")
    if registry_id not in (None, looking.owner.registry_id):
        return f"the gateway of another registry ({registry_id})"
    if instance not in (None, looking.owner.instance):
        return "another process, on this registry or on a copy of it,"
    return None


async def _ask_by_name(looking: Looking, reader: Probe) -> None:
    """Subscribe to each open command that did not arrive, by the full name of its topic.

    No broker returns more to a wildcard than it queues for a client.
    """
    heard = {each.topic for each in reader.heard}
    with looking.reading() as view:
        for rows in _open_commands(view):
            topics = (looking.names.command(row.device_id, row.type) for row in rows)
            wanted = [topic for topic in topics if topic not in heard]
            if wanted:
                await reader.subscribe(*wanted)
    await _marked(looking, reader)


def _open_commands(view: View) -> Iterator[list[CommandRecord]]:
    """Return the open commands, NAMED at a time."""
    after = (0, "")
    while rows := command_sql.open_after(view, *after, NAMED):
        yield rows
        after = rows[-1].device_pk, rows[-1].type


def _own_status(looking: Looking, reader: Probe) -> Finding:
    topic = looking.names.gateway_status(looking.gateway_id)
    told = _told_status(looking, reader)
    if told and b'"online"' in told[-1] and _usurper(looking, told[-1]) is None:
        return BROKER.ok("gateway's rights", "its status is retained there, so it may publish")
    return BROKER.error(
        "gateway's rights",
        f"no 'online' is retained on {topic}",
        "Give the gateway's user the right to write on everything under the prefix, and see /ready.",
    )


def _others(looking: Looking, reader: Probe) -> Finding:
    """Check for the gateway of another registry under this prefix: two would clear each other's commands.

    All gateways of a registry have one id at the broker. Another registry has another id, unless it is a copy or both
    were given the same.
    """
    last: dict[str, bytes] = {}
    for each in reader.heard:
        place = looking.names.parse(each.topic)
        if isinstance(place, topics.GatewayStatusTopic):
            last[place.gateway_id] = each.payload
    usurper = _usurper(looking, last.pop(looking.gateway_id, b""))
    if usurper is not None:
        return BROKER.error(
            "other gateways",
            f"{usurper} says online as '{looking.gateway_id}', which is the id of this registry's gateways; of two, "
            "the one that started later does nothing here",
            "Stop one of them: a copy of a data directory must not run beside the original. Two registries need two "
            "ids (gateway_id), and a topic_prefix or a broker each. If a gateway has just taken over, look again.",
        )
    online = sorted(name for name, said in last.items() if b'"online"' in said)
    if not online:
        return BROKER.ok("other gateways", "none is online under this prefix")
    return BROKER.error(
        "other gateways",
        f"{', '.join(online)} says online under the same topic prefix; two would clear each other's commands",
        "Stop one of them, or give it a topic_prefix or a broker of its own. If it is gone for ever, clear its status: "
        f"publish an empty retained message on {looking.names.gateway_status(online[0])}.",
    )


async def _made_up_device(looking: Looking, reader: Probe) -> AsyncIterator[Finding]:
    under = looking.names.under
    forbidden = (
        under(f"devices/{PROBED}/heartbeat"),
        under(f"devices/{PROBED}/status"),
        under(f"devices/{PROBED}/commands/factory_reset"),
        under(f"devices/{PROBED}/state"),
        under(f"devices/{DEVICE}/commands/factory_reset"),
    )
    for topic in forbidden:
        await _try_to_publish(looking, topic)
    heard = await _try_to_hear(looking, reader)
    await _marked(looking, reader)
    reached = sorted({each.topic for each in reader.heard if each.topic in forbidden and each.payload == _BAIT})
    for topic in reached:
        with suppress(ProbeError):
            await _clear(looking, topic)
    if reached:
        yield BROKER.error(
            "made-up device: publish", "it reaches topics that are not its own", _ACCESS_REMEDY, *reached
        )
    else:
        yield BROKER.ok("made-up device: publish", f"none of {len(forbidden)} foreign topics is reached")
    if heard:
        yield BROKER.error("made-up device: read", "it is sent what is not its own", _ACCESS_REMEDY, *heard)
    else:
        yield BROKER.ok("made-up device: read", "#, $SYS/#, other devices: nothing comes")


_BAIT: Final = b'{"gateway doctor":"if you read this outside of a check, the broker lets anybody write here"}'


async def _try_to_publish(looking: Looking, topic: str) -> None:
    """Publish on a separate connection: some brokers close it for that."""
    with suppress(ProbeError):
        async with connected(looking.target, DEVICE, looking.accounts.device) as device:
            await device.publish(topic, _BAIT, retain=True)


async def _clear(looking: Looking, topic: str) -> None:
    async with connected(looking.target, DEVICE, looking.accounts.device) as device:
        await device.publish(topic, b"", retain=True)


async def _try_to_hear(looking: Looking, reader: Probe) -> list[str]:
    """Return the foreign topics that a device receives when it subscribes to everything; each filter alone."""
    under, heard = looking.names.under, set[str]()
    own = under(f"devices/{DEVICE}/errors")
    for wanted in (
        under("#"),
        "$SYS/#",
        under("devices/+/commands/+"),
        under(f"devices/{PROBED}/#"),
        f"$share/g/{under('#')}",
    ):
        with suppress(ProbeError):
            async with connected(looking.target, DEVICE, looking.accounts.device) as device:
                await device.subscribe(wanted)
                await device.subscribe(own)
                await _marked(looking, reader)
                last = secrets.token_hex(8).encode()
                await reader.publish(own, last)
                await device.until(own, last)  # whatever else was sent to it came before that
                heard |= {each.topic for each in device.heard} - {own}
    return sorted(heard)


async def _compared(looking: Looking, reader: Probe, *, by_name: bool) -> Finding:
    """Compare the retained commands with those that are open in the registry."""
    number, differing = 0, ["not looked at"]
    for _ in range(LOOKS):  # a change during the check is no difference
        await _marked(looking, reader)
        held = {each.topic: each.payload for each in reader.heard if _is_command(looking.names, each.topic)}
        number, differing = _differing(looking, {topic: content for topic, content in held.items() if content})
        if not differing:
            others = "what else is, no wildcard tells at this broker" if by_name else "and just these are retained"
            return RETAINED.ok("comparison", f"{number} open commands, {'all retained; ' * by_name}{others}")
    return RETAINED.error(
        "comparison",
        f"{len(differing)} differ from the {number} open commands",
        "'gateway doctor --fix' has the gateway put them right.",
        *differing[:NAMED],
    )


def _differing(looking: Looking, held: dict[str, bytes]) -> tuple[int, list[str]]:
    """Return how many commands are open, and the differences at the broker."""
    number, differing = 0, []
    with looking.reading() as view:
        for rows in _open_commands(view):
            differing += [said for row in rows if (said := _of_open(view, looking.names, row, held))]
            number += len(rows)
        left = [f"not open: {topic}" for topic in held if not _on_its_way(view, looking.names, topic)]
    return number, differing + left


def _of_open(view: View, names: topics.Topics, command: CommandRecord, held: dict[str, bytes]) -> str | None:
    """Return what is wrong with the retained message of this open command, and remove the message from ``held``."""
    topic = names.command(command.device_id, command.type)
    found = held.pop(topic, None)
    if outbox_sql.has(view, outbox_sql.COMMAND, command.device_pk, command.type) or found == payload(command):
        return None
    return f"{'missing' if found is None else 'differs'}: {topic} ({command.id})"


def _is_command(names: topics.Topics, topic: str) -> bool:
    return isinstance(names.parse(topic), topics.CommandTopic)


def _on_its_way(view: View, names: topics.Topics, topic: str) -> bool:
    place = names.parse(topic)
    device = device_sql.any_by_id(view, place.device_id) if isinstance(place, topics.CommandTopic) else None
    return (
        device is not None
        and isinstance(place, topics.CommandTopic)
        and outbox_sql.has(view, outbox_sql.COMMAND, device.pk, place.type)
    )
