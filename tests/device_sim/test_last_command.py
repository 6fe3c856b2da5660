"""The word about the last wipe: how long a device goes on with it, and what ends that."""

import json

import pytest

from device_sim import wire
from device_sim.actions import Area, CommandReceived, HeartbeatDue, LinkDown, LinkUp, Provisioned, RefusalReceived
from device_sim.device import Device
from device_sim.flash import power_on
from tests.device_sim.firmware_bench import HOME, FirmwareBench, link_up, online_bench
from tests.device_sim.support import COMMAND_ID, TOKEN, Signer, make_binding, seeded

SIGNER = Signer()
RESET = CommandReceived("factory_reset", SIGNER.command())
WORD = {"command_id": COMMAND_ID, "status": "executed", "receipt": wire.receipt(TOKEN, COMMAND_ID, "executed", 3)}


def wiped_and_bound() -> FirmwareBench:
    """A device that was wiped, reported it over MQTT, and is bound again; it has not connected yet."""
    bench = online_bench(SIGNER)
    bench.feed(RESET)
    bind(bench, 5)
    bench.sent.clear()
    return bench


def bind(bench: FirmwareBench, generation: int) -> None:
    """Bind it again, at this generation."""
    bench.feed(Provisioned(make_binding(SIGNER, generation=generation, token=f"dtok_{generation}"), (HOME,)))


def said(bench: FirmwareBench) -> list[bool]:
    """Of each heartbeat since the last look whether it told of the wipe."""
    words = [json.loads(each).get("last_command") for each in bench.payloads("heartbeat")]
    bench.sent.clear()
    assert all(word in (None, WORD) for word in words)
    return [word is not None for word in words]


def test_the_outcome_is_repeated_ever_more_rarely_within_a_connection() -> None:
    """Over MQTT in the heartbeats number 1, 2, 4, 8 and 16 of a connection, whatever PUBACKs say."""
    bench = wiped_and_bound()
    link_up(bench)
    for _ in range(17):
        bench.feed(HeartbeatDue())
    assert [number for number, facts in enumerate(said(bench), start=1) if facts] == [1, 2, 4, 8, 16]


def test_the_outcome_is_repeated_in_each_connection() -> None:
    """A broker that is restarted may have lost what it confirmed, so each connection begins with the word."""
    bench = wiped_and_bound()
    for _ in range(3):
        link_up(bench)
        bench.feed(HeartbeatDue())
        bench.feed(HeartbeatDue())
        bench.feed(LinkDown("the broker died"))
        assert said(bench) == [True, True, False]


def test_the_outcome_is_repeated_after_a_power_cut_and_under_another_binding() -> None:
    """It lies where no power cut, no reset by hand and no token that was revoked reaches it."""
    bench = wiped_and_bound()
    link_up(bench)
    assert said(bench) == [True]
    bench.device = Device(seeded())
    bench.feed(power_on(bench.flash))
    link_up(bench)
    assert said(bench) == [True]
    for name in tuple(bench.flash.wiped_area):
        bench.flash.erase(Area.WIPED, name)
    bench.device = Device(seeded())
    bench.feed(power_on(bench.flash))
    bind(bench, 7)
    link_up(bench)
    assert said(bench) == [True]


def test_heartbeats_do_not_write_to_the_flash() -> None:
    """Nothing is written while it is said over MQTT."""
    bench = wiped_and_bound()
    bench.steps.clear()
    link_up(bench)
    for _ in range(8):
        bench.feed(HeartbeatDue())
    assert not [each for each in bench.steps if each.startswith(("write:", "erase:"))]


@pytest.mark.parametrize("transport", ["http", "ble"])
def test_a_confirmation_over_http_ends_the_repetition(transport: str) -> None:
    """That is the gateway's own word, also where a companion app brings it; until then each heartbeat says it."""
    bench = wiped_and_bound()
    bench.confirms = False
    bench.feed(LinkUp("4g" if transport == "http" else "ble", "http" if transport == "http" else "ble"))
    for _ in range(4):
        bench.feed(HeartbeatDue())
    assert said(bench) == [True] * 5
    bench.confirms = True
    bench.feed(HeartbeatDue())
    bench.feed(HeartbeatDue())
    assert said(bench) == [True, False]
    assert "last_command" not in bench.flash.kept_area


def test_a_refusal_of_the_outcome_ends_the_repetition() -> None:
    """A gateway that never heard of the command, since the device was sold, is told no more."""
    bench = wiped_and_bound()
    link_up(bench)
    bench.feed(RefusalReceived(b'{"code":"unknown_command","message":"x","field":"last_command.command_id"}'))
    bench.feed(HeartbeatDue())
    assert said(bench) == [True, False]
    assert "last_command" not in bench.flash.kept_area


@pytest.mark.parametrize(
    "answer",
    [
        b'{"code":"token_revoked","message":"x","field":null}',
        b'{"code":"unknown_command","message":"x","field":"command_id"}',
        b'{"code":"invalid_request","message":"x"}',
        b"null",
        b"[]",
        b"\xff",
        b"[" * 10_000,
    ],
)
def test_an_unrelated_refusal_does_not_end_the_repetition(answer: bytes) -> None:
    """Only a valid answer ends it: a refused heartbeat (token revoked) and an answer that cannot be read do not."""
    bench = wiped_and_bound()
    link_up(bench)
    bench.feed(RefusalReceived(answer))
    bench.feed(HeartbeatDue())
    assert said(bench) == [True, True]


def test_a_newer_wipe_replaces_the_outcome() -> None:
    """The last one is told of; what became of those before is in the journal, for who asks by sending them again."""
    bench = wiped_and_bound()
    link_up(bench)
    newer = SIGNER.command(command_id="cmd_newer", generation=5)
    bench.feed(CommandReceived("factory_reset", newer))
    bind(bench, 7)
    bench.sent.clear()
    link_up(bench)
    [heartbeat] = bench.payloads("heartbeat")
    assert json.loads(heartbeat)["last_command"]["command_id"] == "cmd_newer"
