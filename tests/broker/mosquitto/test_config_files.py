"""The rendered files: what they may hold, and the limits they set on a real broker."""

import os
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

import broker_config
from gateway.broker.mosquitto import managed
from gateway.settings.loading import load
from tests.support.mosquitto import Mosquitto, MosquittoError
from tests.support.ports import EPHEMERAL_START, FIRST_PORT, free_port
from tests.support.wait import eventually
from tests.support.wire import Kind, Wire, publish_packet

A = "dev_A"
B = "dev_B"
USERS = {A: "token-of-A", B: "token-of-B"}
HEARTBEAT = f"devices/{A}/heartbeat"


def test_no_placeholder_is_left_in_the_files(tmp_path: Path) -> None:
    """No placeholder is left, and the paths, the port and the prefix are where they were given."""
    rendered = broker_config.render(tmp_path / "b", port=1883, host="::1", prefix="plant/7/", user="broker")
    config, acl = rendered.config.read_text(), rendered.acl.read_text()
    assert "{{" not in config + acl
    for line in (
        "listener 1883 ::1",
        f"password_file {rendered.password_file}",
        f"acl_file {rendered.acl}",
        "user broker",
    ):
        assert line in config.splitlines()
    assert "pattern write plant/7/devices/%u/heartbeat" in acl.splitlines()
    assert rendered.persistence_dir.is_dir()


@pytest.mark.parametrize(
    ("devices", "seconds", "messages", "mebibytes"),
    [(0, 5, 100_000, 64), (25_000, 5, 100_000, 64), (100_000, 20, 200_000, 195), (1_000_000, 200, 400_000, 390)],
)
def test_limits_rise_with_the_fleet(tmp_path: Path, devices: int, seconds: int, messages: int, mebibytes: int) -> None:
    """A save serves no client meanwhile: it takes a hundredth of the time. A queue holds the states of all devices."""
    settings = load({"data_dir": str(tmp_path), "mqtt": "127.0.0.1:0"}, {}).settings
    config = managed.prepared(settings, None, devices).files.config.read_text().splitlines()
    assert f"autosave_interval {seconds}" in config
    assert f"max_queued_messages {messages}" in config
    (queue,) = [int(line.split()[1]) for line in config if line.startswith("max_queued_bytes")]
    assert queue >> 20 == mebibytes


@pytest.mark.parametrize(("devices", "gibibytes"), [(0, 1.0), (100_000, 1.0), (200_000, 1.5), (1_000_000, 5.3)])
def test_memory_limit_rises_with_the_fleet(tmp_path: Path, devices: int, gibibytes: float) -> None:
    """Mosquitto 2.1, or one without the plugin, does not start with a store that is larger: 2.9 GB were measured."""
    rendered = broker_config.render(tmp_path / "b", port=1883, devices=devices)
    (line,) = [line for line in rendered.config.read_text().splitlines() if line.startswith("memory_limit")]
    assert round(int(line.split()[1]) / (1 << 30), 1) == gibibytes


def test_a_large_store_is_not_read_into_memory(tmp_path: Path) -> None:
    """As root the gateway hands the store over to Mosquitto's user, whatever its size."""
    settings = load({"data_dir": str(tmp_path), "mqtt": "127.0.0.1:0"}, {}).settings
    store = managed.store_of(managed.prepared(settings, None, 0))
    store.touch()
    os.truncate(store, 64 << 20)
    tracemalloc.start()
    try:
        managed.prepared(settings, None, 0)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_file_paths_can_be_chosen(tmp_path: Path) -> None:
    """Password file, pid file and persistence are taken from where an administrator wants them."""
    rendered = broker_config.render(
        tmp_path,
        port=1883,
        password_file=tmp_path / "shared" / "passwords",
        pid_file=tmp_path / "run" / "pid",
        persistence_dir=tmp_path / "var",
    )
    paths = (rendered.password_file, rendered.pid_file, rendered.persistence_dir)
    assert all(str(path) in rendered.config.read_text() for path in paths)
    assert rendered.persistence_dir.is_dir()


