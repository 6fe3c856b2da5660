"""Values of the settings: listeners, certificates, broker URLs, and secrets that are never printed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.addresses import Address, BrokerUrl
from gateway.settings.loading import (
    SettingsError,
    load,
    plain,
    written,
)
from tests.settings.support import problems

SECRET = "XQZW"  # letters that no message of ours holds


@pytest.mark.parametrize(
    "address", ["0.0.0.0:80", "[::]:80", "192.168.1.5:80", "gateway.lan:80", "[::ffff:127.0.0.1]:80"]
)
@pytest.mark.parametrize("name", ["http", "mqtt"])
def test_listening_beyond_loopback_needs_consent(name: str, address: str) -> None:
    """Without TLS keys and tokens could be read on the network, so an operator has to confirm that this is intended."""
    (problem,) = problems({name: address})
    assert problem.startswith(f"{name}: '{address}' (from option --{name}) should be a loopback address")
    assert "--insecure-listen" in problem
    assert f"{name}_cert_file" in problem
    load({name: address, "insecure_listen": True}, {})
    load({name: address, f"{name}_cert_file": "c.pem", f"{name}_key_file": "k.pem"}, {})


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"http_cert_file": "c"}, "http_cert_file: 'c' (from option --http-cert-file) needs http_key_file as well"),
        ({"mqtt_key_file": "k"}, "mqtt_key_file: 'k' (from option --mqtt-key-file) needs mqtt_cert_file as well"),
        (
            {"http_client_ca_file": "a"},
            "http_client_ca_file: 'a' (from option --http-client-ca-file) needs http_cert_file as well",
        ),
        (
            {"broker_cert_file": "c", "broker_key_file": "k"},
            "broker_cert_file: 'c' (from option --broker-cert-file) needs a broker with an mqtts:// URL",
        ),
        (
            {"broker": "mqtt://b", "mqtt_cert_file": "c", "mqtt_key_file": "k"},
            (
                "mqtt_cert_file: 'c' (from option --mqtt-cert-file) is for the gateway's own broker: give it to yours "
                "itself"
            ),
        ),
    ],
)
def test_half_a_certificate_is_refused(given: dict[str, object], says: str) -> None:
    """A certificate without its key, one that no listener shows, an authority that no connection uses."""
    assert problems(given) == [says]


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.9.9:80", "[::1]:80", "localhost:80"])
def test_listening_on_loopback_needs_no_consent(address: str) -> None:
    """All of 127/8, ::1 and localhost are this machine; a port 0 is fine."""
    assert str(load({"http": address}, {}).settings.http) == address


def test_an_unused_listener_gives_no_error() -> None:
    """With a broker of one's own the embedded listener does not start."""
    load({"mqtt": "0.0.0.0:1883", "broker": "mqtt://b"}, {})


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"broker_ca_file": "ca.pem"}, "broker_ca_file"),
        ({"broker_ca_file": "ca.pem", "broker": "mqtt://b"}, "broker_ca_file"),
        ({"mqtt_version": "5"}, "mqtt_version"),
        ({"mqtt_version": "5", "broker": "auto"}, "mqtt_version"),
        ({"mosquitto_password_file": "p", "broker": "mosquitto"}, "mosquitto_password_file"),
        (
            {"mqtt_client_ca_file": "a", "mqtt_cert_file": "c", "mqtt_key_file": "k", "broker": "mosquitto"},
            "mqtt_client_ca_file",
        ),
        ({"mqtt": "0.0.0.0:1883", "broker": "mosquitto"}, "mqtt"),
        ({"mqtt": "0.0.0.0:1883", "broker": "auto"}, "mqtt"),
        ({"mosquitto_password_file": "p"}, "mosquitto_password_file"),
        ({"mosquitto_pid_file": "p", "broker": "mqtt://b"}, "mosquitto_pid_file"),
        ({"mosquitto_devices": "100000", "broker": "mosquitto"}, "mosquitto_devices"),
    ],
)
def test_settings_without_effect_are_errors(options: dict[str, object], name: str) -> None:
    """What could not take effect is told at the start, with the name of the one to change."""
    (problem,) = problems(options)
    assert problem.startswith(f"{name}: ")
    assert "needs" in problem or "should be" in problem


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mqtt://h", BrokerUrl(Address("h", 1883), tls=False, username=None, password=None)),
        ("mqtts://h", BrokerUrl(Address("h", 8883), tls=True, username=None, password=None)),
        ("mqtt://u@[::1]:5/", BrokerUrl(Address("::1", 5), tls=False, username="u", password=None)),
    ],
)
def test_broker_urls_are_parsed(url: str, expected: BrokerUrl) -> None:
    """Scheme, port, user; the default ports are the registered ones."""
    assert load({"broker": url}, {}).settings.broker == expected


