"""The reset: its order, and what is left of it whenever the power, the link or the acknowledgement goes."""

import json

import pytest

from device_sim import wire
from device_sim.actions import CommandReceived, HeartbeatDue, LinkDown, LinkUp, Provisioned, Published, PublishFailed
from device_sim.device import Device, State
from device_sim.flash import power_on
from tests.device_sim.firmware_bench import HOME, FirmwareBench, link_up, online_bench
from tests.device_sim.support import COMMAND_ID, TOKEN, Signer, make_binding, seeded

SIGNER = Signer()
RESET = CommandReceived("factory_reset", SIGNER.command())
EXECUTED = wire.receipt(TOKEN, COMMAND_ID, "executed", 3)
STEPS = [
    "tell:command_received",
    "write:last_sequences",
    "publish:ack:delivered",
    "write:reset_in_progress",
    "erase:device_token",
    "erase:pairing",
    "erase:wifi_networks",
    "write:last_commands",
    "write:last_command",
    "erase:reset_in_progress",
    "publish:ack:executed",
    "reboot",
    "tell:powered_on",
]
WIPED = len(STEPS)
FIRST_WRITE = STEPS.index("write:reset_in_progress")
SENT = STEPS.index("publish:ack:executed")


WORD = {"command_id": COMMAND_ID, "status": "executed", "receipt": EXECUTED}


def bind_again(bench: FirmwareBench, generation: int = 5) -> None:
    """Bind it after a wipe, and let its link come up."""
    bench.feed(Provisioned(make_binding(SIGNER, generation=generation, token=f"dtok_{generation}"), (HOME,)))
    link_up(bench)


def reported(bench: FirmwareBench) -> object:
    """What the newest heartbeat says in `last_command`."""
    return json.loads(bench.payloads("heartbeat")[-1]).get("last_command")


def test_the_reset_writes_to_the_flash_in_order() -> None:
    """Acknowledge, write down with the receipt, wipe each by each, acknowledge, reboot: section 4's order."""
    bench = online_bench(SIGNER)
    bench.feed(RESET)
    assert bench.steps == STEPS
    assert bench.device.state is State.UNPROVISIONED


def test_a_reset_is_acknowledged_as_delivered_and_executed() -> None:
    """Both acknowledgements have receipts of the old token; the second lists what went and what stays."""
    bench = online_bench(SIGNER)
    bench.feed(RESET)
    delivered, executed = (json.loads(each) for each in bench.payloads("ack"))
    assert delivered == {
        "command_id": COMMAND_ID,
        "status": "delivered",
        "receipt": wire.receipt(TOKEN, COMMAND_ID, "delivered", 3),
    }
    assert executed == {
        "command_id": COMMAND_ID,
        "status": "executed",
        "result": {
            "wiped": ["device_token", "pairing", "wifi_networks"],
            "kept": ["serial_number", "cellular_apn", "last_command_id"],
            "recordings": {"wiped": 0, "kept": 0},
            "technique": {"device_token": "deleted", "pairing": "deleted", "wifi_networks": "deleted"},
        },
        "receipt": EXECUTED,
    }


def test_the_wipe_keeps_factory_values_and_the_journal() -> None:
    """Everything of the owner is gone; serial number, APN and the last command ids are there."""
    bench = online_bench(SIGNER, connection="4g")
    bench.feed(RESET)
    assert bench.flash.wiped_area == {}
    kept = bench.flash.kept_area
    assert kept["serial_number"] == "SN1"
    assert kept["cellular_apn"] == "iot.example"
    assert [each["command_id"] for each in kept["last_commands"]] == [COMMAND_ID]
    factory = {"serial_number", "cellular_apn", "firmware_version"}
    assert set(kept) == {*factory, "last_commands", "last_command", "last_sequences"}
    assert TOKEN not in json.dumps(kept)


