"""Settings of a device: merged, checked, and stored as far as they differ from the defaults."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequestError
from gateway.models.device_settings import DeviceSettings, changed, difference, merge, with_defaults
from gateway.store import device_sql
from tests.domain.support import World

DEFAULTS = with_defaults({})


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A registry with one project."""
    with World(tmp_path) as opened:
        yield opened


def stored(world: World, device_id: str) -> dict[str, Any]:
    """The settings as they lie in the registry."""
    found: dict[str, Any] = json.loads(world.device(device_id).settings)
    return found


# --- settings ---------------------------------------------------------------------------------------------------------


def test_settings_are_merged_deeply_and_kept_as_far_as_they_differ(world: World) -> None:
    """What is set back to its default is not kept; off-peak hours too are merged, once they are there."""
    device_id = world.register()
    world.update(device_id, settings={"audio": {"bitrate_kbps": 64}, "power": {"auto_sleep_minutes": 5}})
    world.update(device_id, settings={"audio": {"codec": "wav", "bitrate_kbps": 32}})
    assert stored(world, device_id) == {"audio": {"codec": "wav"}, "power": {"auto_sleep_minutes": 5}}
    world.update(device_id, settings={"upload": {"off_peak_hours": {"start": "22:00", "end": "06:00"}}})
    world.update(device_id, settings={"upload": {"off_peak_hours": {"end": "05:30"}}})
    assert stored(world, device_id)["upload"] == {
        "off_peak_hours": {"enabled": True, "start": "22:00", "end": "05:30", "timezone": None}
    }
    assert world.facts()["settings"] == {"upload": {"off_peak_hours": {"end": "05:30"}}}
    world.update(device_id, settings={"upload": {"off_peak_hours": None}})
    assert "upload" not in stored(world, device_id)
    assert world.facts()["settings"] == {"upload": {"off_peak_hours": None}}


def test_off_peak_hours_can_be_switched_off_and_have_a_zone(world: World) -> None:
    """Both may be left out; hours that were stored before there were such fields read as if they had been given."""
    device_id = world.register()
    hours: dict[str, Any] = {"enabled": False, "start": "22:00", "end": "06:00", "timezone": "Europe/Berlin"}
    world.update(device_id, settings={"upload": {"off_peak_hours": hours}})
    assert shown_hours(world, device_id) == hours
    world.update(device_id, settings={"upload": {"off_peak_hours": {"enabled": True, "timezone": None}}})
    assert shown_hours(world, device_id) == hours | {"enabled": True, "timezone": None}
    old = '{"upload":{"off_peak_hours":{"start":"22:00","end":"06:00"}}}'
    world.run(lambda tx: tx.run("UPDATE devices SET settings = ? WHERE id = ?", old, device_id))
    assert shown_hours(world, device_id) == hours | {"enabled": True, "timezone": None}
    before = world.device(device_id).updated_at
    world.now += 1
    world.update(device_id, settings={"upload": {"off_peak_hours": {"enabled": False}}})
    assert shown_hours(world, device_id) == hours | {"timezone": None}
    assert world.device(device_id).updated_at > before


def shown_hours(world: World, device_id: str) -> Any:
    """Off-peak hours as the API shows them."""
    return device_sql.to_model(world.device(device_id)).settings["upload"]["off_peak_hours"]


@pytest.mark.parametrize("seconds", [-1, 0, 10, 2540])
def test_idle_timeouts_take_minus_one_for_never_too(world: World, seconds: int) -> None:
    """As some clients send it; it is shown as it was given."""
    device_id = world.register()
    change = {"power_management": {"wifi_idle_timeout_seconds": seconds, "cellular_idle_timeout_seconds": seconds}}
    world.update(device_id, settings={"connection": change})
    shown = device_sql.to_model(world.device(device_id)).settings["connection"]
    assert {"power_management": shown["power_management"]} == change


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"audio": {"bitrate_kbps": 7}}, "settings.audio.bitrate_kbps", "greater than or equal to 8"),
        ({"audio": {"bitrate_kbps": "64"}}, "settings.audio.bitrate_kbps", "should be a valid integer"),
        ({"audio": {"bitrate_kbps": None}}, "settings.audio.bitrate_kbps", "should be a valid integer"),
        ({"audio": {"bitrate_kbps": True}}, "settings.audio.bitrate_kbps", "should be a valid integer"),
        ({"audio": {"sample_rate_khz": 44}}, "settings.audio.sample_rate_khz", "16, 24 or 48"),
        ({"audio": {"volume": 1}}, "settings.audio.volume", "unknown field"),
        ({"audio": None}, "settings.audio", "should be"),
        ({"sound": {}}, "settings.sound", "unknown field"),
        ({"upload": {"off_peak_hours": {"start": "22:00"}}}, "settings.upload.off_peak_hours.end", "is missing"),
        (
            {"upload": {"off_peak_hours": {"start": "24:00", "end": "06:00"}}},
            "settings.upload.off_peak_hours.start",
            "should match",
        ),
        (
            {"connection": {"power_management": {"wifi_idle_timeout_seconds": 5}}},
            "settings.connection.power_management.wifi_idle_timeout_seconds",
            "0 or -1 (never) or 10 to 2540 seconds",
        ),
        (
            {"connection": {"power_management": {"cellular_idle_timeout_seconds": -2}}},
            "settings.connection.power_management.cellular_idle_timeout_seconds",
            "0 or -1 (never) or 10 to 2540 seconds",
        ),
        *(
            (
                {"upload": {"off_peak_hours": {"start": "22:00", "end": "06:00", "timezone": zone}}},
                "settings.upload.off_peak_hours.timezone",
                "IANA time zone database, such as Europe/Berlin",
            )
            for zone in ("Europe/Nowhere", "europe/berlin", "", "../Europe/Berlin", "/etc/passwd", "Europe", "+02:00")
        ),
        (
            {"connection": {"upload_network_preference": ["wifi", "wifi"]}},
            "settings.connection.upload_network_preference",
            "each network once",
        ),
        (
            {"connection": {"upload_network_preference": ["wifi", "lora"]}},
            "settings.connection.upload_network_preference.1",
            "should be 'wifi', 'ble' or 'cellular'",
        ),
    ],
)
def test_wrong_settings_are_refused_by_their_dotted_name(
    world: World, change: dict[str, Any], field: str, message: str
) -> None:
    """400 that names the field and what it should be."""
    device_id = world.register()
    with pytest.raises(InvalidRequestError) as refusal:
        world.update(device_id, settings=change)
    assert refusal.value.details["field"] == field
    assert refusal.value.message.startswith(f"{field}: ")
    assert message in refusal.value.message


