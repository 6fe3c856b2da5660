"""What the firmware's state machine does with commands and heartbeats: lines of the checklist, one test each."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.device_sim.support import COMMAND_ID, DEVICE_ID, NOW, TOKEN, Signer
from tests.firmware.bench import Action, Board, acknowledged, board, written

FACTORY = {"serial_number": "SN1", "firmware_version": "1.4.2", "cellular_apn": None}
LINK_UP = ["link_up", "wifi", "mqtt"]


@pytest.fixture(name="device", scope="module")
def device_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """One process for all tests; each starts with a new flash."""
    with board(tmp_path_factory.mktemp("commands")) as device:
        yield device


def bind(signer: Signer, generation: int = 3, token: str = TOKEN) -> list[Any]:
    """What a companion app writes."""
    answer = {
        "id": DEVICE_ID,
        "binding_generation": generation,
        "device_token": token,
        "grant_key": signer.jwk,
        "mqtt": {"host": "h", "port": 1883, "topics": {"heartbeat": f"devices/{DEVICE_ID}/heartbeat"}},
    }
    return ["provisioned", answer, []]


def online(device: Board, signer: Signer) -> None:
    """A bound device with a link."""
    device.start({}, FACTORY)
    device.give(bind(signer), NOW)
    device.give(LINK_UP, NOW)
    assert device.state == "online"


def command(signer: Signer, kind: str, number: int, **more: Any) -> list[Any]:
    """A command that is signed now, after all before it."""
    expires_at = None if kind in {"factory_reset", "set_grant_key"} else NOW + 60_000
    more = {"expires_at": expires_at, "command_id": f"cmd_{number}", **more}
    return ["command", kind, signer.command(kind, **more).decode()]


def heartbeats(actions: list[Action]) -> list[dict[str, Any]]:
    """The heartbeats among the actions."""
    return [json.loads(action[2]) for action in actions if action[:2] == ["publish", "heartbeat"]]


def ids(actions: list[Action]) -> list[str]:
    """The ids of the acknowledged commands."""
    return [json.loads(action[2])["command_id"] for action in actions if action[:2] == ["publish", "ack"]]


@pytest.mark.checklist("C18", "C19")
def test_sent_at_rises_and_is_left_out_without_a_clock(device: Board) -> None:
    """Two heartbeats in one millisecond, and a clock that is set back, give later times; no clock gives none."""
    online(device, Signer())
    times = [heartbeats(device.give(["heartbeat_due"], now))[0]["sent_at"] for now in (NOW + 5, NOW + 5, NOW - 60_000)]
    assert times == ["2026-11-01T12:00:00.005Z", "2026-11-01T12:00:00.006Z", "2026-11-01T12:00:00.007Z"]
    assert "sent_at" not in heartbeats(device.give(["heartbeat_due"], None))[0]


@pytest.mark.checklist("C21")
def test_a_command_that_expires_needs_a_clock(device: Board) -> None:
    """It is refused without one, and obeyed with one: the refusal is not kept. A reset needs no clock."""
    signer = Signer()
    online(device, signer)
    upload = command(signer, "trigger_upload", 1)
    refused = device.give(upload, None)
    assert (acknowledged(refused), written(refused)) == ([("failed", "expired")], set())
    assert acknowledged(device.give(upload, NOW)) == [("delivered", None), ("executed", None)]
    assert acknowledged(device.give(command(signer, "factory_reset", 2), None)) == [("delivered", None)]


@pytest.mark.checklist("C21")
@pytest.mark.parametrize(
    ("apart", "answer"), [(-1000, "failed"), (-999, "executed"), (999, "executed"), (1000, "failed")]
)
def test_the_expiry_is_that_of_the_grant(device: Board, apart: int, answer: str) -> None:
    """The grant has whole seconds: less than one apart is the same time."""
    signer = Signer()
    online(device, signer)
    exp = NOW // 1000 + 60
    near = command(signer, "trigger_upload", 1, expires_at=exp * 1000 + apart, claims={"exp": exp})
    assert acknowledged(device.give(near, NOW))[-1][0] == answer


@pytest.mark.checklist("C20")
def test_an_empty_payload_drops_a_reset_that_has_not_started(device: Board) -> None:
    """The reset is withdrawn before its acknowledgement is confirmed: it never begins, and nothing is answered."""
    signer = Signer()
    online(device, signer)
    device.give(command(signer, "factory_reset", 1), NOW)
    assert acknowledged(device.give(["command", "factory_reset", ""], NOW)) == []
    assert device.give(["published", len(device.sent) - 1], NOW) == []
    assert device.state == "online"


@pytest.mark.checklist("C21", "C22")
def test_only_the_key_of_the_bind_is_obeyed(device: Board) -> None:
    """Another key, under another kid or under that of the gateway: `grant_invalid`, and nothing is fetched."""
    signer = Signer()
    online(device, signer)
    for stranger in (Signer(b"s" * 32, "strange"), Signer(b"s" * 32)):
        actions = device.give(command(stranger, "factory_reset", 1), NOW)
        assert acknowledged(actions) == [("failed", "grant_invalid")]
        assert {action[0] for action in actions} == {"tell", "publish"}


@pytest.mark.checklist("C23")
def test_params_that_differ_from_the_signed_ones_are_refused(device: Board) -> None:
    """They are refused; another form of the same params is not."""
    signer = Signer()
    online(device, signer)
    params = {"b": [1, "ü"], "a": None}
    changed = command(signer, "trigger_upload", 1, params=params, fields={"params": {**params, "b": [2, "ü"]}})
    assert acknowledged(device.give(changed, NOW)) == [("failed", "grant_invalid")]
    other_form = command(signer, "trigger_upload", 1, params=params, fields={"params": {"a": None, "b": [1.0, "ü"]}})
    assert acknowledged(device.give(other_form, NOW))[-1] == ("executed", None)


@pytest.mark.checklist("C24", "C25")
def test_no_earlier_command_after_a_later_one(device: Board) -> None:
    """Number and id go into the flash before anything else; the next binding starts without a number."""
    signer = Signer()
    online(device, signer)
    earlier, later = command(signer, "trigger_upload", 1), command(signer, "trigger_upload", 2)
    actions = device.give(later, NOW)
    assert [action[0] for action in actions][:3] == ["tell", "write", "publish"]
    assert actions[1][2:] == [
        "last_sequences",
        {"generation": 3, "last": {"trigger_upload": {"seq": 2, "id": "cmd_2"}}},
    ]
    refused = device.give(earlier, NOW)
    assert (acknowledged(refused), written(refused)) == ([("failed", "stale_sequence")], set())
    device.give(["local_reset"], NOW)
    device.give(bind(signer, generation=5), NOW)
    again = command(signer, "trigger_upload", 3, generation=5, claims={"seq": 1})
    assert acknowledged(device.give(again, NOW))[-1] == ("executed", None)


@pytest.mark.checklist("C26")
def test_only_the_own_generation_is_obeyed(device: Board) -> None:
    """An older command is refused and the refusal kept; one for a later binding is refused, and not kept."""
    signer = Signer()
    online(device, signer)
    old = device.give(command(signer, "factory_reset", 1, generation=2), NOW)
    assert (acknowledged(old), written(old)) == ([("failed", "stale_generation")], {"last_commands"})
    new = device.give(command(signer, "factory_reset", 2, generation=4), NOW)
    assert (acknowledged(new), written(new)) == ([("failed", "generation_mismatch")], set())


@pytest.mark.checklist("C27")
def test_a_known_id_is_answered_and_not_executed_again(device: Board) -> None:
    """The same bytes each time; sixteen ids are remembered, and always the last done one of a type."""
    signer = Signer()
    online(device, signer)
    first = command(signer, "start_recording", 0)
    done = device.give(first, NOW)[-1]
    uploads = [command(signer, "trigger_upload", number) for number in range(1, 20)]
    for upload in uploads:
        device.give(upload, NOW)
    for known in (first, uploads[-1], uploads[4]):
        actions = device.give(known, NOW)
        assert {action[0] for action in actions} == {"tell", "publish"}
        assert acknowledged(actions) == [("executed", None)]
    assert device.give(first, NOW)[-1] == done
    assert acknowledged(device.give(uploads[0], NOW)) == [("failed", "stale_sequence")]


@pytest.mark.checklist("C27")
def test_a_forged_message_uses_up_no_id(device: Board) -> None:
    """The real command is obeyed after a forgery under its id."""
    signer = Signer()
    online(device, signer)
    forged = command(Signer(b"f" * 32), "factory_reset", 1)
    assert acknowledged(device.give(forged, NOW)) == [("failed", "grant_invalid")]
    assert acknowledged(device.give(command(signer, "factory_reset", 1), NOW)) == [("delivered", None)]


@pytest.mark.checklist("C28")
def test_the_retain_flag_does_not_reach_the_state_machine(device: Board) -> None:
    """Its event of a command has a type and a payload: the second delivery is answered as the first one was."""
    signer = Signer()
    online(device, signer)
    upload = command(signer, "trigger_upload", 1)
    assert len(upload) == 3
    assert acknowledged(device.give(upload, NOW)) == [("delivered", None), ("executed", None)]
    assert acknowledged(device.give(upload, NOW)) == [("executed", None)]


def after_a_reset(device: Board) -> dict[str, Any]:
    """A device that was reset and bound again, not online yet; return the outcome that it reports."""
    signer = Signer()
    online(device, signer)
    device.give(command(signer, "factory_reset", 1, command_id=COMMAND_ID), NOW)
    device.give(["published", len(device.sent) - 1], NOW)
    device.give(["published", len(device.sent) - 1], NOW)
    assert device.state == "unprovisioned"
    word: dict[str, Any] = device.flash()[1]["last_command"]
    device.give(bind(signer, generation=5, token="dtok_next"), NOW)
    return word


@pytest.mark.checklist("C36")
def test_over_mqtt_the_outcome_is_in_the_heartbeats_1_2_4_8(device: Board) -> None:
    """Of each connection, confirmed or not, without a write; until the gateway refuses it on `errors`."""
    word = after_a_reset(device)
    for _ in range(2):
        beats = heartbeats(device.give(LINK_UP, NOW))
        for at in range(9):
            actions = device.give(["published", len(device.sent) - 1], NOW)
            actions += device.give(["heartbeat_due"], NOW + at)
            beats += heartbeats(actions)
            assert not written(actions)
        assert [at for at, beat in enumerate(beats, 1) if beat.get("last_command") == word] == [1, 2, 4, 8]
        device.give(["link_down", "cut"], NOW)
    device.give(["errors", json.dumps({"code": "unknown_command", "field": "last_command.command_id"})], NOW)
    assert "last_command" not in device.flash()[1]
    assert "last_command" not in heartbeats(device.give(LINK_UP, NOW))[0]


@pytest.mark.checklist("C36")
def test_over_http_the_outcome_is_sent_until_it_is_confirmed(device: Board) -> None:
    """In each heartbeat; the first 2xx erases it."""
    word = after_a_reset(device)
    beats = heartbeats(device.give(["link_up", "wifi", "http"], NOW))
    device.give(["publish_failed", len(device.sent) - 1, "503"], NOW)
    beats += heartbeats(device.give(["heartbeat_due"], NOW)) + heartbeats(device.give(["heartbeat_due"], NOW))
    assert [beat["last_command"] for beat in beats] == [word] * 3
    device.give(["published", len(device.sent) - 1], NOW)
    assert "last_command" not in device.flash()[1]


@pytest.mark.checklist("C37")
def test_a_new_key_stands_beside_the_old_one_until_it_signs(device: Board) -> None:
    """Both in one write; the first command under the new one drops the old one before anything is done."""
    old, new = Signer(), Signer(b"n" * 32, "k2")
    online(device, old)
    actions = device.give(command(old, "set_grant_key", 1, params=new.jwk), NOW)
    pairings = [action[3] for action in actions if action[:3] == ["write", "wiped", "pairing"]]
    assert [(each["grant_key"], each["next_grant_key"]) for each in pairings] == [(old.jwk, new.jwk)]
    assert acknowledged(actions) == [("delivered", None), ("executed", None)]
    assert json.loads(actions[-1][2])["result"] == {"grant_kid": "k2"}
    assert acknowledged(device.give(command(old, "trigger_upload", 2), NOW))[-1] == ("executed", None)
    actions = device.give(command(new, "trigger_upload", 3, claims={"seq": 9}), NOW)
    assert [action[2] for action in actions if action[0] == "write"][:2] == ["pairing", "last_sequences"]
    assert acknowledged(actions)[-1] == ("executed", None)
    assert "next_grant_key" not in device.flash()[0]["pairing"]
    late = command(old, "trigger_upload", 4, claims={"seq": 10})
    assert acknowledged(device.give(late, NOW)) == [("failed", "grant_invalid")]


@pytest.mark.checklist("C38")
def test_a_refused_signature_names_both_keys(device: Board) -> None:
    """The newest key of the device, and the one that the refused grant names; null where it names none."""
    online(device, Signer())
    strange = command(Signer(b"s" * 32, "strange"), "factory_reset", 1)
    unreadable = command(Signer(), "factory_reset", 2, fields={"grant_token": "x"})
    for refused, kid in ((strange, "strange"), (unreadable, None)):
        word = json.loads(device.give(refused, NOW)[-1][2])
        assert (word["error"]["code"], word["result"]) == ("grant_invalid", {"grant_kid": "k1", "refused_kid": kid})


def test_a_local_reset_wipes_and_reboots(device: Board) -> None:
    """The button was held: nothing is acknowledged, what was done is still known."""
    signer = Signer()
    online(device, signer)
    upload = command(signer, "trigger_upload", 1)
    device.give(upload, NOW)
    actions = device.give(["local_reset"], NOW)
    assert acknowledged(actions) == []
    assert (device.state, device.flash()[0]) == ("unprovisioned", {})
    assert set(device.flash()[1]) == {*FACTORY, "last_commands", "last_sequences"}
    assert ids(device.give(upload, NOW)) == ["cmd_1"]


@pytest.mark.parametrize("power_for", range(8))
def test_a_local_reset_is_finished_after_a_power_cut(device: Board, power_for: int) -> None:
    """Wherever the power goes once it has begun, the networks of the former owner do not stay."""
    online(device, Signer())
    actions = device.give(["local_reset"], NOW, power_for)
    has_begun = ["write", "kept", "reset_in_progress", {}] in actions
    assert (device.flash()[0] == {}) is has_begun
    assert "reset_in_progress" not in device.flash()[1]
    assert device.state == ("unprovisioned" if has_begun else "provisioned")
