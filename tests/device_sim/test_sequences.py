"""No earlier command after a later one, no params that the gateway has not signed: whatever the broker hands over."""

import json
from typing import Any

import pytest

from device_sim.actions import CommandReceived, Provisioned
from device_sim.device import Device, State
from device_sim.flash import power_on
from device_sim.journal import MAX_OUTCOMES
from device_sim.sequences import SEQUENCES, Sequences
from tests.device_sim.firmware_bench import FirmwareBench, online_bench
from tests.device_sim.support import COMMAND_ID, NOW, Signer, digest_of, make_binding, seeded

SIGNER = Signer()


def command(kind: str = "reboot", name: str = "old", **more: Any) -> CommandReceived:
    """A command that is signed now, after all before it, and good for a minute."""
    payload = SIGNER.command(kind, command_id=f"cmd_{name}", expires_at=NOW + 60_000, **more)
    return CommandReceived(kind, payload)


def answers(bench: FirmwareBench) -> list[tuple[str, str, str | None]]:
    """Id, status and error code of each acknowledgement."""
    said = [json.loads(payload) for payload in bench.payloads("ack")]
    return [(each["command_id"], each["status"], each.get("error", {}).get("code")) for each in said]


def test_a_cancelled_command_is_refused_after_a_later_one() -> None:
    """The broker held it back, it was cancelled, another one was obeyed: then it comes, its grant still good."""
    bench = online_bench(SIGNER)
    cancelled = command("trigger_upload", "cancelled")
    bench.feed(command("trigger_upload", "later"))
    bench.feed(cancelled)
    bench.feed(cancelled)
    refused = ("cmd_cancelled", "failed", "stale_sequence")
    assert answers(bench) == [("cmd_later", "delivered", None), ("cmd_later", "executed", None), refused, refused]


def test_an_executed_command_is_refused_when_its_id_is_forgotten() -> None:
    """A device remembers sixteen ids, and always the last one of each type."""
    bench = online_bench(SIGNER)
    first, second = command("start_recording", "first"), command("start_recording", "second")
    bench.feed(first)
    bench.feed(second)
    for number in range(MAX_OUTCOMES):
        bench.feed(command("trigger_upload", f"upload_{number}"))
    bench.sent.clear()
    bench.feed(first)
    bench.feed(second)
    assert answers(bench) == [("cmd_first", "failed", "stale_sequence"), ("cmd_second", "executed", None)]


def test_a_replay_evicts_no_stored_outcome() -> None:
    """Refusals of earlier commands are not kept: a hostile broker has many of them."""
    bench = online_bench(SIGNER)
    early = [command("stop_recording", f"early_{number}") for number in range(MAX_OUTCOMES)]
    done = command("stop_recording", "done")
    bench.feed(done)
    for each in early:
        bench.feed(each)
    bench.sent.clear()
    bench.feed(done)
    assert answers(bench) == [("cmd_done", "executed", None)]


def test_each_command_type_has_its_own_number() -> None:
    """A reboot that waited longer than an upload is no replay."""
    bench = online_bench(SIGNER)
    waited = command("stop_recording", "waited")
    bench.feed(command("trigger_upload", "quick"))
    bench.feed(waited)
    assert [said[:2] for said in answers(bench)][-1] == ("cmd_waited", "executed")


def test_another_binding_starts_without_numbers() -> None:
    """The numbers are those of a binding: a registry that is new may count from one."""
    bench = online_bench(SIGNER, binding=make_binding(SIGNER, generation=3))
    low = SIGNER.command("reboot", command_id="cmd_low", generation=5)
    bench.feed(CommandReceived("factory_reset", SIGNER.command()))
    assert bench.device.state is State.UNPROVISIONED
    bench.feed(Provisioned(make_binding(SIGNER, generation=5)))
    bench.sent.clear()
    bench.feed(CommandReceived("reboot", low))
    assert ("cmd_low", "executed", None) in answers(bench)


