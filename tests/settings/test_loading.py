"""The settings: their sources and order, and the errors of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.core.addresses import Address
from gateway.settings.loading import (
    FIELDS,
    Loaded,
    Settings,
    load,
    option_name,
    variable_name,
    written,
)
from tests.settings.support import problems, toml


def test_defaults_are_valid_and_marked_as_defaults() -> None:
    """Nothing given: every default passes its own checks, and the source of each is the default."""
    loaded = load({}, {})
    assert loaded == Loaded(Settings(), dict.fromkeys(FIELDS, "default"))
    assert Settings.model_validate(dict(loaded.settings)) == loaded.settings


def test_every_default_can_be_written_in_the_environment() -> None:
    """What the help shows as default is what one would write: all of them given as text make the same settings."""
    environ = {variable_name(name): written(field.default) for name, field in FIELDS.items()}
    environ["GATEWAY_TOPIC_PREFIX"] = ""
    assert load({}, environ).settings == Settings()


def test_later_sources_win() -> None:
    """Default < file < environment < option, for each setting separately, with the source of each."""
    file = toml("mqtt_keepalive_seconds = 11\nrefusals_kept = 11\nevent_history_days = 11\n")
    environ = {"GATEWAY_REFUSALS_KEPT": "22", "GATEWAY_EVENT_HISTORY_DAYS": "22"}
    loaded = load({"event_history_days": "33", "refusals_kept": None}, environ, file)
    found = {
        name: (getattr(loaded.settings, name), loaded.sources[name])
        for name in ("heartbeat_history_days", "mqtt_keepalive_seconds", "refusals_kept", "event_history_days")
    }
    assert found == {
        "heartbeat_history_days": (30, "default"),
        "mqtt_keepalive_seconds": (11, "gateway.toml:mqtt_keepalive_seconds"),
        "refusals_kept": (22, "environment GATEWAY_REFUSALS_KEPT"),
        "event_history_days": (33, "option --event-history-days"),
    }
    assert loaded.config_file == file


def test_settings_are_frozen_and_closed() -> None:
    """Nothing changes a setting after it was read, and nothing adds one."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().http = Address("127.0.0.1", 1)
    with pytest.raises(ValidationError, match="htpp"):
        Settings.model_validate({"htpp": "127.0.0.1:1"})


@pytest.mark.parametrize("options", [{}, {"data_dir": "other"}], ids=["default", "option"])
def test_file_in_the_data_directory_is_read(options: dict[str, object]) -> None:
    """Without --config and GATEWAY_CONFIG, gateway.toml in the data directory counts, wherever that is."""
    file = toml('log_level = "debug"', f"{options.get('data_dir', 'gateway-data')}/gateway.toml")
    loaded = load(options, {})
    assert (loaded.settings.log_level, loaded.config_file and loaded.config_file.absolute()) == ("debug", file)


def test_file_in_the_data_directory_cannot_move_it() -> None:
    """A data_dir in the file that was found by way of data_dir would contradict itself."""
    toml('data_dir = "elsewhere"', "gateway-data/gateway.toml")
    assert problems({}) == [
        "gateway-data/gateway.toml: data_dir can't be set in the file that was found in the data directory"
    ]


def test_option_config_overrides_the_variable() -> None:
    """--config names the file, else GATEWAY_CONFIG, and then the data directory's own is not read."""
    toml("refusals_kept = 1", "gateway-data/gateway.toml")
    first, second = toml("refusals_kept = 2", "a.toml"), toml("refusals_kept = 3", "b.toml")
    environ = {"GATEWAY_CONFIG": str(first)}
    assert load({}, environ).settings.refusals_kept == 2
    assert load({}, environ, second).sources["refusals_kept"] == "b.toml:refusals_kept"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        ("http = ", "should be a readable TOML file: Invalid value (at end of document)"),
        (b"\xff", "should be a readable TOML file: 'utf-8' codec"),
    ],
)
def test_an_unreadable_file_is_an_error(content: str | bytes | None, says: str) -> None:
    """A file that was named must be there and be TOML; the error names it."""
    file = Path("named.toml").absolute()
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    (problem,) = problems({}, {}, file)
    assert problem.startswith(f"{file}: {says}")


def test_relative_paths_in_a_relative_file_are_relative_to_it() -> None:
    """So a file means the same wherever the command is run; absolute paths and none stay what they are."""
    file = toml(
        'data_dir = "data"\nbroker = "mqtts://b"\nbroker_ca_file = "/etc/ca.pem"\nmosquitto_pid_file = "none"\n',
        "etc/gateway.toml",
    )
    settings = load({}, {}, file).settings
    assert (settings.data_dir, settings.broker_ca_file) == (file.parent / "data", Path("/etc/ca.pem"))
    assert settings.mosquitto_pid_file is None


def test_toml_types_are_accepted() -> None:
    """TOML's own types are taken: lists, numbers, yes and no, MQTT version 5 without quotes."""
    file = toml(
        'models = ["a", "b"]\nmqtt_version = 5\ninsecure_listen = true\n'
        'broker = "mqtt://b"\noffline_grace_seconds = 1\n'
    )
    settings = load({}, {}, file).settings
    assert (settings.models, settings.mqtt_version, settings.insecure_listen) == (("a", "b"), "5", True)
    assert settings.offline_grace_seconds == 1


