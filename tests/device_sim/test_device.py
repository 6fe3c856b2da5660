"""The firmware's rules, one by one, on the bench."""

import json

import pytest

from device_sim import wire
from device_sim.actions import (
    CommandReceived,
    HeartbeatDue,
    Input,
    LinkDown,
    LinkRefused,
    LinkUp,
    PowerOn,
    Provisioned,
    Publish,
    Published,
    PublishFailed,
    RefreshFailed,
    RefusalReceived,
    TokenRefreshed,
    WifiGiven,
)
from device_sim.device import Device, State
from device_sim.flash import power_on
from device_sim.journal import MAX_OUTCOMES
from tests.device_sim.firmware_bench import HOME, FirmwareBench, link_up, online_bench
from tests.device_sim.support import COMMAND_ID, DEVICE_ID, NOW, TOKEN, Signer, make_binding, seeded

SIGNER = Signer()
RESET = CommandReceived("factory_reset", SIGNER.command())


def failed_with(bench: FirmwareBench) -> list[str]:
    """The error code of every `failed` that was published."""
    bodies = [json.loads(payload) for payload in bench.payloads("ack")]
    return [body["error"]["code"] for body in bodies if body["status"] == "failed"]


# --- states -----------------------------------------------------------------------------------------------------------


def test_a_device_goes_through_its_life_cycle() -> None:
    """Unprovisioned, provisioned, online, resetting, rebooting, unprovisioned: in this order and no other."""
    device = Device(seeded())
    seen = [device.state]

    def feed(event: Input) -> list[Publish]:
        actions = device.handle(event, NOW)
        if device.state is not seen[-1]:
            seen.append(device.state)
        return [each for each in actions if isinstance(each, Publish)]

    feed(PowerOn({}, {}))
    feed(Provisioned(make_binding(SIGNER)))
    feed(LinkUp("wifi", "mqtt"))
    [delivered] = feed(RESET)
    [executed] = feed(Published(delivered))
    feed(Published(executed))
    feed(PowerOn({}, {}))
    assert [str(each) for each in seen] == [
        "rebooting",
        "unprovisioned",
        "provisioned",
        "online",
        "resetting",
        "rebooting",
        "unprovisioned",
    ]


