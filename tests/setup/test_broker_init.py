"""`gateway broker init`: the set is complete, fits together, and no change of an operator is lost."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from broker_config.sizes import DEFAULT_DEVICES
from gateway.broker.mosquitto.password_entries import kept_entries, own_entry
from gateway.core.addresses import BrokerUrl
from gateway.errors import InvalidRequestError
from gateway.settings.loading import load
from gateway.setup.broker_init import initialise
from gateway.setup.options import InitOptions
from gateway.tls.ca import Authority, Pair
from gateway.tls.certificates import client_context
from tests.setup.support import CONFIG, EVERYWHERE, ME, SETTINGS, contents, init, lines, password
from tests.support.certificates import expired, make_authority


def test_the_written_files_match_each_other(tmp_path: Path) -> None:
    """The gateway's settings name what Mosquitto's configuration names; no placeholder is left anywhere."""
    outcome = init(tmp_path / "site", port=8884, host=EVERYWHERE, names=("gateway.lan", "10.0.0.7"), prefix="plant/")
    directory = outcome.site.directory
    assert set(outcome.files.values()) == {"written"}
    assert not [name for name, content in contents(directory).items() if b"{{" in content]
    settings, config = load({}, {}, directory / SETTINGS).settings, lines(directory / CONFIG)
    assert f"password_file {settings.mosquitto_password_file}" in config
    assert f"pid_file {settings.mosquitto_pid_file}" in config
    assert "listener 8884 0.0.0.0" in config
    assert "topic read plant/gateways/#" in lines(directory / "mosquitto/acl")
    assert (str(settings.mqtt_advertise), settings.topic_prefix) == ("gateway.lan:8884", "plant/")
    assert isinstance(settings.broker, BrokerUrl)
    assert (str(settings.broker.address), settings.broker.tls) == ("127.0.0.1:8884", True)
    client_context(settings.broker_ca_file, directory / "mosquitto/server.pem", directory / "mosquitto/server.pem")


def test_the_passwords_work_and_are_stored_nowhere_else(tmp_path: Path) -> None:
    """Each has its entry; in the clear they stand in the file of accounts, and the gateway's in its settings."""
    directory = init(tmp_path / "site").site.directory
    entries = kept_entries(directory / "passwords/passwords")
    for name, files in (("gateway", {"accounts", SETTINGS}), ("integrator", {"accounts"})):
        secret = password(directory, name)
        assert own_entry(secret, entries[name]) == entries[name]
        assert {path for path, content in contents(directory).items() if secret.encode() in content} == files
    assert stat.S_IMODE((directory / "accounts").stat().st_mode) == 0o600


@pytest.mark.parametrize("tls", ["trial", "none"])
def test_a_repeated_run_changes_nothing(tmp_path: Path, tls: str) -> None:
    """Not a byte, and with no option given those of the first time count."""
    first = init(tmp_path / "site", tls=tls, port=8885, http="127.0.0.1:8086")
    before = contents(first.site.directory)
    again = initialise(tmp_path / "site", InitOptions())
    assert set(again.files.values()) == {"unchanged"}
    assert (again.site.listen.port, again.site.tls, again.new_accounts) == (8885, tls, False)
    assert contents(first.site.directory) == before


def test_a_changed_option_updates_the_dependent_files(tmp_path: Path) -> None:
    """And nothing else."""
    init(tmp_path / "site", tls="none")
    again = initialise(tmp_path / "site", InitOptions(port=1999))
    assert {name for name, state in again.files.items() if state == "updated"} == {CONFIG, SETTINGS}
    assert "listener 1999 127.0.0.1" in lines(tmp_path / "site" / CONFIG)


def test_files_changed_by_hand_are_kept(tmp_path: Path) -> None:
    """It is said, and what would be new lies beside it; by force it is overwritten, and lies beside what is there."""
    init(tmp_path / "site")
    file = tmp_path / "site" / CONFIG
    changed = file.read_text() + "max_connections 5\n"
    file.write_text(changed)
    assert initialise(tmp_path / "site", InitOptions()).files[CONFIG] == "kept"
    assert not file.with_name("mosquitto.conf.new").exists(), "there is nothing new"
    assert initialise(tmp_path / "site", InitOptions(port=8889)).files[CONFIG] == "kept"
    assert file.read_text() == changed
    assert "listener 8889 127.0.0.1" in lines(file.with_name("mosquitto.conf.new"))
    assert initialise(tmp_path / "site", InitOptions(), force=True).files[CONFIG] == "replaced"
    assert "listener 8889 127.0.0.1" in lines(file)
    assert file.with_name("mosquitto.conf.old").read_text() == changed