def test_a_certificate_enables_tls(tmp_path: Path) -> None:
    """Chain and key are named, and an authority for clients where every client is to show a certificate."""
    tls = broker_config.Tls(tmp_path / "c.pem", tmp_path / "c.key")
    lines = broker_config.render(tmp_path, port=8883, tls=tls).config.read_text().splitlines()
    assert {f"certfile {tls.chain}", f"keyfile {tls.key}"} < set(lines)
    assert not [each for each in lines if each.startswith(("cafile", "require_certificate"))]
    serve_auth_endpoint = replace(tls, client_authority=tmp_path / "ca.pem")
    lines = broker_config.render(tmp_path, port=8883, tls=serve_auth_endpoint).config.read_text().splitlines()
    assert {f"cafile {tmp_path}/ca.pem", "require_certificate true"} < set(lines)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tls": broker_config.Tls(Path("/c\nallow_anonymous true"), Path("/k"))}, "certfile: "),
        ({"port": 0}, "port: 0 should be 1 to 65535"),
        ({"port": 65_536}, "port: 65536 should be"),
        ({"host": "0.0.0.0\nallow_anonymous true"}, "host: .* should be an address"),
        ({"prefix": "plant"}, "prefix: 'plant' should be empty, or levels"),
        ({"prefix": "+/"}, "prefix: "),
        ({"prefix": "%u/"}, "prefix: "),
        ({"prefix": "a/\nuser x\n"}, "prefix: "),
        ({"user": "root\n"}, "user: "),
        ({"password_file": Path("/a\nallow_anonymous true")}, "password_file: "),
        ({"pid_file": Path("/run/pid ")}, "pid_file: "),
    ],
)
def test_values_that_would_inject_configuration_are_refused(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    """A line break, a wildcard or a pattern in a value would be another rule; nothing is written then."""
    with pytest.raises(broker_config.BrokerConfigError, match=message):
        broker_config.render(tmp_path / "b", **{"port": 1883, **values})  # type: ignore[arg-type]
    assert not (tmp_path / "b").exists()


def test_session_expiry_is_never_set() -> None:
    """Mosquitto 2.0 with that line crashes after SIGHUPs (docs/mosquitto.md)."""
    assert not re.search(r"^persistent_client_expiration", broker_config.template("mosquitto.conf"), re.MULTILINE)


async def test_gateway_may_hold_many_messages_unacknowledged(tmp_path: Path) -> None:
    """A commit can hold hundreds of heartbeats: far more than Mosquitto's default of 20 are in flight at once."""
    async with (
        Mosquitto(tmp_path, users=USERS) as broker,
        broker.client("gateway") as gateway,
        broker.client(A) as device,
    ):
        await gateway.subscribe(HEARTBEAT)
        await _pipeline(device, 500)
        assert [(await gateway.read_publish()).payload for _ in range(500)] == _numbers(500)


async def test_the_queue_for_an_offline_gateway_is_large(tmp_path: Path) -> None:
    """Its persistent session takes more than Mosquitto's default of 1,000, in order, and over a restart too."""
    async with Mosquitto(tmp_path, users=USERS) as broker:
        async with broker.client("gateway", clean=False) as gateway:
            await gateway.subscribe(HEARTBEAT)
            await gateway.disconnect()
        async with broker.client(A) as device:
            await _pipeline(device, 3_000)
        await broker.restart()
        async with broker.client("gateway", clean=False) as gateway:
            for expected in _numbers(3_000):
                message = await gateway.read_publish()
                assert message.payload == expected
                await gateway.acknowledge(message)


async def test_oversized_heartbeat_reaches_the_gateway(tmp_path: Path) -> None:
    """Beyond 64 KiB the gateway refuses and answers, so the broker must let that much through."""
    async with (
        Mosquitto(tmp_path, users=USERS) as broker,
        broker.client("gateway") as gateway,
        broker.client(A) as device,
    ):
        await gateway.subscribe(HEARTBEAT)
        await device.publish(HEARTBEAT, bytes(100_000))
        assert len((await gateway.read_publish()).payload) == 100_000


async def test_packet_beyond_the_limit_ends_its_connection_only(tmp_path: Path) -> None:
    """1 MiB closes the connection at its first bytes, long before all of it was sent; others stay."""
    async with Mosquitto(tmp_path, users=USERS) as broker, broker.client(B) as other, broker.client(A) as device:
        await device.send(publish_packet(HEARTBEAT, bytes(1 << 20)).encode()[:100])
        assert await device.closed() == []
        await other.ping()
        async with broker.client(A) as again:
            await again.ping()


async def test_retained_command_survives_a_restart(tmp_path: Path) -> None:
    """It is saved at the stop and handed out by the next start: the broker still knows that its source may write it."""
    topic = f"devices/{A}/commands/factory_reset"
    async with Mosquitto(tmp_path, users=USERS) as broker:
        async with broker.client("gateway") as gateway:
            await gateway.publish(topic, b"wipe", retain=True)
        await broker.restart()
        async with broker.client(A) as device:
            await device.subscribe(topic)
            assert (await device.read_publish()).retain


async def test_retained_command_is_saved_within_seconds(tmp_path: Path) -> None:
    """A `kill -9` after the autosave costs nothing: the command is there again."""
    topic = f"devices/{A}/commands/factory_reset"
    async with Mosquitto(tmp_path, users=USERS) as broker:
        async with broker.client("gateway") as gateway:
            await gateway.publish(topic, b"wipe", retain=True)
            database = broker.files.persistence_dir / "mosquitto.db"
            await eventually(lambda: database.exists() and b"wipe" in database.read_bytes(), "the command was saved")
        await broker.kill()
        await broker.start()
        async with broker.client(A) as device:
            await device.subscribe(topic)
            assert (await device.read_publish()).payload == b"wipe"


async def test_harness_forgets_what_a_lost_disk_forgets(tmp_path: Path) -> None:
    """`restart(forget_retained=True)` keeps port and users, and loses retained messages."""
    topic = f"devices/{A}/commands/factory_reset"
    async with Mosquitto(tmp_path, users=USERS) as broker:
        port, pid = broker.port, broker.pid
        async with broker.client("gateway") as gateway:
            await gateway.publish(topic, b"wipe", retain=True)
        await broker.restart(forget_retained=True)
        assert broker.port == port
        assert broker.pid != pid
        async with broker.client(A) as device:
            await device.subscribe(topic)
            await device.ping()
            assert not device.inbox


async def test_harness_says_why_a_broker_does_not_start(tmp_path: Path) -> None:
    """A broken configuration fails the test at once, with the broker's own words."""
    with pytest.raises(MosquittoError, match="no_such_setting"):
        async with Mosquitto(tmp_path, settings="no_such_setting 1"):
            pass


async def test_a_wait_that_fails_names_its_condition() -> None:
    """The failure names what was waited for and the last value seen."""
    with pytest.raises(AssertionError, match=r"did not come to pass that pigs fly \(last seen: 0\)"):
        await eventually(lambda: 0, "pigs fly", guard_seconds=0.05)


def test_default_ports_are_below_the_ephemeral_range() -> None:
    """The kernel hands out ports from 32768 on to clients; a broker there would collide with one."""
    assert FIRST_PORT <= free_port() < EPHEMERAL_START == 32_768


def _numbers(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


async def _pipeline(device: Wire, count: int) -> None:
    """Publish `count` numbered heartbeats at once, then take their acknowledgements."""
    await device.send(
        *(publish_packet(HEARTBEAT, text, packet_id=number + 1) for number, text in enumerate(_numbers(count)))
    )
    for _ in range(count):
        assert (await device.read_packet()).kind == Kind.PUBACK
