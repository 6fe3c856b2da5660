"""The firmware's rules, one by one, on the bench."""

import json
from typing import Any

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
    RefreshFailed,
    RefusalReceived,
    TokenRefreshed,
    WifiGiven,
)
from device_sim.binding import Binding, Endpoint
from device_sim.device import Device, State
from device_sim.flash import power_on
from tests.device_sim.firmware_bench import HOME, FirmwareBench, link_up, online_bench
from tests.device_sim.support import DEVICE_ID, NOW, TOKEN, Signer, make_binding, seeded
from tests.support.wrong_addresses import WRONG_ADDRESSES

SIGNER = Signer()
RESET = CommandReceived("factory_reset", SIGNER.command())


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
    bench = offline_bench(SIGNER)
    bench.feed(LinkRefused(3, "not authorised"))
    bench.feed(RefreshFailed("429", revoked=False))
    bench.feed(HeartbeatDue())
    assert bench.steps == [*("tell:refused", "refresh_token", "tell:token_not_refreshed", "refresh_token")]
    bench.steps.clear()
    assert bench.device.binding is not None
    bench.feed(TokenRefreshed("dtok_another", bench.device.binding.mqtt))
    assert bench.steps == ["write:device_token", "tell:token_refreshed", "open_link"]
    assert bench.flash.wiped_area["device_token"] == "dtok_another"
    assert bench.device.binding is not None
    assert bench.device.binding.device_token == "dtok_another"
    bench.steps.clear()
    bench.feed(HeartbeatDue())
    assert bench.steps == []


def test_a_device_that_was_moved_goes_to_its_new_broker() -> None:
    """The answer to a refresh names it; the flash has it before the device connects, and its topics stay."""
    bench = offline_bench(SIGNER)
    bench.feed(LinkRefused(3, "not authorised"))
    assert bench.device.binding is not None
    before = bench.device.binding.mqtt
    bench.steps.clear()
    bench.feed(TokenRefreshed("dtok_another", before.moved({"host": "b.example.net", "port": 8883, "tls": True})))
    assert bench.steps == ["write:device_token", "write:pairing", "tell:token_refreshed", "open_link"]
    kept = Binding.from_flash(bench.flash.wiped_area)
    assert kept is not None
    assert kept.mqtt == Endpoint("b.example.net", 8883, tls=True, topic_prefix=before.topic_prefix)
    assert before.moved({"password": "only"}) == before


@pytest.mark.parametrize("wrong", WRONG_ADDRESSES)
def test_a_refresh_that_names_no_broker_is_refused(wrong: dict[str, Any]) -> None:
    """With such a broker in its flash the device would find none again."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        Endpoint("a.example", 8883).moved({"host": "b.example", "port": 8883, "tls": True, **wrong})


def test_a_refresh_waits_as_long_as_the_gateway_asked() -> None:
    """Heartbeats that are due before that request nothing."""
    bench = offline_bench(SIGNER)
    bench.feed(LinkRefused(3, "not authorised"))
    bench.feed(RefreshFailed("429", revoked=False, retry_after=30))
    bench.steps.clear()
    bench.now += 29_999
    bench.feed(HeartbeatDue())
    assert bench.steps == []
    bench.now += 1
    bench.feed(HeartbeatDue())
    assert bench.steps == ["refresh_token"]


def test_a_refresh_of_a_revoked_token_is_requested_once() -> None:
    """Nor is another one taken that comes later than the end of the binding."""
    bench = offline_bench(SIGNER)
    bench.feed(LinkRefused(3, "not authorised"))
    bench.feed(RefreshFailed("401", revoked=True))
    bench.steps.clear()
    bench.feed(HeartbeatDue())
    bench.feed(LinkRefused(3, "unauthorized", "http"))
    assert bench.steps == ["tell:refused"]


def offline_bench(signer: Signer) -> FirmwareBench:
    """A bench whose device is provisioned, and its link down."""
    bench = online_bench(signer)
    bench.feed(LinkDown("the broker closed the connection"))
    bench.steps.clear()
    return bench


def test_the_binding_is_that_of_the_bind_answer() -> None:
    """The binding that a device lives by is the one of its bind answer."""
    bench = online_bench(SIGNER)
    assert bench.device.binding is not None
    assert bench.device.binding.device_id == DEVICE_ID
    assert TOKEN not in repr(bench.device.binding)