def test_files_of_another_origin_are_not_overwritten(tmp_path: Path) -> None:
    """A mosquitto.conf that was there before the first time counts as changed."""
    file = tmp_path / "site" / CONFIG
    file.parent.mkdir(parents=True)
    file.write_text("listener 1883\n")
    assert init(tmp_path / "site").files[CONFIG] == "kept"
    assert file.read_text() == "listener 1883\n"


def test_the_password_file_is_the_gateways(tmp_path: Path) -> None:
    """Devices that are in it stay in it, whatever is written again."""
    init(tmp_path / "site")
    file = tmp_path / "site" / "passwords" / "passwords"
    file.write_text(file.read_text() + "dev_A:$6$entry\n")
    assert init(tmp_path / "site", port=8889, force=True).files["passwords/passwords"] == "unchanged"
    assert "dev_A:$6$entry" in lines(file)


def test_stored_passwords_can_be_deleted(tmp_path: Path) -> None:
    """Without the file of accounts the gateway keeps its password, and the integrator's is not made again."""
    directory = init(tmp_path / "site").site.directory
    secret = password(directory, "gateway")
    (directory / "accounts").unlink()
    again = initialise(directory, InitOptions(port=8889))
    assert (again.new_accounts, (directory / "accounts").exists()) == (False, False)
    assert secret in (directory / SETTINGS).read_text()


# --- certificates -----------------------------------------------------------------------------------------------------


def _shown(directory: Path) -> bytes:
    return (directory / "mosquitto/server.pem").read_bytes()


def test_a_certificate_that_ends_soon_is_renewed(tmp_path: Path) -> None:
    """By the same authority, so that no client has to change; another name renews it too."""
    directory = init(tmp_path / "site").site.directory
    first, authority = _shown(directory), Authority(directory / "authority")
    file = directory / "mosquitto/server.pem"
    expired(authority, Pair(file, file))
    assert initialise(directory, InitOptions()).files["mosquitto/server.pem"] == "updated"
    assert (directory / "ca.pem").read_bytes() == authority.files.certificate.read_bytes()
    second = _shown(directory)
    assert initialise(directory, InitOptions(names=("new.lan",))).files["mosquitto/server.pem"] == "updated"
    assert len({first, second, _shown(directory)}) == 3
    client_context(directory / "ca.pem", file, file)


def test_files_of_the_operator_are_used(tmp_path: Path) -> None:
    """Chain and key become one file for the broker, and one for the API where others reach it; renewed, again."""
    authority = make_authority(tmp_path / "ca")
    pair = authority.server("own", ["mqtt.example.org"])
    wish: dict[str, Any] = {
        "cert_file": str(pair.certificate),
        "key_file": str(pair.key),
        "ca_file": str(authority.files.certificate),
    }
    outcome = init(tmp_path / "site", names=("mqtt.example.org",), http="0.0.0.0:8443", **wish)
    directory = outcome.site.directory
    settings = load({}, {}, directory / SETTINGS).settings
    assert str(settings.broker).endswith("@mqtt.example.org:8883")
    assert settings.http_cert_file == directory / "gateway/server.pem"
    assert pair.certificate.read_bytes() in _shown(directory)
    assert pair.key.read_bytes() in _shown(directory)
    authority.server("own", ["mqtt.example.org"])
    again = initialise(directory, InitOptions())
    assert {name for name, state in again.files.items() if state == "updated"} == {
        "mosquitto/server.pem",
        "gateway/server.pem",
    }


