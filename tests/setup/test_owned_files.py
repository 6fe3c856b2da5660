"""`gateway broker init` called again, as root, beside a user who tries to have root's files given away."""

import os
import pwd
import stat
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gateway.errors import UnavailableError
from gateway.setup.broker_init import initialise
from gateway.setup.options import InitOptions

ME = pwd.getpwuid(os.geteuid()).pw_name
NOBODY = "nobody"
NAMES = (
    "data",
    "systemd",
    "passwords",
    "run",
    "persistence",
    "mosquitto",
    "gateway",
    "authority",
    "accounts",
    "ca.pem",
    ".broker-init.json",
    "mosquitto/mosquitto.conf",
    "mosquitto/server.pem",
    "gateway/gateway.toml",
    "gateway/broker-ca.pem",
    "passwords/passwords",
    "systemd/device-gateway.service",
)
"""Each name that the set writes, in the directory itself and below."""
ROUNDS = 60
SWAP = 'echo begins; while :; do rm -f "$1"; ln -s "$2" "$1"; rm -f "$1"; done'
"""A user who puts a link in the place of a file, again and again."""


def init(directory: Path, user: str = ME) -> None:
    """Write the set, or bring it up to date."""
    initialise(directory, InitOptions(user=user, broker_user=user))


def state_of(path: Path) -> tuple[int, int, int, bytes | None]:
    """Owner, mode and content."""
    state = path.stat()
    return state.st_uid, state.st_gid, state.st_mode, path.read_bytes() if path.is_file() else None


@pytest.mark.parametrize("name", NAMES)
def test_a_symbolic_link_for_any_file_is_refused(name: str, tmp_path: Path) -> None:
    """What the link leads to keeps its owner, its mode and its content, and the error names the link."""
    site, victim = tmp_path / "site", tmp_path / "victim"
    init(site)
    place = site / name
    if place.is_dir():
        place.rename(tmp_path / "moved")
        victim.mkdir(mode=0o711)
    else:
        place.unlink()
        victim.write_text("root's own")
        victim.chmod(0o600)
    place.symlink_to(victim)
    before = state_of(victim)
    with pytest.raises(UnavailableError, match="is a link"):
        init(site)
    assert state_of(victim) == before


def test_a_hard_link_is_refused(tmp_path: Path) -> None:
    """A hard link is no link to be seen, and leads to the same file."""
    site, victim = tmp_path / "site", tmp_path / "victim"
    init(site)
    victim.write_bytes((site / "mosquitto/acl").read_bytes())
    victim.chmod(0o600)
    (site / "mosquitto/acl").unlink()
    (site / "mosquitto/acl").hardlink_to(victim)
    with pytest.raises(UnavailableError, match="second name"):
        init(site)
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600


@pytest.mark.parametrize("which", ["site", "above"])
def test_a_directory_that_others_may_write_is_refused(which: str, tmp_path: Path) -> None:
    """Itself, or one above it; nothing is written there."""
    above = tmp_path / "above"
    site = above / "site"
    site.mkdir(parents=True)
    {"site": site, "above": above}[which].chmod(0o777)
    with pytest.raises(UnavailableError, match="may be written by others"):
        init(site)
    assert list(site.iterdir()) == []


def test_a_link_as_the_directory_is_refused(tmp_path: Path) -> None:
    """The error has the directory that it leads to."""
    (tmp_path / "real").mkdir()
    (tmp_path / "site").symlink_to(tmp_path / "real")
    with pytest.raises(UnavailableError, match=str(tmp_path / "real")):
        init(tmp_path / "site")
    assert list((tmp_path / "real").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it writes files for another user, who attacks meanwhile")
def test_a_file_swapped_during_the_check_is_refused() -> None:
    """The gateway's user puts a link in the place of its password file again and again while root writes the set."""
    with TemporaryDirectory() as open_place:
        place = Path(open_place)
        place.chmod(0o755)
        site, victim = place / "site", place / "victim"
        victim.write_text("root's own")
        victim.chmod(0o600)
        init(site, NOBODY)
        attack = subprocess.Popen(
            ["sh", "-c", SWAP, "swap", str(site / "passwords/passwords"), str(victim)],
            stdout=subprocess.PIPE,
            user=NOBODY,
        )
        assert attack.stdout is not None
        refused = 0
        try:
            assert attack.stdout.readline() == b"begins\n"
            for _ in range(ROUNDS):
                try:
                    init(site, NOBODY)
                except UnavailableError:
                    refused += 1
                assert (victim.stat().st_uid, stat.S_IMODE(victim.stat().st_mode)) == (0, 0o600)
        finally:
            attack.kill()
            attack.wait()
            attack.stdout.close()
        assert refused, "the attacker never met the writer: the test shows nothing"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes a folder of another user")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner could put other files into place."""
    site = tmp_path / "site"
    site.mkdir()
    os.chown(site, pwd.getpwnam(NOBODY).pw_uid, -1)
    with pytest.raises(UnavailableError, match="belongs to the user"):
        init(site)
    assert list(site.iterdir()) == []