@pytest.mark.parametrize("actions", range(WIPED), ids=lambda number: f"{number}-before-{STEPS[number]}")
def test_a_power_cut_after_any_action_ends_in_a_wiped_device(actions: int) -> None:
    """Wherever the power goes, the device ends wiped, once, and its word reaches the gateway sooner or later."""
    bench = online_bench(SIGNER)
    bench.power_for = actions
    bench.feed(RESET)
    if actions <= FIRST_WRITE:
        assert bench.device.state is State.PROVISIONED
        assert set(bench.flash.wiped_area) == {"device_token", "pairing", "wifi_networks"}
        link_up(bench)
        bench.feed(RESET)
    assert bench.device.state is State.UNPROVISIONED
    assert bench.flash.wiped_area == {}
    assert "reset_in_progress" not in bench.flash.kept_area
    assert outcome_arrives(bench)


def outcome_arrives(bench: FirmwareBench) -> bool:
    """Whether the gateway has the receipt, at once or with the first heartbeat after the next bind."""
    executed = [json.loads(each) for each in bench.payloads("ack") if json.loads(each)["status"] == "executed"]
    bind_again(bench)
    last = reported(bench)
    said = [each["receipt"] for each in executed] + ([last["receipt"]] if isinstance(last, dict) else [])
    return set(said) == {EXECUTED}


@pytest.mark.parametrize("first", range(FIRST_WRITE + 1, WIPED))
@pytest.mark.parametrize("second", range(7))
def test_two_power_cuts_end_in_a_wiped_device(first: int, second: int) -> None:
    """A second cut while the wipe is being finished changes nothing about the end."""
    bench = online_bench(SIGNER)
    bench.power_for = first
    bench.feed(RESET)
    bench.device = Device(seeded())
    bench.power_for = second
    bench.feed(power_on(bench.flash))
    assert bench.device.state is State.UNPROVISIONED
    assert bench.flash.wiped_area == {}
    assert "reset_in_progress" not in bench.flash.kept_area


@pytest.mark.parametrize("actions", range(FIRST_WRITE + 1, WIPED))
def test_the_same_reset_never_wipes_twice(actions: int) -> None:
    """After a cut and a new bind the old reset, still retained, gets its old answer and wipes nothing."""
    bench = online_bench(SIGNER)
    bench.power_for = actions
    bench.feed(RESET)
    bind_again(bench)
    bench.sent.clear()
    bench.feed(RESET)
    [again] = [json.loads(each) for each in bench.payloads("ack")]
    assert (again["status"], again["receipt"]) == ("executed", EXECUTED)
    assert bench.device.state is State.ONLINE
    assert bench.flash.wiped_area["device_token"] == "dtok_5"


def test_an_older_reset_never_wipes_a_new_binding() -> None:
    """A reset of an older generation that the device never saw is refused, and says why."""
    bench = online_bench(SIGNER, binding=make_binding(SIGNER, generation=5))
    bench.feed(RESET)
    [answer] = [json.loads(each) for each in bench.payloads("ack")]
    assert answer["error"]["code"] == "stale_generation"
    assert bench.flash.wiped_area["pairing"]["binding_generation"] == 5


def test_an_unconfirmed_executed_is_repeated_in_heartbeats() -> None:
    """An `executed` that was not confirmed is sent after the next bind."""
    bench = online_bench(SIGNER)
    bench.confirms = False
    bench.feed(RESET)
    bench.feed(Published(bench.sent[-1]))
    bench.feed(PublishFailed(bench.sent[-1], "the session was cut"))
    assert bench.device.state is State.UNPROVISIONED
    bind_again(bench)
    assert reported(bench) == WORD


def test_an_unconfirmed_executed_is_reported_over_ble() -> None:
    """A companion app relays that word as well, and what it brings is with the gateway: said once."""
    bench = online_bench(SIGNER)
    bench.feed(RESET)
    bench.feed(Provisioned(make_binding(SIGNER, generation=5)))
    bench.feed(LinkUp("ble", "ble"))
    assert reported(bench) == WORD
    bench.feed(HeartbeatDue())
    assert reported(bench) is None


