"""Settings of a broker that asks the gateway: what they need of each other, and that no secret of theirs is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.broker.external.secret import shared_secret
from gateway.errors import UnavailableError
from gateway.settings.broker_api import BrokerApi
from gateway.settings.loading import SettingsError, load, plain, written

ASKING = {"broker": "mqtt://gateway:hush-1@b", "broker_auth": "127.0.0.1:0"}
API = "rabbitmq+http://adm%40in:h%2Fush-2@127.0.0.1:15672"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"broker_auth": "127.0.0.1:0"}, "broker_auth"),
        ({"broker_auth": "127.0.0.1:0", "broker": "mqtt://b"}, "broker_auth"),
        ({"broker_auth": "127.0.0.1:0", "broker": "mqtt://gateway@b"}, "broker_auth"),
        ({**ASKING, "mosquitto_password_file": "p"}, "broker_auth"),
        ({**ASKING, "broker_auth": "0.0.0.0:8081"}, "broker_auth"),
        ({**ASKING, "broker_auth": "8081"}, "broker_auth"),
        ({"broker_auth_secret_file": "s", "broker": "mqtt://b"}, "broker_auth_secret_file"),
        ({"broker_api_url": API, "broker": "mqtt://b"}, "broker_api_url"),
        ({**ASKING, "broker_api_url": "http://u:hush-2@h:1"}, "broker_api_url"),
        ({**ASKING, "broker_api_url": "nats+http://u:hush-2@h:1"}, "broker_api_url"),
        ({**ASKING, "broker_api_url": "emqx+http://h:1"}, "broker_api_url"),
        ({**ASKING, "broker_api_url": "emqx+http://u:hush-2@h"}, "broker_api_url"),
        ({**ASKING, "broker_api_url": "emqx+http://u:hush-2@h:1/api"}, "broker_api_url"),
        ({"home_assistant": "true", "publish_state": "false"}, "home_assistant"),
        ({"home_assistant": "true", "topic_prefix": "site/"}, "home_assistant_prefix"),
        ({"home_assistant_prefix": ""}, "home_assistant_prefix"),
        ({"home_assistant_prefix": "home/"}, "home_assistant_prefix"),
        ({"home_assistant_prefix": "home/#"}, "home_assistant_prefix"),
    ],
)
def test_conflicting_settings_are_refused(options: dict[str, object], name: str) -> None:
    """With the name of the one to change, what it needs, and without any secret."""
    with pytest.raises(SettingsError) as caught:
        load(options, {})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name}: ")
    assert "needs" in problem or "should be" in problem
    assert "hush" not in problem


def test_beyond_loopback_the_endpoint_needs_the_http_certificate() -> None:
    """Tokens must not cross a network in the clear."""
    given = {**ASKING, "broker_auth": "0.0.0.0:8081", "http_cert_file": "c", "http_key_file": "k"}
    assert str(load(given, {}).settings.broker_auth) == "0.0.0.0:8081"
    assert load({**ASKING, "broker_auth": "0.0.0.0:1", "insecure_listen": True}, {}).settings.broker_auth


def test_an_api_url_is_read_and_never_shows_its_secret() -> None:
    """User and password are percent-decoded for the connection, and masked wherever it is printed."""
    api = load({**ASKING, "broker_api_url": API}, {}).settings.broker_api_url
    assert isinstance(api, BrokerApi)
    assert (api.kind, api.base_url) == ("rabbitmq", "http://127.0.0.1:15672")
    assert (api.username.get_secret_value(), api.password.get_secret_value()) == ("adm@in", "h/ush-2")
    assert written(api) == plain(api) == "rabbitmq+http://adm%40in:********@127.0.0.1:15672"
    key = BrokerApi.parse("vernemq+https://key-of-api@[::1]:8888")
    assert (key.base_url, str(key)) == ("https://[::1]:8888", "vernemq+https://********@[::1]:8888")
    assert "ush-2" not in repr(api)
    assert "key-of-api" not in repr(key)


def test_the_shared_secret_is_created_once(tmp_path: Path) -> None:
    """Made when missing, readable by its owner alone, and the same at each start."""
    file = tmp_path / "secret"
    made = shared_secret(file)
    assert made == shared_secret(file)
    assert len(made) >= 32
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", ["", "short", "x" * 31, "x" * 20 + "/" + "x" * 20, "two words" * 9])
def test_a_weak_secret_is_refused(content: str, tmp_path: Path) -> None:
    """Too short, or not fit for a path: said with what to do, and without the secret."""
    file = tmp_path / "secret"
    file.write_text(content)
    with pytest.raises(UnavailableError, match="at least 32 letters"):
        shared_secret(file)
