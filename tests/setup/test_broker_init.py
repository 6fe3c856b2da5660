"""`gateway broker init`: the set is complete, fits together, and no change of an operator is lost."""

import json
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from gateway.broker.mosquitto.password_entries import kept_entries, own_entry
from gateway.core.addresses import BrokerUrl
from gateway.errors import InvalidRequestError
from gateway.settings.loading import load
from gateway.setup import runnable
from gateway.setup.broker_init import InitOutcome, initialise
from gateway.setup.options import InitOptions, SystemAccount
from gateway.tls.ca import Authority, Pair
from gateway.tls.certificates import client_context
from tests.support.certificates import expired, make_authority

ME = pwd.getpwuid(os.geteuid()).pw_name
NOBODY = "nobody"
SETTINGS = "gateway/gateway.toml"
CONFIG = "mosquitto/mosquitto.conf"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens here


def init(directory: Path, *, force: bool = False, **wish: Any) -> InitOutcome:
    """Write a set for processes of this user."""
    return initialise(directory, InitOptions(**{"user": ME, "broker_user": ME, **wish}), force=force)


def lines(file: Path) -> list[str]:
    """What it says."""
    return file.read_text(encoding="utf-8").splitlines()


def contents(directory: Path) -> dict[str, bytes]:
    """All files, by their path."""
    return {str(each.relative_to(directory)): each.read_bytes() for each in directory.rglob("*") if each.is_file()}


def password(directory: Path, name: str) -> str:
    """One of those that were made."""
    return dict(line.split(" ", 1) for line in lines(directory / "accounts") if not line.startswith("#"))[name]


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


# --- units and containers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["device-gateway", "device-gateway-mosquitto", "device-gateway-reload"])
def test_systemd_accepts_the_units(tmp_path: Path, name: str) -> None:
    """systemd-analyze finds nothing to complain about, and little that is left open."""
    tool = shutil.which("systemd-analyze")
    assert tool, "this test needs systemd-analyze: apt-get install systemd"
    apart = "daemon" if name == "device-gateway-reload" else None  # systemd warns of nobody
    if apart and os.geteuid():
        pytest.skip("only root can make files for another user")
    unit = init(tmp_path / "site", broker_user=apart).site.directory / "systemd" / f"{name}.service"
    outcome = subprocess.run([tool, "verify", unit], capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stderr, outcome.stdout) == (0, "", "")
    limits = {line.partition("=")[0]: line.partition("=")[2] for line in lines(unit)}
    assert {"LimitCORE", "KeyringMode", "MemoryMax", "TasksMax"} < set(limits)
    assert (limits["LimitCORE"], limits["KeyringMode"]) == ("0", "private")
    review: list[str | Path] = [tool, "security", "--offline=true", "--threshold=25", "--no-pager", unit]
    assert subprocess.run(review, capture_output=True, text=True, check=False).returncode == 0


def test_files_have_minimal_rights(tmp_path: Path) -> None:
    """No process has a right beyond its user; with users apart one of the broker's user reloads it, when asked."""
    unit = "systemd/device-gateway.service"
    same = init(tmp_path / "same").site.directory
    assert "CapabilityBoundingSet=" in lines(same / unit)
    assert not (same / "systemd/device-gateway-reload.service").exists()
    assert load({}, {}, same / SETTINGS).settings.mosquitto_reload_socket is None
    if os.geteuid():
        with pytest.raises(InvalidRequestError, match="Only root can make files for nobody"):
            init(tmp_path / "apart", broker_user=NOBODY)
        return
    directory = init(tmp_path / "apart", broker_user=NOBODY).site.directory
    apart = lines(directory / unit)
    assert {"CapabilityBoundingSet=", f"User={ME}"} < set(apart)
    assert not [line for line in apart if line.startswith("AmbientCapabilities")]
    reload = lines(directory / "systemd/device-gateway-reload.service")
    socket = load({}, {}, directory / SETTINGS).settings.mosquitto_reload_socket
    assert f"User={NOBODY}" in reload
    assert any(line.startswith("ExecStart=") and f" --socket {socket} " in line for line in reload)
    assert f"User={NOBODY}" in lines(directory / "systemd/device-gateway-mosquitto.service")
    owner = pwd.getpwnam(NOBODY)
    passwords, key = directory / "passwords", directory / "mosquitto/server.pem"
    assert (passwords.stat().st_gid, stat.S_IMODE(passwords.stat().st_mode)) == (owner.pw_gid, 0o2750)
    assert ((passwords / "passwords").stat().st_gid, key.stat().st_gid) == (owner.pw_gid, owner.pw_gid)
    assert stat.S_IMODE((directory / "data").stat().st_mode) == 0o700


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that every user may enter; those of pytest are closed."""
    with TemporaryDirectory(prefix="open-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def program(file: Path, text: str) -> Path:
    """A program called `gateway`, which every user may run as far as its own mode goes."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it runs programs as another user")
