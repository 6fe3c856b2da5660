"""The firmware takes a new grant key that its own key announces, and no other."""

import json
from typing import Any

import pytest

from device_sim.actions import CommandReceived
from device_sim.binding import Binding
from device_sim.device import State
from tests.device_sim.firmware_bench import FirmwareBench, link_up, online_bench
from tests.device_sim.support import NOW, TOKEN, Signer, make_binding

OLD, NEW, THIRD = Signer(), Signer(b"n" * 32, "k2"), Signer(b"t" * 32, "k3")
STRANGER = Signer(b"s" * 32, "k9")
KEY = NEW.jwk


def announce(key: dict[str, Any], *, by: Signer, command_id: str = "cmd_key", **facts: Any) -> CommandReceived:
    """The command by which ``by`` announces a key."""
    return CommandReceived("set_grant_key", by.command("set_grant_key", command_id=command_id, params=key, **facts))


def upload(by: Signer, command_id: str, **facts: Any) -> CommandReceived:
    """Another command."""
    return CommandReceived("trigger_upload", by.command("trigger_upload", command_id=command_id, **facts))


def keys(bench: FirmwareBench) -> list[str]:
    """The keys in the flash, the newest first."""
    binding = Binding.from_flash(bench.flash.wiped_area)
    return [] if binding is None else [str(key["kid"]) for key in binding.grant_keys]


def said(bench: FirmwareBench) -> dict[str, Any]:
    """The newest acknowledgement."""
    newest: dict[str, Any] = json.loads(bench.payloads("ack")[-1])
    return newest


def outcome(bench: FirmwareBench) -> str:
    """``executed``, or the code of the refusal."""
    word = said(bench)
    return str(word["error"]["code"]) if word["status"] == "failed" else str(word["status"])


def test_both_keys_count_until_the_first_command_under_the_new_one() -> None:
    """The old one works as long as it is not known that the gateway signs with the new one, and no longer."""
    bench = online_bench(OLD)
    bench.feed(announce(NEW.jwk, by=OLD))
    assert (said(bench)["result"], keys(bench)) == ({"grant_kid": "k2"}, ["k2", "k1"])
    bench.feed(upload(OLD, "cmd_1"))
    assert (outcome(bench), keys(bench)) == ("executed", ["k2", "k1"])
    bench.feed(upload(NEW, "cmd_2", claims={"seq": 100}))
    assert (outcome(bench), keys(bench)) == ("executed", ["k2"])
    bench.feed(upload(OLD, "cmd_3", claims={"seq": 101}))
    assert outcome(bench) == "grant_invalid"
    assert said(bench)["result"] == {"grant_kid": "k2", "refused_kid": "k1"}


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        (upload(NEW, "cmd_1", expires_at=NOW - 1000), "expired"),
        (upload(NEW, "cmd_1", generation=2), "stale_generation"),
        (upload(NEW, "cmd_1", claims={"par": "AAAA"}), "grant_invalid"),
        (CommandReceived("trigger_upload", NEW.command("reboot", command_id="cmd_1")), "grant_invalid"),
    ],
)
def test_a_refused_command_under_the_new_key_drops_nothing(refused: CommandReceived, code: str) -> None:
    """Only a command that the device obeys shows that the gateway has moved on."""
    bench = online_bench(OLD)
    bench.feed(announce(NEW.jwk, by=OLD))
    bench.feed(refused)
    assert (outcome(bench), keys(bench)) == (code, ["k2", "k1"])


@pytest.mark.parametrize("by", [STRANGER, NEW])
def test_a_key_not_signed_by_an_own_key_is_refused(by: Signer) -> None:
    """Neither a stranger's, nor one that signs for itself."""
    bench = online_bench(OLD)
    bench.feed(announce(NEW.jwk, by=by))
    assert (outcome(bench), keys(bench)) == ("grant_invalid", ["k1"])
    assert said(bench)["result"] == {"grant_kid": "k1", "refused_kid": by.kid}
    assert "write:pairing" not in bench.steps


def test_params_of_another_key_are_refused() -> None:
    """``par`` binds the key: a broker cannot put its own into a command of the gateway."""
    bench = online_bench(OLD)
    payload = json.loads(announce(NEW.jwk, by=OLD).payload)
    payload["params"] = STRANGER.jwk
    bench.feed(CommandReceived("set_grant_key", json.dumps(payload).encode()))
    assert (outcome(bench), keys(bench)) == ("grant_invalid", ["k1"])


def test_an_earlier_announcement_does_not_restore_the_old_key() -> None:
    """Under the same key its number is too low; after the next key it is not signed by a key of the device."""
    bench = online_bench(OLD)
    earlier, later = announce(NEW.jwk, by=OLD, command_id="cmd_a"), announce(THIRD.jwk, by=OLD, command_id="cmd_b")
    bench.feed(later)
    bench.feed(earlier)
    assert (outcome(bench), keys(bench)) == ("stale_sequence", ["k3", "k1"])
    bench.feed(upload(THIRD, "cmd_1", claims={"seq": 100}))
    bench.feed(earlier)
    assert (outcome(bench), keys(bench)) == ("grant_invalid", ["k3"])


