"""Rules, statuses and waits of the presence tests."""

from tests.mqtt.devices import Device
from tests.mqtt.support import MqttTestbed
from tests.support import wire
from tests.support.clock import ShiftedClock
from tests.support.wait import eventually

GRACE_MS = 10_000
SILENCE_MS = 180_000
RULES = {"offline_grace_ms": GRACE_MS, "silence_ms": SILENCE_MS}


def will(device: Device) -> wire.Will:
    """The last will that firmware leaves."""
    return wire.Will(device.topic("status"), b'{"status":"offline"}', retain=True)


def advance_clock(testbed: MqttTestbed, milliseconds: int) -> None:
    """Time passes."""
    clock = testbed.store.context.clock
    assert isinstance(clock, ShiftedClock)
    clock.ahead_ms += milliseconds


async def shown_presence(testbed: MqttTestbed, device: Device) -> str:
    """Return `online`, `offline` or `unknown`."""
    rows = await testbed.rows("SELECT connection FROM health WHERE device_pk = ?", device.pk)
    return str(rows[0][0]) if rows else "unknown"


async def wait_online(testbed: MqttTestbed, device: Device) -> None:
    """Wait until the device is online."""

    async def is_online() -> bool:
        return await shown_presence(testbed, device) == "online"

    await eventually(is_online, "the device was online")


async def wait_offline_due(testbed: MqttTestbed, device: Device) -> None:
    """Wait until the device's offline message has been processed."""

    async def is_due() -> bool:
        due = await testbed.rows("SELECT offline_due_at FROM health WHERE device_pk = ?", device.pk)
        return any(row[0] <= testbed.store.context.clock() + GRACE_MS for row in due)

    await eventually(is_due, "the good-bye was heard")
