"""Recordings: labelled by generation, uploaded under no other, and kept or wiped by a reset as its params say."""

import json
from typing import Any

import pytest

from device_sim.actions import CommandReceived, HeartbeatDue, Provisioned
from device_sim.device import Device, State
from device_sim.flash import power_on
from tests.device_sim.firmware_bench import HOME, FirmwareBench, link_up, online_bench
from tests.device_sim.support import Signer, digest_of, make_binding, seeded

SIGNER = Signer()
OLD = {"rec_old": 1}
OWN = {"rec_a": 3, "rec_b": 3}
ALL = {**OLD, **OWN}
RESET_STEPS, UPLOAD_STEPS = 14, 8
"""Actions of a reset with `wipe`, the reboot included, and of an upload of two recordings."""


def command(kind: str, number: int = 1, *, generation: int = 3, **given: Any) -> CommandReceived:
    """A good command, unless `given` spoils it."""
    return CommandReceived(kind, SIGNER.command(kind, command_id=f"cmd_{number}", generation=generation, **given))


def recorder() -> FirmwareBench:
    """A device of generation 3, online, with two recordings of this binding and one of an earlier owner."""
    bench = online_bench(SIGNER)
    bench.flash.write("kept", "recordings", ALL)  # type: ignore[arg-type]  # an area by its value
    bench.feed(power_on(bench.flash))
    link_up(bench)
    bench.sent.clear()
    bench.steps.clear()
    return bench


def stored(bench: FirmwareBench) -> dict[str, int]:
    """The recordings in the flash, with the generation of each."""
    return dict(bench.flash.kept_area.get("recordings", {}))


def answers(bench: FirmwareBench) -> list[tuple[str, str | None]]:
    """Status and error code of each acknowledgement."""
    bodies = [json.loads(each) for each in bench.payloads("ack")]
    return [(each["status"], each.get("error", {}).get("code")) for each in bodies]


def executed_result(bench: FirmwareBench) -> dict[str, Any]:
    """The result of the newest `executed`."""
    bodies = [json.loads(each) for each in bench.payloads("ack")]
    result: dict[str, Any] = [each for each in bodies if each["status"] == "executed"][-1]["result"]
    return result


def pending(bench: FirmwareBench) -> int:
    """What the next heartbeat says."""
    bench.feed(HeartbeatDue())
    number: int = json.loads(bench.payloads("heartbeat")[-1])["pending_recordings"]
    return number


def bind_again(bench: FirmwareBench) -> None:
    """Bind it after a reset, at generation 5."""
    bench.feed(Provisioned(make_binding(SIGNER, generation=5, token="dtok_5"), (HOME,)))
    link_up(bench)


def was_cut(bench: FirmwareBench) -> bool:
    """Whether the power has gone as it was set to."""
    return bench.power_for is None


def start_again(bench: FirmwareBench) -> None:
    """Cut the power, and let the device come back."""
    bench.power_for = None
    bench.device = Device(seeded())
    bench.feed(power_on(bench.flash))
    if bench.device.state is State.PROVISIONED:
        link_up(bench)


# --- labels and uploads -----------------------------------------------------------------------------------------------


def test_a_recording_is_labelled_with_its_generation() -> None:
    """The label is in the flash when the recording begins; it waits for its upload when it has ended."""
    bench = recorder()
    bench.feed(command("start_recording"))
    assert stored(bench) == {**ALL, "cmd_1": 3}
    assert pending(bench) == 2
    bench.feed(command("stop_recording", 2))
    assert pending(bench) == 3


def test_an_upload_takes_the_recordings_of_its_generation_only() -> None:
    """That of an earlier owner stays, and does not count as pending."""
    bench = recorder()
    bench.feed(command("trigger_upload"))
    assert [(each.recording_id, each.made_in, each.binding.generation) for each in bench.uploads] == [
        ("rec_a", 3, 3),
        ("rec_b", 3, 3),
    ]
    assert executed_result(bench) == {"uploaded": 2}
    assert stored(bench) == OLD
    assert pending(bench) == 0


