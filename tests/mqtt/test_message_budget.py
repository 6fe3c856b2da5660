"""The budget of messages per device, against a flood."""

from pathlib import Path

from gateway.mqtt.ingest import SAVED_ACKNOWLEDGEMENTS
from gateway.store import Context, Rules
from gateway.store.command_sql import CommandRecord
from tests.mqtt.devices import heartbeat_payload
from tests.mqtt.support import MqttTestbed, on_every_broker, open_testbed
from tests.support.clock import ManualClock
from tests.support.wait import eventually

FLOOD = 500
NOON = 1_794_312_000_000


@on_every_broker
async def test_a_flood_of_acknowledgements_delays_no_device_and_loses_none(kind: str, tmp_path: Path) -> None:
    """What is over the budget is refused unread, whatever type it names; a word that changes its command is taken."""
    rules = Rules(gateway_id="gw_test", device_messages_per_second=5)
    async with open_testbed(kind, tmp_path, context=Context(rules=rules, clock=ManualClock(NOON))) as testbed:
        await testbed.start()
        device, other = await testbed.bound(), await testbed.bound("SN-2")
        command = await testbed.command(device)
        flood = [acknowledgement(f"cmd_{number:026}", "executed") for number in range(FLOOD)]
        async with testbed.join(device) as client, testbed.join(other) as quiet:
            await client.say(device.topic("commands/reboot/ack"), *flood[: FLOOD // 2])
            await client.say(device.topic("commands/trigger_upload/ack"), *flood[FLOOD // 2 :])
            word = acknowledgement(command.id, "executed")
            await client.say(device.topic("commands/reboot/ack"), word, word)
            await quiet.say(other.topic("heartbeat"), heartbeat_payload(70))
            await eventually(lambda: _stored(testbed), "the other device is heard")
            await eventually(lambda: _final(testbed, command), "the genuine word was taken")
        refused = await testbed.rows("SELECT count(*) FROM refusals WHERE code = 'unknown_command'")
        assert refused[0][0] == SAVED_ACKNOWLEDGEMENTS, "each of these cost a transaction"


def acknowledgement(command_id: str, status: str) -> bytes:
    """A device's word on a command that needs no receipt."""
    return f'{{"command_id":"{command_id}","status":"{status}"}}'.encode()


async def _stored(testbed: MqttTestbed) -> bool:
    return await testbed.stored_batteries() == [70]


async def _final(testbed: MqttTestbed, command: CommandRecord) -> bool:
    return bool((await testbed.rows("SELECT status = 'executed' FROM commands WHERE id = ?", command.id))[0][0])