def test_broker_password_is_percent_decoded_and_hidden() -> None:
    """The password is for the connection alone."""
    broker = load({"broker": "mqtts://gate%40way:p%40ss%2Fword@h:1"}, {}).settings.broker
    assert isinstance(broker, BrokerUrl)
    assert broker.password is not None
    assert (broker.username, broker.password.get_secret_value()) == ("gate@way", "p@ss/word")
    assert str(broker) == "mqtts://gate%40way:********@h:1"


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://",
        "mqtt://h:0",
        "mqtt://h:",
        "mqtt://h:x",
        "mqtt://h/path",
        "mqtt://h?q=1",
        "mqtt:h",
        "h:1",
        "",
        "mqtt://a b",
        "mqtt://[h",
    ],
)
def test_invalid_broker_urls_are_refused(url: str) -> None:
    """Each is refused as a broker, whatever the parser of URLs made of it."""
    (problem,) = problems({"broker": url})
    assert problem.startswith("broker: ")


# Pieces of which passwords are made that break the parsing of URLs.
fragments = st.text(alphabet="ab1@/:#?%[]'\"\\ \t\n", max_size=6)


@settings(deadline=None)
@given(before=fragments, after=fragments, scheme=st.sampled_from(["mqtt://", "mqtts://", "http://", "//", ""]))
def test_no_password_is_ever_printed(before: str, after: str, scheme: str) -> None:
    """Right or wrong, in any URL: neither an error nor the settings, their text or their JSON show the password."""
    url = f"{scheme}user:{before}{SECRET}{after}@host:1883"
    try:
        loaded = load({"broker": url}, {})
    except SettingsError as error:
        assert SECRET not in repr(error) + error.message  # noqa: PT017 - both outcomes are fine, a leak is not
        return
    broker = loaded.settings.broker
    seen = [repr(loaded), str(loaded.settings), loaded.settings.model_dump_json(), written(broker), repr(broker)]
    assert SECRET not in json.dumps([*seen, plain(broker)])


@pytest.mark.parametrize("value", ["mqtt://u:XQZWpass@h:1", "sk_live_XQZW1234567890", "dtok_XQZW1234567890"])
def test_secret_in_the_wrong_setting_is_not_repeated(value: str) -> None:
    """Pasted into the wrong variable, it is still a secret."""
    (problem,) = problems({}, {"GATEWAY_HTTP": value})
    assert SECRET not in problem


def test_a_password_among_the_options_is_warned_about() -> None:
    """Others can read it there. It is not told; neither the environment nor a URL without one is warned about."""
    url = "mqtt://gateway:hush-1@127.0.0.1:1"
    (warning,) = load({"broker": url}, {}).warnings
    assert warning.startswith("option --broker holds a password")
    assert "GATEWAY_BROKER" in warning
    assert "hush" not in warning
    assert load({"broker": "mqtt://gateway@127.0.0.1:1"}, {}).warnings == ()
    assert load({}, {"GATEWAY_BROKER": url}).warnings == ()
    assert load({"broker": "embedded"}, {}).warnings == ()
