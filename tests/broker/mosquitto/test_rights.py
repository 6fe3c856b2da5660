"""Who may publish and read what on a real Mosquitto started from `broker_config` (contract, section 3).

A SUBACK or PUBACK proves nothing here: Mosquitto 2.0 grants every subscription and acknowledges every publish. So each
test looks at what arrives, up to an end marker that is sent the same way as the messages that must not arrive.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.mosquitto import Mosquitto
from tests.support.wire import NOT_AUTHORISED, Will, Wire

A = "dev_A"
B = "dev_B"
USERS = {A: "token-of-A", B: "token-of-B"}


@pytest.fixture(params=["", "plant/7/"], ids=["no-prefix", "prefix"])
async def broker(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Mosquitto]:
    """A broker with two devices, once without and once with a topic prefix."""
    async with Mosquitto(tmp_path, users=USERS, prefix=request.param) as started:
        yield started


async def arrivals_at_gateway(broker: Mosquitto, gateway: Wire) -> list[tuple[str, bytes]]:
    """What the gateway (subscribed to everything) received until device B's end marker; topics without the prefix."""
    last = f"{broker.prefix}devices/{B}/heartbeat"
    async with broker.client(B) as other:
        await other.publish(last, b"")
    return [(one.topic.removeprefix(broker.prefix), one.payload) for one in await gateway.read_until(last)]


TYPES = ["factory_reset", "start_recording", "stop_recording", "trigger_upload", "reboot", "set_grant_key"]
OWN = [f"devices/{A}/heartbeat", f"devices/{A}/status", *(f"devices/{A}/commands/{each}/ack" for each in TYPES)]

FOREIGN = [
    f"devices/{B}/heartbeat",
    f"devices/{B}/status",
    f"devices/{B}/commands/reboot/ack",
    f"devices/{B}/commands/factory_reset",
    f"devices/{A}/commands/factory_reset",
    f"devices/{A}/commands",
    f"devices/{A}/commands/a/b/ack",
    f"devices/{A}/commands/made_up/ack",
    f"devices/{A}/errors",
    f"devices/{A}/state",
    f"devices/{A}/events/device.bound",
    f"devices/{A}/heartbeat/more",
    f"devices/{A}",
    "devices//heartbeat",
    "gateways/gw_1/status",
    "anything",
]


async def test_device_publishes_its_own_topics(broker: Mosquitto) -> None:
    """Heartbeat, status and acknowledgements of each type reach the gateway."""
    async with broker.client("gateway") as gateway, broker.client(A) as device:
        await gateway.subscribe(f"{broker.prefix}#")
        for topic in OWN:
            await device.publish(broker.prefix + topic, b"mine")
        assert await arrivals_at_gateway(broker, gateway) == [(topic, b"mine") for topic in OWN]


async def test_device_publishes_nothing_else(broker: Mosquitto) -> None:
    """Whatever else it publishes is dropped, retained or not; the next message on the same connection still passes."""
    topics = [broker.prefix + topic for topic in FOREIGN]
    topics += ["$SYS/broker/uptime", "$CONTROL/dynamic-security/v1", f"$share/g/{broker.prefix}devices/{B}/heartbeat"]
    topics += [f"other/devices/{A}/heartbeat"]
    async with broker.client("gateway") as gateway, broker.client(A) as device:
        await gateway.subscribe("#", "$SYS/broker/uptime", f"{broker.prefix}#")
        for topic in topics:
            await device.publish(topic, b"foreign")
            await device.publish(topic, b"foreign and kept", retain=True)
        await device.publish(broker.prefix + OWN[0], b"mine")
        assert await arrivals_at_gateway(broker, gateway) == [(OWN[0], b"mine")]
    async with broker.client("gateway") as late:
        await late.subscribe(f"{broker.prefix}#")
        assert await arrivals_at_gateway(broker, late) == []