def test_relative_paths_stay_those_of_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer that calls it again runs in another folder."""
    make_authority(tmp_path / "ca").server("own", ["mqtt.example.org"])
    monkeypatch.chdir(tmp_path / "ca")
    init(tmp_path / "site", names=("mqtt.example.org",), cert_file="own.pem", key_file="own.key")
    monkeypatch.chdir("/")
    assert set(initialise(tmp_path / "site", InitOptions()).files.values()) == {"unchanged"}


def test_a_certificate_of_a_public_authority_is_accepted(tmp_path: Path) -> None:
    """Without an authority to name, none is named; a wildcard covers its names."""
    pair = make_authority(tmp_path / "ca").server("own", ["*.example.org"])
    outcome = init(
        tmp_path / "site", names=("mqtt.example.org",), cert_file=str(pair.certificate), key_file=str(pair.key)
    )
    assert load({}, {}, outcome.site.directory / SETTINGS).settings.broker_ca_file is None
    assert not (outcome.site.directory / "ca.pem").exists()


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"host": EVERYWHERE, "tls": "none"}, "host: other machines would reach it without TLS"),
        ({"http": "0.0.0.0:8080", "tls": "none"}, "http: other machines would reach it without TLS"),
        ({"host": "a b"}, "host: 'a b:8883' should be HOST:PORT"),
        ({"http": "127.0.0.1:0"}, "http: the port should be 1 to 65535"),
        ({"prefix": "plant"}, "prefix: 'plant' should be empty or levels"),
        ({"prefix": 'a"\nb/'}, "prefix: "),
        ({"names": ('x"\nbroker = "mqtt://evil',)}, "name: "),
        ({"names": (EVERYWHERE,)}, "name: '0.0.0.0' should be a host name"),
        ({"user": "nobody-of-this-name"}, "--user: there is no user nobody-of-this-name on this machine. Make it"),
        ({"tls": "none", "cert_file": "c", "key_file": "k"}, "A certificate was given, and --tls is none"),
        ({"tls": "files"}, "--tls files needs both --cert-file and --key-file"),
        ({"cert_file": "c", "key_file": "k"}, "--name: say by which name"),
        ({"cert_file": "c", "key_file": "k", "names": ("n",)}, "c cannot be used"),
    ],
)
def test_unusable_options_are_refused(tmp_path: Path, wish: dict[str, Any], message: str) -> None:
    """The message says what to do, and no settings are written for it."""
    with pytest.raises(Exception, match=message):
        init(tmp_path / "site", **wish)
    assert not (tmp_path / "site" / SETTINGS).exists()


def test_a_path_that_would_break_a_file_is_refused(tmp_path: Path) -> None:
    """A blank would be another argument in a unit of systemd, a quote the end of a value in TOML."""
    for name in ("two words", 'a"b', "100%", "a\nb"):
        with pytest.raises(InvalidRequestError, match="should have only letters"):
            init(tmp_path / name)


def test_a_certificate_of_another_name_is_refused(tmp_path: Path) -> None:
    """Every device would refuse it; the message says whose it is."""
    pair = make_authority(tmp_path / "ca").server("own", ["other.example.org"])
    with pytest.raises(InvalidRequestError, match=r"is made out to other\.example\.org, and not to mqtt\.example\.org"):
        init(tmp_path / "site", names=("mqtt.example.org",), cert_file=str(pair.certificate), key_file=str(pair.key))


def test_tls_can_be_switched_off_explicitly(tmp_path: Path) -> None:
    """The gateway's settings are then told too."""
    directory = init(
        tmp_path / "site", tls="none", http="0.0.0.0:8080", host=EVERYWHERE, insecure_listen=True
    ).site.directory
    settings = load({}, {}, directory / SETTINGS).settings
    assert (settings.insecure_listen, str(settings.broker)[:7]) == (True, "mqtt://")
    assert not (directory / "ca.pem").exists()


def test_the_manifest_contains_no_secret(tmp_path: Path) -> None:
    """What is remembered are the options and digests of files."""
    directory = init(tmp_path / "site", port=8884).site.directory
    record = json.loads((directory / ".broker-init.json").read_text())
    assert record["options"] == {"port": 8884, "user": ME, "broker_user": ME}
    assert all(len(each) == 64 for each in record["files"].values())


def test_the_documentation_lists_every_path(tmp_path: Path) -> None:
    """What lies in the folder, hidden record aside, stands in the table of docs/mosquitto.md."""
    directory = init(tmp_path / "site").site.directory
    page = (Path(__file__).parents[2] / "docs" / "mosquitto.md").read_text(encoding="utf-8")
    there = {each.name + ("/" if each.is_dir() else "") for each in directory.iterdir() if each.name[0] != "."}
    assert not [each for each in there if f"`{each}`" not in page]


def test_the_size_of_the_fleet_sets_limits(tmp_path: Path) -> None:
    """In mosquitto.conf, in the unit, and in the settings, which let the gateway warn of a larger fleet."""
    unit = "systemd/device-gateway-mosquitto.service"
    directory = init(tmp_path / "site").site.directory
    assert load({}, {}, directory / SETTINGS).settings.mosquitto_devices == DEFAULT_DEVICES
    assert {"LimitNOFILE=65536", "MemoryMax=2048M"} < set(lines(directory / unit))
    assert initialise(directory, InitOptions(devices=100)).files[CONFIG] == "unchanged"
    assert load({}, {}, directory / SETTINGS).settings.mosquitto_devices == DEFAULT_DEVICES
    assert initialise(directory, InitOptions(devices=200_000)).files[CONFIG] == "updated"
    assert initialise(directory, InitOptions()).files[CONFIG] == "unchanged"
    assert load({}, {}, directory / SETTINGS).settings.mosquitto_devices == 200_000
    assert {"autosave_interval 40", "max_queued_messages 400000"} < set(lines(directory / CONFIG))
    assert {"LimitNOFILE=204096", "MemoryMax=2512M"} < set(lines(directory / unit))