def test_a_running_recording_is_not_uploaded() -> None:
    """Only what was finished goes out."""
    bench = recorder()
    bench.feed(command("start_recording"))
    bench.feed(command("trigger_upload", 2))
    assert [each.recording_id for each in bench.uploads] == ["rec_a", "rec_b"]
    assert stored(bench) == {**OLD, "cmd_1": 3}


def test_each_binding_begins_with_the_recordings_that_were_asked_for() -> None:
    """They are made under the binding, whatever its generation, and wait for their upload."""
    bench = FirmwareBench(device=Device(seeded(), recordings=2))
    bench.feed(power_on(bench.flash))
    bench.feed(Provisioned(make_binding(SIGNER), (HOME,)))
    link_up(bench)
    assert list(stored(bench).values()) == [3, 3]
    assert pending(bench) == 2


@pytest.mark.parametrize("actions", range(UPLOAD_STEPS))
def test_a_power_cut_during_an_upload_loses_no_recording(actions: int) -> None:
    """Each is uploaded, maybe twice, always under its own generation; the command comes again until it is done."""
    bench = recorder()
    bench.power_for = actions
    upload = command("trigger_upload")
    bench.feed(upload)
    assert was_cut(bench)
    start_again(bench)
    bench.feed(upload)
    assert {each.recording_id for each in bench.uploads} == {"rec_a", "rec_b"}
    assert {(each.made_in, each.binding.generation) for each in bench.uploads} == {(3, 3)}
    assert stored(bench) == OLD


@pytest.mark.parametrize("actions", range(8))
def test_a_power_cut_ends_a_recording_and_keeps_it(actions: int) -> None:
    """The same command, delivered again, begins no second recording."""
    bench = recorder()
    start = command("start_recording")
    bench.power_for = actions
    bench.feed(start)
    start_again(bench)
    bench.feed(start)
    assert stored(bench) == {**ALL, "cmd_1": 3}


# --- the reset --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [{}, {"recordings": "keep"}, {"recordings": "keep", "later": [1]}], ids=str)
def test_a_reset_keeps_recordings_unless_told_otherwise(params: dict[str, Any]) -> None:
    """They stay, are listed as kept, and no later binding uploads them."""
    bench = recorder()
    bench.feed(command("factory_reset", params=params))
    result = executed_result(bench)
    assert result["recordings"] == {"wiped": 0, "kept": 3}
    assert result["kept"] == ["serial_number", "cellular_apn", "last_command_id", "recordings"]
    assert set(result["technique"]) == {"device_token", "pairing", "wifi_networks"} == set(result["wiped"])
    bind_again(bench)
    assert pending(bench) == 0
    bench.feed(command("trigger_upload", 2, generation=5))
    assert (executed_result(bench), bench.uploads) == ({"uploaded": 0}, [])
    assert stored(bench) == ALL


def test_a_reset_wipes_the_recordings_of_all_generations() -> None:
    """They are gone before `executed`, which counts them; what an earlier reset kept is wiped as well."""
    bench = recorder()
    bench.feed(command("factory_reset", params={"recordings": "wipe", "later": [1]}))
    result = executed_result(bench)
    assert result["recordings"] == {"wiped": 3, "kept": 0}
    assert result["wiped"] == ["device_token", "pairing", "wifi_networks", "recordings"]
    assert result["kept"] == ["serial_number", "cellular_apn", "last_command_id"]
    assert result["technique"] == dict.fromkeys(result["wiped"], "deleted")
    begun, wiped, told = (
        bench.steps.index(each) for each in ("write:reset_in_progress", "erase:recordings", "publish:ack:executed")
    )
    assert begun < wiped < told
    assert "recordings" not in bench.flash.kept_area


@pytest.mark.parametrize("recordings", ["keep", "wipe"])
def test_a_power_cut_changes_nothing_about_the_recordings(recordings: str) -> None:
    """Once and twice, before any action: they are gone with `wipe`, all there with `keep`, and counted rightly."""
    for first in range(RESET_STEPS - (recordings == "keep")):
        for second in range(9):
            bench = recorder()
            reset = command("factory_reset", params={"recordings": recordings})
            bench.power_for = first
            bench.feed(reset)
            assert was_cut(bench), first
            bench.power_for = second
            bench.device = Device(seeded())
            bench.feed(power_on(bench.flash))
            start_again(bench)
            if bench.device.state is State.ONLINE:  # the power went before the reset was written down
                bench.feed(reset)
            assert bench.device.state is State.UNPROVISIONED, (first, second)
            assert stored(bench) == ({} if recordings == "wipe" else ALL), (first, second)
            [outcome] = [each for each in bench.flash.kept_area["last_commands"] if each["status"] == "executed"]
            wiped, kept = (3, 0) if recordings == "wipe" else (0, 3)
            assert outcome["result"]["recordings"] == {"wiped": wiped, "kept": kept}, (first, second)


