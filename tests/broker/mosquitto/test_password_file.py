"""The password file byte by byte, and whom the signal is sent to."""

import asyncio
import base64
import errno
import hashlib
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.broker.mosquitto.password_file import (
    BrokerSignalError,
    PasswordEntryError,
    PasswordFile,
    PasswordFileError,
    password_entry,
)
from gateway.errors import GatewayError
from tests.support.mosquitto import Mosquitto
from tests.support.wait import eventually
from tests.support.wire import ACCEPTED, NOT_AUTHORISED

SALT = b"twelve bytes"
GATEWAY = password_entry("gateway-secret", SALT)


def password_file(directory: Path, pid_file: Path | None = None) -> PasswordFile:
    """A password file whose only fixed user is the gateway."""
    return PasswordFile(directory / "passwords", pid_file=pid_file, fixed={"gateway": GATEWAY})


def test_an_entry_has_mosquittos_format() -> None:
    """`$6$`, the salt in base64, SHA-512 over password and salt in base64."""
    digest = base64.b64encode(hashlib.sha512(b"dtok_1" + SALT).digest()).decode()
    assert password_entry("dtok_1", SALT) == f"$6$dHdlbHZlIGJ5dGVz${digest}"


def test_salt_has_the_length_that_mosquitto_takes() -> None:
    """Any other length would make the broker forget the user, silently but for its log."""
    with pytest.raises(ValueError, match="a salt for Mosquitto has 12 bytes, not 4"):
        password_entry("dtok_1", b"salt")


def test_entries_are_salted() -> None:
    """Two entries for one secret differ when no salt is given."""
    assert password_entry("dtok_1") != password_entry("dtok_1")


async def test_mosquitto_accepts_an_entry(tmp_path: Path) -> None:
    """A real broker admits a client that knows the secret of an entry made here, and no other."""
    async with Mosquitto(tmp_path, users={"dev_A": "dtok_A"}) as broker:
        assert await broker.connect_answer("dev_A", "dev_A", "dtok_A") == ACCEPTED
        assert await broker.connect_answer("dev_A", "dev_A", "dtok_a") == NOT_AUTHORISED


def test_file_is_sorted_and_complete(tmp_path: Path) -> None:
    """A line a user, fixed ones included, sorted, so that the same users make the same bytes."""
    passwords = password_file(tmp_path)
    a, b = password_entry("a", SALT), password_entry("b", SALT)
    assert passwords.write([("dev_B", b), ("dev_A", a)])
    assert passwords.path.read_text() == f"dev_A:{a}\ndev_B:{b}\ngateway:{GATEWAY}\n"


def test_unchanged_file_is_left_alone(tmp_path: Path) -> None:
    """Nothing to do is said (False) and nothing is done: the file is the same one."""
    passwords = password_file(tmp_path)
    assert passwords.write([("dev_B", GATEWAY), ("dev_A", GATEWAY)])
    before = passwords.path.stat()
    assert not passwords.write([("dev_A", GATEWAY), ("dev_B", GATEWAY)])
    assert passwords.path.stat() == before
    assert passwords.write([("dev_A", GATEWAY)])


def test_the_file_is_readable_by_gateway_and_broker_only(tmp_path: Path) -> None:
    """Mode 0640 whatever it was, and the group that an administrator gave it stays over every write."""
    passwords = password_file(tmp_path)
    passwords.write([])
    group = _another_group(passwords.path.stat().st_gid)
    os.chown(passwords.path, -1, group)
    passwords.path.chmod(0o666)
    passwords.write([("dev_A", GATEWAY)])
    after = passwords.path.stat()
    assert (stat.S_IMODE(after.st_mode), after.st_gid) == (0o640, group)


def _another_group(own: int) -> int:
    """Root may choose any; others one of their own groups, which may be the only one."""
    return own + 1 if os.geteuid() == 0 else max({*os.getgroups(), own}, key=lambda group: group != own)


def test_a_killed_writer_leaves_no_file_that_blocks_the_next(tmp_path: Path) -> None:
    """Half a draft of a gateway that was killed is replaced, and no other file stays beside the password file."""
    passwords = password_file(tmp_path)
    (tmp_path / ".passwords.new").write_text("half a li")
    passwords.write([("dev_A", GATEWAY)])
    assert [file.name for file in tmp_path.iterdir()] == ["passwords"]
    assert passwords.path.read_text() == f"dev_A:{GATEWAY}\ngateway:{GATEWAY}\n"


def test_an_unwritable_directory_is_a_domain_error(tmp_path: Path) -> None:
    """The message names the file and what must be writable."""
    with pytest.raises(PasswordFileError, match=r"passwords cannot be written \(No such file.* must be writable"):
        password_file(tmp_path / "missing").write([])
    assert issubclass(PasswordFileError, GatewayError)


@pytest.mark.parametrize(
    "username",
    ["", "dev:A", "dev_A\nroot", "dev_A\n", "dev A", "+", "#", "dev/A", "$dev", "dev_Ä", "dev-A", "dev_A\0", "a" * 129],
)
def test_hostile_user_names_are_refused(tmp_path: Path, username: str) -> None:
    """Neither another line, nor a wildcard in a pattern of the ACL, nor a level of a topic gets in by a name."""
    passwords = password_file(tmp_path)
    with pytest.raises(PasswordEntryError, match="user name"):
        passwords.write([("dev_B", GATEWAY), (username, GATEWAY)])
    assert not passwords.path.exists()