async def test_retained_command_cannot_be_cleared_by_its_device(broker: Mosquitto) -> None:
    """An empty retained publish of the device on its own command topic leaves the command where it is."""
    topic = f"{broker.prefix}devices/{A}/commands/factory_reset"
    async with broker.client("gateway") as gateway, broker.client(A) as device:
        await gateway.publish(topic, b"wipe", retain=True)
        await device.publish(topic, b"", retain=True)
        await device.subscribe(topic)
        message = await device.read_publish()
        assert (message.payload, message.retain, message.qos) == (b"wipe", True, 1)


SPYING = [
    "#",
    "+/#",
    "devices/#",
    "devices/+/commands/+",
    "devices/+/commands/#",
    "devices/+/errors",
    f"devices/{B}/commands/factory_reset",
    f"devices/{B}/#",
    f"devices/{A}/state",
    f"devices/{A}/events/#",
    f"devices/{A}/#",
    "gateways/#",
]


async def test_device_reads_its_own_commands_and_errors_only(broker: Mosquitto) -> None:
    """Under whatever filter, wildcards, `$share` and `$SYS` included, only its own commands and errors arrive."""
    own = [f"{broker.prefix}devices/{A}/{rest}" for rest in ("commands/factory_reset", "commands/reboot", "errors")]
    foreign = [f"{broker.prefix}devices/{B}/{rest}" for rest in ("commands/factory_reset", "errors", "state", "status")]
    foreign += [f"{broker.prefix}devices/{A}/{rest}" for rest in ("state", "events/device.bound", "commands/x/ack")]
    foreign += [f"{broker.prefix}gateways/gw_1/status", f"{broker.prefix}anything"]
    filters = ["#", "$SYS/#", "$CONTROL/#", *(broker.prefix + spying for spying in SPYING)]
    async with broker.client("gateway") as gateway, broker.client(A) as device:
        for topic in (*foreign, *own):
            await gateway.publish(topic, b"retained", retain=True)
        await device.subscribe(*filters, *(f"$share/g/{one}" for one in filters))
        for topic in (*foreign, *own):
            await gateway.publish(topic, b"live")
        await gateway.publish(f"{broker.prefix}devices/{A}/errors", b"last")
        got: set[tuple[str, bytes]] = set()
        while (message := await device.read_publish()).payload != b"last":
            got.add((message.topic, message.payload))
            await device.acknowledge(message)
    assert got == {(topic, payload) for topic in own for payload in (b"retained", b"live")}


async def test_device_gets_its_command_by_name_and_by_wildcard(broker: Mosquitto) -> None:
    """A retained command reaches the full name of its topic, and `commands/+` below the device's own id."""
    commands = f"{broker.prefix}devices/{A}/commands/"
    async with broker.client("gateway") as gateway:
        await gateway.publish(f"{commands}factory_reset", b"wipe", retain=True)
    for topic_filter in ("factory_reset", "+"):
        async with broker.client(A) as device:
            await device.subscribe(commands + topic_filter)
            assert (await device.read_publish()).payload == b"wipe"


async def test_integrator_reads_the_fleet_and_nothing_more(broker: Mosquitto) -> None:
    """State, events and gateway status of all; no heartbeat, status, command or acknowledgement of any."""
    read = [f"devices/{A}/state", f"devices/{B}/events/device.bound", "gateways/gw_1/status"]
    hidden = [
        f"devices/{A}/{rest}" for rest in ("heartbeat", "status", "commands/reboot", "commands/reboot/ack", "errors")
    ]
    last = f"{broker.prefix}devices/{B}/state"
    async with broker.client("gateway") as gateway, broker.client("integrator") as integrator:
        await integrator.subscribe(f"{broker.prefix}#", "$SYS/#")
        for topic in (*hidden, *read):
            await gateway.publish(broker.prefix + topic, b"", retain=False)
        await gateway.publish(last, b"")
        assert [one.topic.removeprefix(broker.prefix) for one in await integrator.read_until(last)] == read