@pytest.mark.parametrize(
    "event",
    [
        RESET,
        HeartbeatDue(),
        LinkUp("wifi", "mqtt"),
        LinkDown("x"),
        Provisioned(make_binding(SIGNER)),
        WifiGiven("a", "b"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_without_power_every_input_is_ignored(event: Input) -> None:
    """Before its first power-on, and while it reboots, nothing reaches a device."""
    assert Device(seeded()).handle(event, NOW) == []


def test_the_binding_survives_a_restart() -> None:
    """What was provisioned comes up again by itself, over the same radio."""
    bench = online_bench(SIGNER)
    bench.device = Device(seeded())
    bench.feed(power_on(bench.flash))
    assert bench.device.state is State.PROVISIONED
    assert bench.opened == ["wifi", "wifi"]
    assert bench.device.binding == make_binding(SIGNER)


def test_a_paired_device_refuses_another_binding() -> None:
    """A paired device takes no other binding; it has to be reset first."""
    bench = online_bench(SIGNER)
    bench.feed(Provisioned(make_binding(SIGNER, generation=5)))
    assert bench.facts == ["provisioning_refused"]
    assert bench.device.binding == make_binding(SIGNER)


@pytest.mark.parametrize("actions", range(5))
def test_a_power_cut_during_provisioning_leaves_it_unpaired_or_paired(actions: int) -> None:
    """A binding that was written in part does not count; written whole it is good."""
    bench = FirmwareBench()
    bench.feed(power_on(bench.flash))
    bench.power_for = actions
    bench.feed(Provisioned(make_binding(SIGNER), (HOME,)))
    whole = "device_token" in bench.flash.wiped_area
    assert whole == (actions >= 3)
    assert bench.device.state is (State.PROVISIONED if whole else State.UNPROVISIONED)
    bench.feed(Provisioned(make_binding(SIGNER), (HOME,)))
    assert bench.device.state is State.PROVISIONED


# --- link and heartbeats ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("connection", "flag"), [("wifi", 8), ("4g", 16), ("ble", 0)])
def test_the_connection_follows_from_the_flash(connection: str, flag: int) -> None:
    """A known network means WiFi, a modem means cellular, neither means BLE; heartbeats say which."""
    bench = online_bench(SIGNER, connection=connection)
    bench.feed(HeartbeatDue())
    [heartbeat] = [json.loads(each) for each in bench.payloads("heartbeat")]
    assert bench.opened == [connection]
    assert heartbeat["connection_type"] == [connection]
    assert heartbeat["flags"] & 24 == flag


def test_online_is_published_before_the_first_heartbeat() -> None:
    """Over MQTT a link begins with the retained birth and a heartbeat."""
    bench = online_bench(SIGNER)
    bench.feed(LinkDown("x"))
    bench.sent.clear()
    link_up(bench)
    assert [each.kind for each in bench.sent] == ["status", "heartbeat"]
    assert bench.sent[0].payload == wire.ONLINE


def test_over_ble_no_status_is_published() -> None:
    """A companion app relays heartbeats and nothing else."""
    bench = online_bench(SIGNER, connection="ble")
    bench.feed(LinkDown("x"))
    link_up(bench)
    assert {each.kind for each in bench.sent} == {"heartbeat"}


def test_an_offline_device_sends_nothing() -> None:
    """Without a link no heartbeat is made, so that none is late."""
    bench = online_bench(SIGNER)
    bench.feed(LinkDown("x"))
    bench.sent.clear()
    bench.feed(HeartbeatDue())
    assert bench.sent == []
    assert bench.device.state is State.PROVISIONED


def test_heartbeats_have_different_times() -> None:
    """Heartbeats of one millisecond would look like one that was replayed."""
    bench = online_bench(SIGNER)
    for _ in range(3):
        bench.feed(HeartbeatDue())
    bench.now -= 5_000
    bench.feed(HeartbeatDue())
    times = [json.loads(each)["sent_at"] for each in bench.payloads("heartbeat")]
    assert len(set(times)) == 4
    assert times == sorted(times)


def test_telemetry_follows_the_seed() -> None:
    """The same seed and the same clock make the same heartbeats; another seed makes others."""

    def week(seed: int) -> list[bytes]:
        bench = FirmwareBench(device=Device(seeded(seed)))
        bench.feed(PowerOn({}, {}))
        bench.feed(Provisioned(make_binding(SIGNER), (HOME,)))
        link_up(bench)
        for _ in range(7 * 24):
            bench.now += 3_600_000
            bench.feed(HeartbeatDue())
        return bench.payloads("heartbeat")

    assert week(1) == week(1) != week(2)
    levels = {json.loads(each)["battery_percent"] for each in week(1)}
    assert min(levels) < 20
    assert max(levels) <= 100


def test_wifi_can_be_added_later() -> None:
    """A BLE-only device that is given a network comes up over WiFi, now and after a restart."""
    bench = online_bench(SIGNER, connection="ble")
    bench.feed(WifiGiven("home", "secret"))
    assert bench.opened[-1] == "wifi"
    link_up(bench)
    assert bench.device.state is State.ONLINE
    bench.device = Device(seeded())
    bench.feed(power_on(bench.flash))
    assert bench.opened[-1] == "wifi"


def test_wifi_for_an_unpaired_device_is_refused() -> None:
    """An unpaired device takes no network."""
    bench = FirmwareBench()
    bench.feed(PowerOn({}, {}))
    bench.feed(WifiGiven("home", "secret"))
    assert bench.facts[-1] == "wifi_refused"
    assert not bench.flash.wiped_area


def test_refusals_are_reported_as_facts() -> None:
    """What the far end refuses is told and changes nothing."""
    bench = online_bench(SIGNER)
    bench.feed(LinkRefused(3, "not authorised"))
    bench.feed(RefusalReceived(b'{"code":"invalid_request"}'))
    assert bench.facts == ["refused", "message_refused"]
    assert bench.device.state is State.ONLINE


def test_a_refused_token_is_exchanged_over_http() -> None:
    """With each heartbeat that is due it asks for another; that one goes to the flash before it connects with it."""
    bench = away(SIGNER)
    bench.feed(LinkRefused(3, "not authorised"))
    bench.feed(RefreshFailed("429", revoked=False))
    bench.feed(HeartbeatDue())
    assert bench.steps == [*("tell:refused", "refresh_token", "tell:token_not_refreshed", "refresh_token")]
    bench.steps.clear()
    bench.feed(TokenRefreshed("dtok_another"))
    assert bench.steps == ["write:device_token", "tell:token_refreshed", "open_link"]
    assert bench.flash.wiped_area["device_token"] == "dtok_another"
    assert bench.device.binding is not None
    assert bench.device.binding.device_token == "dtok_another"
    bench.steps.clear()
    bench.feed(HeartbeatDue())
    assert bench.steps == []


def test_a_refresh_of_a_revoked_token_is_requested_once() -> None:
    """Nor is another one taken that comes later than the end of the binding."""
    bench = away(SIGNER)
    bench.feed(LinkRefused(3, "not authorised"))
    bench.feed(RefreshFailed("401", revoked=True))
    bench.steps.clear()
    bench.feed(HeartbeatDue())
    bench.feed(LinkRefused(3, "unauthorized", "http"))
    assert bench.steps == ["tell:refused"]


def away(signer: Signer) -> FirmwareBench:
    """A bench whose device is provisioned, and its link down."""
    bench = online_bench(signer)
    bench.feed(LinkDown("the broker closed the connection"))
    bench.steps.clear()
    return bench


# --- commands ---------------------------------------------------------------------------------------------------------


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


def test_the_binding_is_that_of_the_bind_answer() -> None:
    """The binding that a device lives by is the one of its bind answer."""
    bench = online_bench(SIGNER)
    assert bench.device.binding is not None
    assert bench.device.binding.device_id == DEVICE_ID
    assert TOKEN not in repr(bench.device.binding)


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