def test_unknown_key_in_the_file_is_an_error() -> None:
    """It names the file and what may have been meant."""
    file = toml("htpp = 1\nwholly_different = 2\n")
    assert problems({}, {}, file) == [
        f"{file}: 'htpp' is not a setting; did you mean http?",
        f"{file}: 'wholly_different' is not a setting",
    ]


def test_unknown_variable_is_a_warning() -> None:
    """Kubernetes may set it; variables of the clients, and unrelated ones, are not mentioned."""
    environ = {"GATEWAY_HTPP": "x", "GATEWAY_URL": "u", "GATEWAY_API_KEY": "k", "GATEWAY_CONFIG": "", "PATH": "p"}
    expected = "environment GATEWAY_HTPP is not a setting and has no effect; did you mean GATEWAY_HTTP?"
    assert load({}, environ).warnings == (expected,)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("http", "localhost", "'localhost' (from {}) should be HOST:PORT, for example 127.0.0.1:8080"),
        (
            "http",
            "h:99999",
            "'h:99999' (from {}) should be HOST:PORT, for example 127.0.0.1:8080, with a port from 0 to 65535",
        ),
        ("mqtt_advertise", "0.0.0.0:1883", "should be a HOST:PORT that devices can connect to, or none"),
        ("mqtt_keepalive_seconds", "4", "'4' (from {}) should be a whole number from 5 to 3600"),
        ("mqtt_keepalive_seconds", "9.5", "'9.5' (from {}) should be a whole number from 5 to 3600"),
        ("shutdown_seconds", "nan", "'nan' (from {}) should be a number from 0.1 to 300"),
        ("log_format", "xml", "'xml' (from {}) should be one of auto, console, json"),
        ("mqtt_version", "4", "'4' (from {}) should be one of auto, 5, 3.1.1"),
        ("insecure_listen", "perhaps", "'perhaps' (from {}) should be one of true, false"),
        ("mqtt_tls_advertise", "perhaps", "'perhaps' (from {}) should be one of true, false, none"),
        (
            "topic_prefix",
            "site1",
            "should be empty or levels of letters, digits, _ . - each ending with /, for example site1/",
        ),
        ("gateway_id", "a b", "should be 1 to 64 letters, digits or _, or none to have one made at the first start"),
        (
            "models",
            "a,,b",
            "should be names of letters, digits, _ . - with commas between, for example bota_pin,bota_note",
        ),
        ("models", "a,a", "should be 1 to 100 names, each once"),
        ("data_dir", "", "'' (from {}) should be a path"),
        (
            "broker",
            "http://h:1",
            "'********' (from {}) should be embedded, mosquitto, auto or mqtt[s]://USER:PASSWORD@HOST:PORT",
        ),
        (
            "broker",
            "foo",
            "'foo' (from {}) should be embedded, mosquitto, auto or mqtt[s]://USER:PASSWORD@HOST:PORT",
        ),
    ],
)
def test_a_wrong_value_is_named_with_source_and_expectation(name: str, value: str, says: str) -> None:
    """The same sentence for the environment and the option, but for the source."""
    (from_option,) = problems({name: value})
    assert from_option.startswith(f"{name}: ")
    assert says.format(f"option {option_name(name)}") in from_option
    (from_environment,) = problems({}, {variable_name(name): value})
    assert says.format(f"environment {variable_name(name)}") in from_environment


@pytest.mark.parametrize(
    "line",
    [
        "http = 1",
        "refusals_kept = true",
        "log_level = []",
        "models = [1]",
        "data_dir = 5",
        'data_dir = "a\\u0000b"',
        "topic_prefix = false",
        "gateway_id = 7",
        "broker = {}",
        "[mqtt]\nhost = 1",
    ],
)
def test_a_wrong_type_in_toml_is_an_error(line: str) -> None:
    """A number, list or table where text belongs is refused with a sentence, never with a crash; true is not 1."""
    name = line.removeprefix("[").split("]")[0].split(" ")[0]
    (problem,) = problems({}, {}, toml(line))
    assert f"(from gateway.toml:{name}) should be " in problem


def test_all_problems_are_reported_at_once() -> None:
    """One run tells everything that is wrong, from whatever source."""
    file = toml("refusals_kept = -1")
    told = problems({"http": "x"}, {"GATEWAY_LOG_LEVEL": "loud"}, file)
    assert [problem.split(":")[0] for problem in told] == ["http", "refusals_kept", "log_level"]


def test_booleans_may_be_in_capitals() -> None:
    """As the environment often has them."""
    settings = load({}, {"GATEWAY_LOG_LEVEL": "DEBUG", "GATEWAY_INSECURE_LISTEN": "TRUE"}).settings
    assert (settings.log_level, settings.insecure_listen) == ("debug", True)


def test_paths_in_a_file_are_relative_to_it() -> None:
    """All that are paths: the certificates too."""
    file = toml('http_cert_file = "tls/c.pem"\nhttp_key_file = "/etc/k.pem"')
    settings = load({}, {}, file).settings
    assert (settings.http_cert_file, settings.http_key_file) == (file.parent / "tls/c.pem", Path("/etc/k.pem"))