def test_the_number_survives_a_power_cut() -> None:
    """At every step of a later command: once its number is written the earlier one is refused, and it itself is not."""
    for actions in range(5):
        bench = online_bench(SIGNER)
        earlier, later = command("trigger_upload", "earlier"), command("trigger_upload", "later")
        bench.power_for = actions
        bench.feed(later)
        written = SEQUENCES in bench.flash.kept_area
        assert written == (actions > 1)
        bench.sent.clear()
        bench.feed(earlier)
        assert answers(bench)[-1][1:] == (("failed", "stale_sequence") if written else ("executed", None))
        bench.feed(later)
        assert answers(bench)[-1] == ("cmd_later", "executed", None)


def test_a_redelivered_command_does_not_write_to_the_flash() -> None:
    """A broker may hand over a reset again and again whose `delivered` it never confirms."""
    bench = online_bench(SIGNER)
    bench.confirms = False
    reset = CommandReceived("factory_reset", SIGNER.command())
    for _ in range(5):
        bench.feed(reset)
    assert bench.steps.count("publish:ack:delivered") == 5
    assert [step for step in bench.steps if step.startswith("write:")] == [f"write:{SEQUENCES}"]


def test_sequence_numbers_survive_a_restart() -> None:
    """It lies in the flash, with the generation that it belongs to."""
    bench = online_bench(SIGNER)
    earlier = command("trigger_upload", "earlier")
    bench.feed(command("trigger_upload", "later"))
    bench.device = Device(seeded())
    bench.feed(power_on(bench.flash))
    bench.sent.clear()
    bench.feed(earlier)
    assert answers(bench) == [("cmd_earlier", "failed", "stale_sequence")]
    assert not Sequences(3, bench.flash.kept_area).is_allowed("trigger_upload", 1, "cmd_x")
    assert Sequences(5, bench.flash.kept_area).is_allowed("trigger_upload", 1, "cmd_x")


@pytest.mark.parametrize("kind", ["factory_reset", "trigger_upload"])
@pytest.mark.parametrize(
    ("signed", "sent"),
    [
        ({}, {"recordings": "wipe"}),
        ({"recordings": "keep"}, {"recordings": "wipe"}),
        ({"recordings": "keep"}, {}),
        ({"n": 1}, {"n": True}),
        ({"n": 1}, {"n": "1"}),
        ({"n": 1}, {"n": 2**53}),
        ({"n": 1}, {"n": float("nan")}),
        ({"n": 1}, {"n": "\ud800"}),
    ],
)
def test_altered_params_are_refused(kind: str, signed: dict[str, Any], sent: dict[str, Any]) -> None:
    """The grant is the gateway's, the params are not; the real command is obeyed afterwards."""
    bench = online_bench(SIGNER)
    altered = SIGNER.command(kind, claims={"par": digest_of(signed)}, fields={"params": sent})
    bench.feed(CommandReceived(kind, altered))
    assert answers(bench) == [(COMMAND_ID, "failed", "grant_invalid")]
    assert SEQUENCES not in bench.flash.kept_area
    bench.feed(CommandReceived(kind, SIGNER.command(kind, params=signed)))
    assert (COMMAND_ID, "executed", None) in answers(bench)


def test_params_with_another_serialization_are_accepted() -> None:
    """A broker or a library may write them in another order, with blanks or with escapes."""
    params = {"b": [1.0, "é"], "a": {"z": None, "y": True}}
    said = json.loads(SIGNER.command("trigger_upload", params=params))
    said["params"] = {"a": {"y": True, "z": None}, "b": [1, "\u00e9"]}
    bench = online_bench(SIGNER)
    bench.feed(CommandReceived("trigger_upload", json.dumps(said, indent=2).encode()))
    assert [status for _, status, _ in answers(bench)] == ["delivered", "executed"]


def test_a_command_without_params_is_malformed() -> None:
    """Nor do params that are no object."""
    spoilt: tuple[Any, ...] = (None, [], "{}", 0)
    for params in spoilt:
        bench = online_bench(SIGNER)
        bench.feed(CommandReceived("reboot", SIGNER.command("reboot", fields={"params": params})))
        assert (bench.payloads("ack"), "command_ignored" in bench.facts) == ([], True)