def test_an_unconfirmed_delivered_does_not_start_the_wipe() -> None:
    """The gateway may not know that the device got the reset; the device waits for the next link and begins again."""
    bench = online_bench(SIGNER)
    bench.confirms = False
    bench.feed(RESET)
    bench.feed(PublishFailed(bench.sent[-1], "no PUBACK"))
    bench.feed(LinkDown("no PUBACK"))
    assert "reset_postponed" in bench.facts
    assert set(bench.flash.wiped_area) == {"device_token", "pairing", "wifi_networks"}
    bench.confirms = True
    link_up(bench)
    bench.feed(RESET)
    assert bench.device.state is State.UNPROVISIONED


def test_a_link_lost_before_delivered_is_confirmed_postpones_the_reset() -> None:
    """A PUBACK that comes for a link of before starts no wipe."""
    bench = online_bench(SIGNER)
    bench.confirms = False
    bench.feed(RESET)
    delivered = bench.sent[-1]
    bench.feed(LinkDown("lost"))
    bench.feed(Published(delivered))
    assert bench.device.state is State.PROVISIONED
    assert bench.flash.wiped_area


def test_a_withdrawn_reset_does_not_start() -> None:
    """A reset whose topic is cleared before its acknowledgement is confirmed is not begun."""
    bench = online_bench(SIGNER)
    bench.confirms = False
    bench.feed(RESET)
    bench.feed(CommandReceived("factory_reset", b""))
    bench.feed(Published(bench.sent[-1]))
    assert bench.facts[-1] == "reset_withdrawn"
    assert bench.device.state is State.ONLINE
    assert bench.flash.wiped_area


def test_a_duplicate_before_the_wipe_changes_nothing() -> None:
    """Delivered twice before the first is confirmed: acknowledged twice alike, wiped once."""
    bench = online_bench(SIGNER)
    bench.confirms = False
    bench.feed(RESET)
    bench.feed(RESET)
    first, second = bench.payloads("ack")
    assert first == second
    bench.feed(Published(bench.sent[0]))
    bench.feed(Published(bench.sent[1]))
    assert bench.steps.count("write:reset_in_progress") == 1
    assert bench.device.state is State.RESETTING


def test_a_duplicate_during_the_wipe_changes_nothing() -> None:
    """Delivered again before the `executed` is confirmed: the same `executed` again, one reboot."""
    bench = online_bench(SIGNER)
    bench.confirms = False
    bench.feed(RESET)
    bench.feed(Published(bench.sent[-1]))
    bench.feed(RESET)
    executed = [each for each in bench.sent if each.status == "executed"]
    assert len(executed) == 2
    assert executed[0] == executed[1]
    bench.feed(Published(executed[0]))
    bench.feed(Published(executed[1]))
    assert bench.steps.count("reboot") == 1


def test_inputs_during_the_wipe_are_ignored() -> None:
    """Between wipe and reboot no other command is begun, no heartbeat made and no network taken."""
    bench = online_bench(SIGNER)
    bench.confirms = False
    bench.feed(RESET)
    bench.feed(Published(bench.sent[-1]))
    bench.sent.clear()
    bench.feed(CommandReceived("start_recording", SIGNER.command("start_recording", command_id="cmd_other")))
    bench.feed(HeartbeatDue())
    assert bench.sent == []
    assert bench.device.state is State.RESETTING


def test_an_unrelated_publish_failure_does_not_end_the_reset() -> None:
    """While wiping, only the word about this very command leads on to the reboot."""
    bench = online_bench(SIGNER)
    bench.confirms = False
    bench.feed(CommandReceived("start_recording", SIGNER.command("start_recording", command_id="cmd_other")))
    other = bench.sent[-1]
    bench.feed(RESET)
    bench.feed(Published(bench.sent[-1]))
    bench.feed(PublishFailed(other, "lost"))
    bench.feed(Published(other))
    assert bench.device.state is State.RESETTING