def test_the_low_battery_threshold_follows_the_settings(world: World) -> None:
    """A heartbeat at 30 percent is no low battery by default, and is one at a threshold of 40."""
    device_id, _ = world.bound()
    world.beat(device_id, battery_percent=30)
    assert "device.low_battery" not in world.events()
    world.update(device_id, settings={"power": {"low_battery_threshold_percent": 40}})
    world.beat(device_id, battery_percent=30)
    assert world.events()[-1] == "device.low_battery"


IDLE = st.one_of(st.just(0), st.just(-1), st.integers(10, 2540))
CLOCK = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59))


LEAVES: dict[tuple[str, ...], st.SearchStrategy[Any]] = {
    ("connection", "enabled_connections", "wifi"): st.booleans(),
    ("connection", "enabled_connections", "cellular"): st.booleans(),
    ("connection", "upload_network_preference"): st.lists(st.sampled_from(["wifi", "ble", "cellular"]), unique=True),
    ("connection", "power_management", "wifi_idle_timeout_seconds"): IDLE,
    ("connection", "power_management", "cellular_idle_timeout_seconds"): IDLE,
    ("upload", "streaming_enabled"): st.booleans(),
    ("upload", "streaming_chunk_kb"): st.integers(64, 1024),
    ("upload", "daily_data_limit_mb"): st.integers(0, 1_000_000),
    ("upload", "off_peak_hours"): st.none()
    | st.fixed_dictionaries(
        {
            "enabled": st.booleans(),
            "start": CLOCK,
            "end": CLOCK,
            "timezone": st.sampled_from([None, "UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"]),
        }
    ),
    ("audio", "codec"): st.sampled_from(["opus", "aac", "wav"]),
    ("audio", "sample_rate_khz"): st.sampled_from([16, 24, 48]),
    ("audio", "bitrate_kbps"): st.integers(8, 320),
    ("power", "low_battery_threshold_percent"): st.integers(0, 100),
}


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    return {path[0]: value if len(path) == 1 else _nested(path[1:], value)}


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    """A change of any part of the settings to anything that is allowed."""
    change: dict[str, Any] = {}
    for path in draw(st.lists(st.sampled_from(sorted(LEAVES)), unique=True)):
        change = merge(change, _nested(path, draw(LEAVES[path])))
    return change


@given(history=st.lists(changes(), max_size=4))
def test_settings_are_merged(history: list[dict[str, Any]]) -> None:
    """Whatever was changed before, each leaf has the last value given, or its default. Again changes nothing."""
    kept: dict[str, Any] = {}
    for change in history:
        kept = changed(kept, change)
        assert changed(kept, change) == kept
    answered = with_defaults(kept)
    assert DeviceSettings.model_validate(answered).model_dump(mode="json") == answered
    assert kept == difference(DEFAULTS, answered)
    for path in LEAVES:
        expected = _leaf(DEFAULTS, path)
        for change in history:
            expected = _leaf(change, path, expected)
        assert _leaf(answered, path) == expected


def _leaf(document: dict[str, Any], path: tuple[str, ...], otherwise: Any = None) -> Any:
    for name in path:
        if name not in document:
            return otherwise
        document = document[name]
    return document


@given(first=changes(), second=changes())
def test_merging_a_difference_restores_the_original(first: dict[str, Any], second: dict[str, Any]) -> None:
    """``merge(a, difference(a, b)) == b`` for settings in full, and the difference of one from itself is empty."""
    one, other = with_defaults(changed({}, first)), with_defaults(changed({}, second))
    assert merge(one, difference(one, other)) == other
    assert difference(one, one) == {}