def test_a_repeated_announcement_writes_nothing() -> None:
    """It is known by its id: the same word, and no write."""
    bench = online_bench(OLD)
    command = announce(NEW.jwk, by=OLD)
    bench.feed(command)
    first = said(bench)
    bench.steps.clear()
    bench.feed(command)
    assert said(bench) == first
    assert not [step for step in bench.steps if step.startswith("write")]


@pytest.mark.parametrize(("key", "signer"), [(OLD.jwk, OLD), (NEW.jwk, OLD), (OLD.jwk, NEW)])
def test_a_known_key_is_not_added_again(key: dict[str, Any], signer: Signer) -> None:
    """Its own key, and the new one once more: done, and nothing is added."""
    bench = online_bench(OLD)
    bench.feed(announce(NEW.jwk, by=OLD))
    before = keys(bench)
    bench.feed(announce(key, by=signer, command_id="cmd_same", claims={"seq": 100}))
    assert outcome(bench) == "executed"
    assert set(keys(bench)) <= set(before) | {key["kid"]}
    bench.feed(upload(signer, "cmd_1", claims={"seq": 100}))
    assert outcome(bench) == "executed"


def test_the_confirmation_drops_the_old_key() -> None:
    """The new key announces itself: nothing to add, and from here on it counts alone."""
    bench = online_bench(OLD)
    bench.feed(announce(NEW.jwk, by=OLD))
    bench.feed(announce(NEW.jwk, by=NEW, command_id="cmd_confirm", claims={"seq": 100}))
    assert (said(bench)["result"], keys(bench)) == ({"grant_kid": "k2"}, ["k2"])
    assert "grant_key_dropped" in bench.facts


@pytest.mark.parametrize(
    "spoilt",
    [
        {},
        {**KEY, "kty": "EC"},
        {**KEY, "crv": "X25519"},
        {**KEY, "alg": "ES256"},
        {**KEY, "kid": ""},
        {**KEY, "kid": "k" * 65},
        {**KEY, "kid": 7},
        {**KEY, "x": KEY["x"][:-2]},
        {**KEY, "x": KEY["x"] + "="},
        {**KEY, "x": KEY["x"][:-1] + "?"},
        {**KEY, "x": "A" * 44},
        {**KEY, "x": None},
    ],
)
def test_invalid_keys_are_refused(spoilt: dict[str, Any]) -> None:
    """The gateway signed it, so the refusal is kept under the id; the device obeys the key that it has."""
    bench = online_bench(OLD)
    bench.feed(announce(spoilt, by=OLD))
    assert (outcome(bench), keys(bench)) == ("invalid_grant_key", ["k1"])
    bench.feed(upload(OLD, "cmd_1"))
    assert outcome(bench) == "executed"


@pytest.mark.parametrize("step", range(26))
def test_a_power_cut_at_any_step_ends_with_the_new_key(step: int) -> None:
    """The flash holds one key or both, whole, and the same commands in the same order come to the same end."""
    bench = online_bench(OLD)
    both = [announce(NEW.jwk, by=OLD), announce(NEW.jwk, by=NEW, command_id="cmd_confirm", claims={"seq": 100})]
    bench.power_for = step
    for command in both:
        for _ in range(2):
            bench.feed(command)
            assert keys(bench) in (["k1"], ["k2", "k1"], ["k2"])
            if bench.device.state is not State.ONLINE:
                link_up(bench)
    bench.power_for = None
    assert keys(bench) == ["k2"]
    bench.feed(upload(NEW, "cmd_1", claims={"seq": 100}))
    assert outcome(bench) == "executed"


@pytest.mark.parametrize("step", range(26))
def test_after_a_power_cut_the_old_key_is_still_obeyed(step: int) -> None:
    """After the announcement alone, wherever it was cut: the old key is obeyed, for a gateway that heard nothing."""
    bench = online_bench(OLD)
    bench.power_for = step
    bench.feed(announce(NEW.jwk, by=OLD))
    if bench.device.state is not State.ONLINE:
        link_up(bench)
    bench.power_for = None
    bench.feed(CommandReceived("factory_reset", OLD.command()))
    assert bench.device.state is State.UNPROVISIONED


def test_a_reset_wipes_both_keys() -> None:
    """They lie in the pairing, and a new binding starts with its own key alone."""
    bench = online_bench(OLD)
    bench.feed(announce(NEW.jwk, by=OLD))
    bench.feed(CommandReceived("factory_reset", NEW.command()))
    assert (bench.device.state, keys(bench)) == (State.UNPROVISIONED, [])
    assert "next_grant_key" not in make_binding(THIRD).pairing()


def test_a_flash_of_earlier_firmware_has_one_key() -> None:
    """And one of today is read by older firmware: the key that counts is where it was."""
    bench = online_bench(OLD)
    assert "next_grant_key" not in bench.flash.wiped_area["pairing"]
    bench.feed(announce(NEW.jwk, by=OLD))
    bench.feed(upload(NEW, "cmd_1"))
    assert bench.flash.wiped_area["pairing"]["grant_key"] == NEW.jwk
    assert bench.flash.wiped_area["device_token"] == TOKEN