@pytest.mark.parametrize("why", ["closed directory", "closed interpreter", "fails", "not executable", "well"])
def test_a_program_the_units_user_cannot_run_is_reported(
    open_place: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """It is tried as that user, and said with what to do; the set is written all the same."""
    closed = open_place / "closed"
    closed.mkdir(mode=0o700)
    shutil.copy("/bin/sh", closed / "sh")
    where = {"closed directory": closed / "gateway"}.get(why, open_place / "bin" / "gateway")
    line = {
        "closed interpreter": f"#!{closed}/sh\n",
        "fails": "#!/bin/sh\necho ModuleNotFoundError: No module >&2\nexit 1\n",
    }.get(why, '#!/bin/sh\ntest "$(id -un)" = nobody\n')
    program(where, line).chmod(0o644 if why == "not executable" else 0o755)
    monkeypatch.setattr("sys.argv", [str(where)])
    outcome = init(open_place / "site", user=NOBODY, broker_user=NOBODY)
    assert f"ExecStart={where} " in (outcome.site.directory / "systemd/device-gateway.service").read_text()
    if why == "well":
        assert outcome.problems == ()
        return
    (problem,) = outcome.problems
    says = {
        "closed directory": f"{closed} is closed to it",
        "closed interpreter": "Permission denied",
        "fails": "said: ModuleNotFoundError: No module",
        "not executable": f"{where} is closed to it",
    }[why]
    assert says in problem
    assert f"the user {NOBODY} cannot run" in problem
    assert "/opt/device-gateway" in problem


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes files for another user")
def test_a_directory_unreachable_for_the_units_user_is_reported(
    open_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings below a closed directory cannot be read, whatever their own mode."""
    monkeypatch.setattr("sys.argv", [str(program(open_place / "bin" / "gateway", "#!/bin/sh\n"))])
    (open_place / "root").mkdir(mode=0o700)
    (problem,) = init(open_place / "root" / "site", user=NOBODY, broker_user=NOBODY).problems
    assert f"cannot enter {open_place}/root" in problem


def test_a_single_user_installation_has_no_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a trial as oneself; a program without the right to run it is seen without being tried, too."""
    own = program(tmp_path / "gateway", "#!/bin/sh\n")
    monkeypatch.setattr("sys.argv", [str(own)])
    assert init(tmp_path / "site").problems == ()
    own.chmod(0o600)
    stranger = SystemAccount("nobody", 65_534, 65_534)
    reason = runnable.cannot_run(stranger, [str(own)], privileged=False)
    assert reason is not None
    assert "is closed to it" in reason


def test_the_manifest_contains_no_secret(tmp_path: Path) -> None:
    """What is remembered are the options and digests of files."""
    directory = init(tmp_path / "site", port=8884).site.directory
    record = json.loads((directory / ".broker-init.json").read_text())
    assert record["options"] == {"port": 8884, "user": ME, "broker_user": ME}
    assert all(len(each) == 64 for each in record["files"].values())


def test_the_documentation_knows_every_path(tmp_path: Path) -> None:
    """What lies in the folder, hidden record aside, stands in the table of docs/mosquitto.md."""
    directory = init(tmp_path / "site").site.directory
    page = (Path(__file__).parents[2] / "docs" / "mosquitto.md").read_text(encoding="utf-8")
    there = {each.name + ("/" if each.is_dir() else "") for each in directory.iterdir() if each.name[0] != "."}
    assert not [each for each in there if f"`{each}`" not in page]
