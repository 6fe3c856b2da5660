"""The budget of messages per device: saved up, used up, and remembered for a bounded number of topics."""

from pathlib import Path

from gateway.mqtt.ingest import SAVED_ACKNOWLEDGEMENTS
from gateway.mqtt.message_budget import SAVED_MESSAGES, SAVED_SECONDS, MessageBudget
from gateway.store import Context, Row, Rules
from tests.mqtt.support import Site, beat, on_every_broker, site
from tests.support.wait import eventually

FLOOD = 500
NOON = 1_794_312_000_000
ONE, OTHER = "devices/dev_A/heartbeat", "devices/dev_B/heartbeat"


class Clock:
    """A clock that the test moves."""

    now = NOON

    def __call__(self) -> int:
        """Milliseconds since the epoch."""
        return self.now


def admitted(budget: MessageBudget, topic: str, tries: int) -> int:
    """How many of so many messages at once are taken."""
    return sum(budget.admits(topic) for _ in range(tries))


def test_a_backlog_is_taken_and_a_flood_is_not() -> None:
    """What was saved up is there at once, then so many a second; the others have their own."""
    clock = Clock()
    budget = MessageBudget(5, clock)
    assert admitted(budget, ONE, 2_000) == 5 * SAVED_SECONDS
    assert admitted(budget, OTHER, 10) == 10
    clock.now += 1_000
    assert admitted(budget, ONE, 2_000) == 5
    clock.now += 3_600_000
    assert admitted(budget, ONE, 2_000) == 5 * SAVED_SECONDS


def test_a_device_that_was_away_for_a_week_may_catch_up() -> None:
    """By default: all that it kept, one a minute, at once; a flood goes on at one a second."""
    clock = Clock()
    budget = MessageBudget(Rules().device_messages_per_second, clock, saved=SAVED_MESSAGES)
    assert admitted(budget, ONE, 7 * 24 * 60 - 80) == 7 * 24 * 60 - 80
    assert admitted(budget, ONE, 2_000) == SAVED_MESSAGES - (7 * 24 * 60 - 80)
    clock.now += 60_000
    assert admitted(budget, ONE, 2_000) == 60


def test_a_clock_that_is_set_back_costs_nothing() -> None:
    """Nothing is won by it and nothing lost."""
    clock = Clock()
    budget = MessageBudget(5, clock)
    admitted(budget, ONE, 5 * SAVED_SECONDS - 3)
    clock.now -= 3_600_000
    assert admitted(budget, ONE, 10) == 3
    clock.now += 1_000
    assert admitted(budget, ONE, 10) == 5


def test_no_limit() -> None:
    """0 takes everything and remembers nobody."""
    assert admitted(MessageBudget(0, Clock()), ONE, 100_000) == 100_000


def test_memory_is_bounded() -> None:
    """Of too many topics those are forgotten that have most of their budget left, never the one that used it up."""
    budget = MessageBudget(1, Clock(), remembered=2)
    assert admitted(budget, ONE, 300) == SAVED_SECONDS
    assert admitted(budget, OTHER, 1) == 1
    assert admitted(budget, "devices/dev_C/heartbeat", 1) == 1
    assert admitted(budget, OTHER, 300) == SAVED_SECONDS
    assert admitted(budget, ONE, 1) == 0


@on_every_broker
async def test_a_flood_of_acknowledgements_holds_nobody_up_and_loses_no_word(kind: str, tmp_path: Path) -> None:
    """What is over the budget is refused unread, whatever type it names; a word that changes its command is taken."""
    rules = Rules(gateway_id="gw_test", device_messages_per_second=5)
    async with site(kind, tmp_path, context=Context(rules=rules, clock=Clock())) as place:
        await place.start()
        device, other = await place.bound(), await place.bound("SN-2")
        command = await place.command(device)
        flood = [acknowledgement(f"cmd_{number:026}", "executed") for number in range(FLOOD)]
        async with place.join(device) as client, place.join(other) as quiet:
            await client.say(device.topic("commands/reboot/ack"), *flood[: FLOOD // 2])
            await client.say(device.topic("commands/trigger_upload/ack"), *flood[FLOOD // 2 :])
            word = acknowledgement(command["id"], "executed")
            await client.say(device.topic("commands/reboot/ack"), word, word)
            await quiet.say(other.topic("heartbeat"), beat(70))
            await eventually(lambda: _stored(place), "the other device is heard")
            await eventually(lambda: _final(place, command), "the genuine word was taken")
        refused = await place.rows("SELECT count(*) FROM refusals WHERE code = 'unknown_command'")
        assert refused[0][0] == SAVED_ACKNOWLEDGEMENTS, "each of these cost a transaction"


def acknowledgement(command_id: str, status: str) -> bytes:
    """A device's word on a command that needs no receipt."""
    return f'{{"command_id":"{command_id}","status":"{status}"}}'.encode()


async def _stored(place: Site) -> bool:
    return await place.beats() == [70]


async def _final(place: Site, command: Row) -> bool:
    return bool((await place.rows("SELECT status = 'executed' FROM commands WHERE id = ?", command["id"]))[0][0])
