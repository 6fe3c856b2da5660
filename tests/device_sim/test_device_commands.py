"""Commands of the firmware: acknowledged, executed once, refused, and remembered."""

import json

import pytest

from device_sim import wire
from device_sim.actions import (
    CommandReceived,
    HeartbeatDue,
    LinkDown,
    PowerOn,
    PublishFailed,
)
from device_sim.device import Device, State
from device_sim.flash import power_on
from device_sim.journal import MAX_OUTCOMES
from tests.device_sim.firmware_bench import FirmwareBench, link_up, online_bench
from tests.device_sim.support import COMMAND_ID, NOW, TOKEN, Signer, seeded

SIGNER = Signer()
RESET = CommandReceived("factory_reset", SIGNER.command())


def failed_with(bench: FirmwareBench) -> list[str]:
    """The error code of every `failed` that was published."""
    bodies = [json.loads(payload) for payload in bench.payloads("ack")]
    return [body["error"]["code"] for body in bodies if body["status"] == "failed"]


@pytest.mark.parametrize("command_type", ["start_recording", "stop_recording", "trigger_upload", "reboot"])
def test_a_command_is_acknowledged_executed_and_reported(command_type: str) -> None:
    """Every command is acknowledged as delivered and then as executed, with receipts."""
    bench = online_bench(SIGNER)
    bench.feed(CommandReceived(command_type, SIGNER.command(command_type)))
    assert bench.acks() == [(COMMAND_ID, "delivered"), (COMMAND_ID, "executed")]
    for payload in bench.payloads("ack"):
        body = json.loads(payload)
        assert body["receipt"] == wire.receipt(TOKEN, COMMAND_ID, body["status"], 3)


def test_a_recording_shows_in_the_heartbeat() -> None:
    """What a command did shows in the next heartbeat."""
    bench = online_bench(SIGNER)
    states = []
    for number, command_type in enumerate(["start_recording", "stop_recording", "trigger_upload"]):
        command = SIGNER.command(command_type, command_id=f"cmd_{number}")
        bench.feed(CommandReceived(command_type, command))
        bench.feed(HeartbeatDue())
        body = json.loads(bench.payloads("heartbeat")[-1])
        states.append((body["device_state"], body["pending_recordings"]))
    before = states[0][1]
    assert states == [("recording", before), ("idle", before + 1), ("idle", 0)]


def test_a_reboot_ends_in_a_new_connection() -> None:
    """A reboot keeps the binding and opens the link again."""
    bench = online_bench(SIGNER)
    bench.feed(CommandReceived("reboot", SIGNER.command("reboot")))
    assert bench.device.state is State.PROVISIONED
    assert bench.opened == ["wifi", "wifi"]
    assert bench.steps.count("reboot") == 1


@pytest.mark.parametrize("command_type", ["start_recording", "reboot"])
def test_a_redelivered_command_is_executed_once(command_type: str) -> None:
    """A command that comes again is acknowledged again with the very same bytes, and not done again."""
    bench = online_bench(SIGNER)
    command = CommandReceived(command_type, SIGNER.command(command_type))
    bench.feed(command)
    executed = bench.payloads("ack")[-1]
    boots = bench.steps.count("reboot")
    for _ in range(3):
        bench.feed(command)
    assert bench.payloads("ack")[-3:] == [executed] * 3
    assert bench.steps.count("reboot") == boots
    assert len(bench.acks()) == 5


def test_a_command_is_executed_once_across_a_restart() -> None:
    """The ids lie in the flash: a restart does not make a device do things twice."""
    bench = online_bench(SIGNER)
    command = CommandReceived("start_recording", SIGNER.command("start_recording"))
    bench.feed(command)
    bench.device = Device(seeded())
    bench.feed(power_on(bench.flash))
    link_up(bench)
    bench.feed(command)
    assert [status for _, status in bench.acks()] == ["delivered", "executed", "executed"]
    assert bench.facts.count("already_done") == 1


