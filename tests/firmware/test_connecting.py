"""How the firmware connects: every packet, seen by a proxy between it and the real broker of a gateway."""

import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.support import Site, running_site
from tests.firmware.device import FirmwareDevice, powered
from tests.firmware.micropython import SCRIPTS, said
from tests.firmware.proxy import WatchingProxy, provision_through
from tests.support.proxy import Direction
from tests.support.wait import eventually
from tests.support.wire import Kind

pytestmark = pytest.mark.asyncio(loop_scope="module")

OFFLINE, ONLINE = b'{"status":"offline"}', b'{"status":"online"}'
RARE = 60


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A gateway with the embedded broker, whose topics have a prefix, and which shows at once who is offline."""
    options = ("--topic-prefix", "ward/7/", "--offline-grace-seconds", "0")
    async with running_site(tmp_path_factory.mktemp("site"), "embedded", *options) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(site: Site) -> AsyncIterator[WatchingProxy]:
    """What stands between device and broker."""
    async with WatchingProxy(site) as between:
        yield between


def fields(body: bytes) -> list[bytes]:
    """The length-prefixed fields of a CONNECT after its variable header."""
    found, at = [], 10
    while at < len(body):
        (length,) = struct.unpack_from("!H", body, at)
        found.append(body[at + 2 : at + 2 + length])
        at += 2 + length
    return found


def subscriptions(body: bytes) -> dict[str, int]:
    """Topic filter and QoS of a SUBSCRIBE."""
    found, at = {}, 2
    while at < len(body):
        (length,) = struct.unpack_from("!H", body, at)
        found[body[at + 2 : at + 2 + length].decode()] = body[at + 2 + length]
        at += 3 + length
    return found


@pytest.mark.checklist("C2", "C5", "C6", "C7", "C8", "C9", "C11", "C14", "C18")
async def test_the_first_packets_of_a_connection(site: Site, proxy: WatchingProxy, tmp_path: Path) -> None:
    """CONNECT with a persistent session and a will, SUBSCRIBE by full names, after its SUBACK online, a heartbeat."""
    device = FirmwareDevice(tmp_path / "device", "SN-FIRST")
    async with powered(device):
        answer = await provision_through(proxy, site, device)
        await device.fact("sent", kind="heartbeat")
    topics, device_id = answer["mqtt"]["topics"], answer["id"]

    connect = proxy.of(Kind.CONNECT)[0].packet.body
    flags, keepalive = connect[7], struct.unpack_from("!H", connect, 8)[0]
    assert (connect[:7], flags) == (b"\x00\x04MQTT\x04", 0b11101100)  # 3.1.1; clean session off, retained will, QoS 1
    assert 30 <= keepalive <= 60
    password = answer["mqtt"]["password"].encode()
    assert fields(connect) == [device_id.encode(), topics["status"].encode(), OFFLINE, device_id.encode(), password]
    assert answer["device_token"].encode() not in connect

    subscribed = subscriptions(proxy.of(Kind.SUBSCRIBE)[0].packet.body)
    assert subscribed.pop(topics["errors"]) == 0
    assert set(subscribed.values()) == {1}
    missing = set(topics["commands"].values()) ^ set(subscribed)
    assert missing <= {topics["commands"]["set_grant_key"]}  # firmware need not know this command
    order = [str(each) for each in proxy.seen if each.packet.kind != Kind.PUBACK]
    assert order[:5] == ["CONNECT", "CONNACK", "SUBSCRIBE", "SUBACK", "PUBLISH to server"]
    online, heartbeat = proxy.messages(Direction.SERVER)[:2]
    assert (online.topic, online.payload, online.qos, online.retain) == (topics["status"], ONLINE, 1, True)
    assert (heartbeat.topic, heartbeat.qos, heartbeat.retain) == (topics["heartbeat"], 1, False)


@pytest.mark.checklist("C5", "C8")
async def test_a_device_subscribes_again_although_its_session_is_present(
    site: Site, proxy: WatchingProxy, tmp_path: Path
) -> None:
    """A power cut has the broker publish the will; it keeps the session, and the device does everything again."""
    device = FirmwareDevice(tmp_path / "device", "SN-AGAIN")
    async with powered(device):
        answer = await provision_through(proxy, site, device)
        await device.fact("sent", kind="heartbeat")
        await eventually(lambda: connection(site, answer["id"], "online"), "it is online")
    await eventually(lambda: connection(site, answer["id"], "offline"), "the broker publishes the will")
    async with powered(device):
        await device.fact("sent", kind="status")
    second = proxy.of(Kind.CONNACK)[1].packet
    assert second.body == b"\x01\x00"  # session present
    first, again = proxy.of(Kind.SUBSCRIBE)
    assert subscriptions(first.packet.body) == subscriptions(again.packet.body)
    published = min(each.at for each in proxy.of(Kind.PUBLISH) if each.at > again.at)
    assert again.at < proxy.of(Kind.SUBACK)[1].at < published


async def connection(site: Site, device_id: str, wanted: str) -> bool:
    """Whether the gateway shows this connection."""
    shown: str = (await site.get(device_id))["connection"]
    return shown == wanted


@pytest.mark.checklist("C10")
async def test_a_device_goes_offline_cleanly(site: Site, proxy: WatchingProxy, tmp_path: Path) -> None:
    """Before it stops it publishes `offline`, has the PUBACK, then sends DISCONNECT."""
    device = FirmwareDevice(tmp_path / "device", "SN-CLEAN", heartbeat_seconds=RARE)
    async with powered(device):
        answer = await provision_through(proxy, site, device)
        await device.fact("sent", kind="heartbeat")
        await eventually(lambda: connection(site, answer["id"], "online"), "it is online")
        await device.switch_off()
    assert [str(each) for each in proxy.seen[-3:]] == ["PUBLISH to server", "PUBACK to client", "DISCONNECT"]
    last = proxy.messages(Direction.SERVER)[-1]
    status = answer["mqtt"]["topics"]["status"]
    assert (last.topic, last.payload, last.qos, last.retain) == (status, OFFLINE, 1, True)
    await eventually(lambda: connection(site, answer["id"], "offline"), "the gateway shows it as offline")


@pytest.mark.checklist("C7")
async def test_pings_are_sent_and_a_silent_broker_is_disconnected(
    site: Site, proxy: WatchingProxy, tmp_path: Path
) -> None:
    """Within the keepalive it sends something; without an answer it connects again."""
    device = FirmwareDevice(tmp_path / "device", "SN-PING", heartbeat_seconds=RARE, keepalive_seconds=1)
    async with powered(device):
        await provision_through(proxy, site, device)
        await eventually(lambda: len(proxy.of(Kind.PINGRESP)) > 1, "it pings, again and again")
        proxy.stall()
        told = await device.fact("offline")
        assert "PINGREQ" in told["reason"]
        proxy.resume()
        await device.fact("online", count=2)


@pytest.mark.checklist("C15")
@pytest.mark.parametrize("when", ["before CONNACK", "after online"])
async def test_pauses_between_connects_grow(site: Site, proxy: WatchingProxy, tmp_path: Path, when: str) -> None:
    """They double with each failure; a link that is cut right after it came up is a failure, too."""
    device = FirmwareDevice(tmp_path / "device", f"SN-{when[:6]}", backoff_first_ms=100, backoff_longest_ms=800)
    kind = Kind.CONNECT if when == "before CONNACK" else Kind.SUBACK
    proxy.cut_after = lambda each: each.packet.kind == kind
    async with powered(device):
        await provision_through(proxy, site, device)
        await eventually(lambda: len(proxy.of(Kind.CONNECT)) == 6, "it connects six times")
    cuts = proxy.of(kind)
    pauses = [after.at - cut.at for cut, after in zip(cuts, proxy.of(Kind.CONNECT)[1:], strict=False)]
    least = [0.05, 0.1, 0.2, 0.4, 0.4]
    assert all(pause >= bound for pause, bound in zip(pauses, least, strict=True)), pauses


@pytest.mark.checklist("C15")
async def test_pauses_are_random_and_bounded(tmp_path: Path) -> None:
    """Between half of the doubled pause and all of it; a link that held starts again from the first."""
    lines = [json.loads(line) for line in said(SCRIPTS / "pauses.py", tmp_path / "flash")]
    ceilings = [500, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000]
    for ceiling, drawn in zip(ceilings, lines[0], strict=True):
        assert all(ceiling // 2 <= each <= ceiling for each in drawn)
        assert len(set(drawn)) > len(drawn) // 2
    held, refused = lines[1:]
    assert 250 <= held <= 500
    assert 150_000 <= refused <= 300_000


@pytest.mark.checklist("C32", "C33")
async def test_a_reset_ends_although_the_session_is_cut_before_the_last_puback(
    site: Site, proxy: WatchingProxy, tmp_path: Path
) -> None:
    """The normal end of a reset: `executed` goes over the session of `delivered`, and nothing is connected again."""
    device = FirmwareDevice(tmp_path / "device", "SN-CUT", heartbeat_seconds=RARE)
    async with powered(device):
        answer = await provision_through(proxy, site, device)
        await device.fact("sent", kind="heartbeat")
        proxy.cut_after = lambda each: each.towards is Direction.SERVER and b'"executed"' in each.packet.body
        await site.reset(answer["id"])
        await device.fact("acknowledgement_lost")
        await device.fact("powered_on", pairing="unpaired", count=2)
        await site.becomes(answer["id"], "executed")
        assert (await device.ask(do="info"))["state"] == "unprovisioned"
    assert len(proxy.of(Kind.CONNECT)) == 1
    words = [each for each in proxy.messages(Direction.SERVER) if each.topic.endswith("/ack")]
    assert [b'"delivered"' in words[0].payload, b'"executed"' in words[1].payload] == [True, True]


@pytest.mark.checklist("C28")
async def test_a_command_is_executed_with_and_without_the_retain_flag(
    site: Site, proxy: WatchingProxy, tmp_path: Path
) -> None:
    """Without it while the device is connected, with it at the next connect, maybe beside the session's own copy."""
    device = FirmwareDevice(tmp_path / "device", "SN-FLAG", heartbeat_seconds=RARE)
    async with powered(device):
        device_id = (await provision_through(proxy, site, device))["id"]
        await device.fact("sent", kind="heartbeat")
        await site.post(f"{device_id}/commands", {"type": "start_recording"}, status=201)
        await site.becomes(device_id, "executed")
        await device.switch_off()
    await site.post(f"{device_id}/commands", {"type": "trigger_upload"}, status=201)
    async with powered(device):
        await site.becomes(device_id, "executed")
    arrived = [each for each in proxy.messages(Direction.CLIENT) if each.payload]
    flags = {(each.topic.rpartition("/")[2], each.retain) for each in arrived}
    assert flags >= {("start_recording", False), ("trigger_upload", True)}
    received = [each["type"] for each in device.facts("command_received", ever=True)]
    assert received == ["start_recording", "trigger_upload"]


@pytest.mark.checklist("C29")
async def test_the_wipe_waits_for_the_puback_of_delivered(site: Site, proxy: WatchingProxy, tmp_path: Path) -> None:
    """The reset waits until the broker has `delivered`; the command arrives again and is executed then."""
    device = FirmwareDevice(tmp_path / "device", "SN-WAIT", heartbeat_seconds=RARE)
    async with powered(device):
        answer = await provision_through(proxy, site, device)
        await device.fact("sent", kind="heartbeat")
        cuts: list[object] = []

        def at_first_delivered(each: object) -> bool:
            if not cuts and b'"delivered"' in each.packet.body and each.towards is Direction.SERVER:  # type: ignore[attr-defined]
                cuts.append(each)
                return True
            return False

        proxy.cut_after = at_first_delivered
        await site.reset(answer["id"])
        await device.fact("reset_postponed")
        assert device.stored("wiped")["device_token"] == answer["device_token"]
        await site.becomes(answer["id"], "executed")
        await device.fact("powered_on", pairing="unpaired", count=2)
    assert len(cuts) == 1