async def test_integrator_writes_nothing(broker: Mosquitto) -> None:
    """Not even what the rules for devices would give a device of that name."""
    topics = [*OWN, *FOREIGN, "devices/integrator/heartbeat", "devices/integrator/status", f"devices/{A}/state"]
    will = Will(f"{broker.prefix}devices/integrator/status", b"dead", retain=True)
    async with broker.client("gateway") as gateway:
        await gateway.subscribe(f"{broker.prefix}#")
        async with broker.client("integrator", will=will) as integrator:
            for topic in topics:
                await integrator.publish(broker.prefix + topic, b"", retain=True)
        assert await arrivals_at_gateway(broker, gateway) == []


async def test_gateway_does_everything_under_its_prefix(broker: Mosquitto) -> None:
    """It writes and reads each topic of the contract, and its will is sent."""
    topics = [*OWN, *FOREIGN[3:5], f"devices/{A}/errors", f"devices/{A}/state", f"devices/{A}/events/device.bound"]
    async with broker.client("gateway") as gateway:
        await gateway.subscribe(f"{broker.prefix}#")
        for topic in topics:
            await gateway.publish(broker.prefix + topic, b"")
        assert [topic for topic, _ in await arrivals_at_gateway(broker, gateway)] == topics
    status = f"{broker.prefix}gateways/gw_1/status"
    async with broker.client("integrator") as integrator:
        await integrator.subscribe(status)
        async with broker.client("gateway", will=Will(status, b"offline", retain=True)):
            pass
        assert (await integrator.read_publish()).payload == b"offline"


async def test_gateway_stays_below_a_prefix(tmp_path: Path) -> None:
    """With a prefix, the gateway ignores the topics outside of it on a shared broker."""
    async with Mosquitto(tmp_path, prefix="plant/7/") as broker, broker.client("gateway") as gateway:
        await gateway.subscribe("#")
        await gateway.publish("plant/8/devices/dev_A/commands/reboot", b"")
        await gateway.publish("plant/7/end", b"")
        assert await gateway.read_until("plant/7/end") == []


@pytest.mark.parametrize("retain", [False, True])
async def test_will_on_a_foreign_topic_is_never_sent(broker: Mosquitto, *, retain: bool) -> None:
    """A device cannot plant a command by dying; its will on its own status is sent."""
    foreign = Will(f"{broker.prefix}devices/{B}/commands/factory_reset", b"wipe", retain=retain)
    own = Will(f"{broker.prefix}devices/{A}/status", b"offline", retain=retain)
    async with broker.client("gateway") as gateway:
        await gateway.subscribe(f"{broker.prefix}#")
        for will in (foreign, own):
            async with Wire.open(broker.host, broker.port) as device:
                await device.connect(A, A, USERS[A], will=will)
        assert (await gateway.read_publish()).payload == b"offline"
        assert await arrivals_at_gateway(broker, gateway) == []
    async with broker.client(B) as victim:
        await victim.subscribe(f"{broker.prefix}devices/{B}/commands/factory_reset")
        await victim.ping()
        assert not victim.inbox


async def test_a_foreign_client_id_takes_over_no_session(broker: Mosquitto) -> None:
    """The client id is the user name whatever the CONNECT says: B under A's id is B, and A keeps its session."""
    topic = f"{broker.prefix}devices/{A}/commands/reboot"
    async with broker.client(A, clean=False) as victim, broker.client("gateway") as gateway:
        await victim.subscribe(topic)
        async with Wire.open(broker.host, broker.port) as thief:
            await thief.connect(A, B, USERS[B], clean=False)
            assert not thief.session_present
            await gateway.publish(topic, b"for A")
            await thief.ping()
            assert not thief.inbox
        assert (await victim.read_publish()).payload == b"for A"


async def test_wrong_credentials_are_refused_and_disturb_no_session(broker: Mosquitto) -> None:
    """No name, no password, a wrong one, another device's: refused; the device whose name was used stays connected."""
    async with broker.client(A) as device:
        for username, password in ((None, None), (A, None), (A, "wrong"), (A, USERS[B]), (A, ""), ("dev_C", "x")):
            assert await broker.connect_answer(A, username, password) == NOT_AUTHORISED
        await device.ping()