def test_the_last_sixteen_ids_are_remembered() -> None:
    """The newest sixteen outcomes are kept, no more."""
    bench = online_bench(SIGNER)
    for number in range(MAX_OUTCOMES + 4):
        command = SIGNER.command("start_recording", command_id=f"cmd_{number:03d}")
        bench.feed(CommandReceived("start_recording", command))
    kept = bench.flash.kept_area["last_commands"]
    assert [each["command_id"] for each in kept] == [f"cmd_{number:03d}" for number in range(4, MAX_OUTCOMES + 4)]
    assert set(kept[0]) == {"command_id", "type", "status", "receipt", "result", "error"}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (SIGNER.command(generation=2), "stale_generation"),
        (SIGNER.command(generation=4), "generation_mismatch"),
        (Signer(b"f" * 32).command(), "grant_invalid"),
        (SIGNER.command(device_id="dev_other"), "grant_invalid"),
        (SIGNER.command(claims={"cmd": "reboot"}), "grant_invalid"),
        (SIGNER.command(expires_at=NOW - 1000), "expired"),
    ],
)
def test_a_refused_command_is_acknowledged_as_failed(command: bytes, code: str) -> None:
    """What the device must not obey it says so, with a receipt, and does nothing."""
    bench = online_bench(SIGNER)
    before = dict(bench.flash.wiped_area)
    bench.feed(CommandReceived("factory_reset", command))
    assert failed_with(bench) == [code]
    assert bench.acks() == [(COMMAND_ID, "failed")]
    assert bench.flash.wiped_area == before
    assert bench.device.state is State.ONLINE


def test_receipt_of_a_refusal_repeats_the_generation_of_the_command() -> None:
    """The receipt is over the command's generation, not the device's."""
    bench = online_bench(SIGNER)
    bench.feed(CommandReceived("factory_reset", SIGNER.command(generation=2)))
    assert json.loads(bench.payloads("ack")[0])["receipt"] == wire.receipt(TOKEN, COMMAND_ID, "failed", 2)


def test_a_refused_command_is_refused_alike_when_redelivered() -> None:
    """A stale command that comes again gets the same answer."""
    bench = online_bench(SIGNER)
    stale = CommandReceived("factory_reset", SIGNER.command(generation=2))
    bench.feed(stale)
    bench.feed(stale)
    first, second = bench.payloads("ack")
    assert first == second


def test_a_forgery_uses_up_no_id() -> None:
    """A forged command with the id of a real one does not keep the real one from being obeyed."""
    bench = online_bench(SIGNER)
    bench.feed(CommandReceived("start_recording", Signer(b"f" * 32).command("start_recording")))
    bench.feed(CommandReceived("start_recording", SIGNER.command("start_recording")))
    assert [status for _, status in bench.acks()] == ["failed", "delivered", "executed"]


def test_a_known_id_on_another_topic_is_refused() -> None:
    """An id that was executed as one type is no licence for another."""
    bench = online_bench(SIGNER)
    bench.feed(CommandReceived("start_recording", SIGNER.command("start_recording")))
    bench.feed(CommandReceived("factory_reset", SIGNER.command("start_recording")))
    assert failed_with(bench) == ["grant_invalid"]
    assert bench.device.state is State.ONLINE


@pytest.mark.parametrize("payload", [b"{", b"\xff", b"[]", b'{"id":"cmd_1"}', b"\x00" * 1000])
def test_a_malformed_command_is_ignored(payload: bytes) -> None:
    """What can't be read can't be acknowledged; it is told and nothing else happens."""
    bench = online_bench(SIGNER)
    bench.feed(CommandReceived("factory_reset", payload))
    assert bench.facts == ["command_ignored"]
    assert bench.sent == []


def test_an_empty_payload_is_no_command() -> None:
    """A cleared topic is no command."""
    bench = online_bench(SIGNER)
    bench.feed(CommandReceived("factory_reset", b""))
    assert bench.steps == []


def test_an_unpaired_device_executes_no_command() -> None:
    """Without a binding there is no key to believe in."""
    bench = FirmwareBench()
    bench.feed(PowerOn({}, {}))
    bench.feed(RESET)
    assert bench.facts[-1] == "command_ignored"
    assert bench.sent == []


def test_a_lost_acknowledgement_is_repeated_at_the_next_delivery() -> None:
    """An `executed` that was not confirmed is sent again when the retained command arrives with the next link."""
    bench = online_bench(SIGNER)
    bench.confirms = False
    command = CommandReceived("start_recording", SIGNER.command("start_recording"))
    bench.feed(command)
    for each in list(bench.sent):
        bench.feed(PublishFailed(each, "lost"))
    bench.feed(LinkDown("lost"))
    bench.confirms = True
    link_up(bench)
    bench.feed(command)
    assert bench.acks()[-1] == (COMMAND_ID, "executed")
    assert bench.facts.count("command_received") == 1