@pytest.mark.parametrize(
    "entry", ["", "plain", "$6$c2FsdA==$YQ==", GATEWAY.replace("$6$", "$5$"), f"{GATEWAY}\nroot:x", f"{GATEWAY}:x"]
)
def test_hostile_entries_are_refused(tmp_path: Path, entry: str) -> None:
    """What is no `$6$` entry is not written, and its text does not reach the error (it may be a secret)."""
    with pytest.raises(PasswordEntryError, match="the password entry of dev_A should") as refusal:
        password_file(tmp_path).write([("dev_A", entry)])
    assert not entry or entry not in str(refusal.value)


@pytest.mark.parametrize("username", ["gateway", "dev_A"])
def test_each_user_name_appears_once(tmp_path: Path, username: str) -> None:
    """A device named like a fixed user does not replace it, and no user has two passwords."""
    with pytest.raises(PasswordEntryError, match=f"user name {username} is there twice"):
        password_file(tmp_path).write([("dev_A", GATEWAY), (username, GATEWAY)])


def test_accounts_made_with_mosquitto_passwd_are_kept(tmp_path: Path) -> None:
    """An administrator's accounts may have PBKDF2 entries and names that no device could have; no wildcards though."""
    made = tmp_path / "made"
    subprocess.run(["mosquitto_passwd", "-b", "-c", made, "back-end@plant.7", "secret"], check=True)
    account, _, entry = made.read_text().strip().partition(":")
    passwords = PasswordFile(tmp_path / "passwords", pid_file=None, fixed={account: entry})
    passwords.write([])
    assert passwords.path.read_text() == made.read_text()
    passwords.fixed["back-end/#"] = entry
    with pytest.raises(PasswordEntryError, match="user name 'back-end/#' should be"):
        passwords.write([])


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20)))
def test_only_whole_lines_are_ever_written(tmp_path_factory: pytest.TempPathFactory, extra: dict[str, str]) -> None:
    """Whatever is given: refused, or a file that reads back as exactly the users that were given."""
    passwords = password_file(tmp_path_factory.mktemp("given"))
    users = {name: password_entry(secret, SALT) for name, secret in extra.items()}
    try:
        passwords.write(users.items())
    except PasswordEntryError:
        assert not passwords.path.exists()
    else:
        lines = passwords.path.read_text().split("\n")[:-1]
        assert dict(line.split(":") for line in lines) == {"gateway": GATEWAY, **users}


def test_without_a_pid_file_no_process_is_signalled(tmp_path: Path) -> None:
    """No pid file is a choice: another program reloads the broker."""
    password_file(tmp_path, pid_file=None).reload()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be read \(No such file or directory\): start Mosquitto with `pid_file "),
        ("", "holds no process id"),
        ("mosquitto", "holds no process id"),
        ("0", "holds 0, which is no broker"),
        ("-1", "holds -1, which is no broker"),
        ("1", "process 1 of .* is .*, not mosquitto"),
        ("4194305", "holds 4194305, which is no broker"),
        ("99999999999", "holds 99999999999, which is no broker"),
    ],
)
def test_bad_pid_file_is_a_domain_error(tmp_path: Path, content: str | None, message: str) -> None:
    """Nothing is signalled (never a process group, never init), and the message says what to do."""
    pid_file = tmp_path / "mosquitto.pid"
    if content is not None:
        pid_file.write_text(content)
    with pytest.raises(BrokerSignalError, match=message):
        password_file(tmp_path, pid_file).reload()
    assert issubclass(BrokerSignalError, GatewayError)


def _name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()


@asynccontextmanager
async def running(program: Path, pid_file: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`program 60`, with its process id in `pid_file`, once it carries its own name."""
    process = await asyncio.create_subprocess_exec(program, "60")
    try:
        await eventually(lambda: _name_of(process.pid) == program.name, f"{program.name} runs")
        await asyncio.to_thread(pid_file.write_text, f"{process.pid}\n")
        yield process
    finally:
        process.kill()
        await process.wait()


async def test_a_stale_pid_file_signals_no_other_program(tmp_path: Path) -> None:
    """When the process id belongs to another program by now, that program is left alone."""
    sleep = Path(shutil.which("sleep") or "")
    async with running(sleep, tmp_path / "mosquitto.pid") as process:
        with pytest.raises(BrokerSignalError, match="is 'sleep', not mosquitto"):
            password_file(tmp_path, tmp_path / "mosquitto.pid").reload()
        assert process.returncode is None


async def test_a_starting_broker_is_not_killed_by_the_signal(tmp_path: Path) -> None:
    """Mosquitto writes its pid file before it handles SIGHUP, which would end it until then."""
    starting = tmp_path / "mosquitto"
    shutil.copy(shutil.which("sleep") or "", starting)
    async with running(starting, tmp_path / "mosquitto.pid") as process:
        with pytest.raises(BrokerSignalError, match="is starting and does not take SIGHUP yet: try again"):
            password_file(tmp_path, tmp_path / "mosquitto.pid").reload()
        assert process.returncode is None


async def test_a_broker_of_another_user_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel does not let us signal it, the message says which right is missing."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    async with Mosquitto(tmp_path) as broker:
        monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
        with pytest.raises(BrokerSignalError, match=r"may not be signalled by this user.* CAP_KILL"):
            password_file(tmp_path, broker.pid_file).reload()


async def test_a_stopped_broker_is_reported(tmp_path: Path) -> None:
    """After `kill -9` the pid file is still there; the message says that the next start reads the password file."""
    async with Mosquitto(tmp_path) as broker:
        await broker.kill()
        with pytest.raises(BrokerSignalError, match="it reads its password file when it starts"):
            password_file(tmp_path, broker.pid_file).reload()
