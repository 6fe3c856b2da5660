"""The systemd units of `gateway broker init`: their users, rights and reachable programs."""

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.errors import InvalidRequestError
from gateway.settings.loading import load
from gateway.setup import runnable
from gateway.setup.options import SystemAccount
from tests.setup.support import ME, NOBODY, SETTINGS, init, lines

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