@pytest.mark.parametrize("actions", range(4, RESET_STEPS))
def test_wiped_recordings_do_not_come_back_from_ram(actions: int) -> None:
    """A wipe that a power cut interrupted is finished at power-on; then the next owner records something."""
    bench = recorder()
    bench.power_for = actions
    bench.feed(command("factory_reset", params={"recordings": "wipe"}))
    assert was_cut(bench)
    bind_again(bench)
    bench.feed(command("start_recording", 2, generation=5))
    assert stored(bench) == {"cmd_2": 5}


def test_a_reset_ends_a_recording() -> None:
    """Kept, it belongs to the owner before: the next one neither ends nor uploads it."""
    bench = recorder()
    bench.feed(command("start_recording"))
    bench.feed(command("factory_reset", 2))
    assert executed_result(bench)["recordings"] == {"wiped": 0, "kept": 4}
    bind_again(bench)
    bench.feed(command("stop_recording", 3, generation=5))
    assert executed_result(bench) == {"recording": False, "pending_recordings": 0}
    assert json.loads(bench.payloads("heartbeat")[-1])["device_state"] != "recording"
    bench.feed(command("trigger_upload", 4, generation=5))
    assert bench.uploads == []


# --- params that were changed or are wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signed", "arrives"),
    [("keep", "wipe"), ("wipe", "keep"), (None, "wipe"), ("wipe", None), ("keep", None), ("keep", "Keep")],
)
def test_changed_params_of_a_reset_are_refused(signed: str | None, arrives: str | None) -> None:
    """`par` covers them: nothing is wiped, nothing is stored, and the real command is obeyed afterwards."""
    was, now = ({} if each is None else {"recordings": each} for each in (signed, arrives))
    bench = recorder()
    bench.feed(command("factory_reset", params=now, claims={"par": digest_of(was)}))
    assert answers(bench) == [("failed", "grant_invalid")]
    assert stored(bench) == ALL
    assert bench.device.state is State.ONLINE
    bench.feed(command("factory_reset", params=was))
    assert stored(bench) == ({} if signed == "wipe" else ALL)


@pytest.mark.parametrize("params", [{}, {"recordings": "wipe"}, {"recordings": "keep"}], ids=str)
def test_a_grant_that_does_not_cover_the_params_is_refused(params: dict[str, Any]) -> None:
    """Without `par` any client of the broker could choose them."""
    bench = recorder()
    bench.feed(command("factory_reset", params=params, claims={"par": None}))
    assert answers(bench) == [("failed", "grant_invalid")]
    assert stored(bench) == ALL


@pytest.mark.parametrize("value", ["erase", "", "WIPE", None, True, 0, ["wipe"], {"wipe": True}], ids=repr)
def test_an_unknown_choice_fails_and_wipes_nothing(value: object) -> None:
    """Signed all the same: `failed` with `invalid_params`, without `delivered`, and again when it comes again."""
    bench = recorder()
    reset = command("factory_reset", params={"recordings": value})
    bench.feed(reset)
    assert answers(bench) == [("failed", "invalid_params")]
    assert stored(bench) == ALL
    start_again(bench)
    bench.feed(reset)
    assert bench.payloads("ack") == [bench.payloads("ack")[0]] * 2
    assert bench.device.state is State.ONLINE
    assert [each["status"] for each in bench.flash.kept_area["last_commands"]] == ["failed"]


def test_other_commands_may_have_such_a_param() -> None:
    """Only a reset takes `recordings`."""
    bench = recorder()
    bench.feed(command("start_recording", params={"recordings": "any"}))
    assert answers(bench) == [("delivered", None), ("executed", None)]
