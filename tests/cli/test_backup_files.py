"""Backups on a medium that others reach: encrypted for a recipient (age), and told from those that others made."""

import os
from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from gateway.store import DATABASE_NAME
from tests.cli.support import Cli

MARK = "BP-Geheim-000124"


@pytest.fixture
def identity(tmp_path: Path) -> tuple[str, Path]:
    """A recipient, and the file that opens what is for it, as ``age-keygen`` writes one."""
    made = pyrage.x25519.Identity.generate()
    file = tmp_path / "age.key"
    file.write_text(f"# public key: {made.to_public()}\n{made}\n")
    return str(made.to_public()), file


@pytest.fixture
def mac_key(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The key of the MAC, in the settings."""
    file = tmp_path / "mac.key"
    cli.json_of("secrets", "new-key", str(file))
    monkeypatch.setenv("GATEWAY_BACKUP_MAC_KEY_FILE", str(file))
    return file


def state(cli: Cli) -> tuple[object, ...]:
    """What a restore that is refused leaves as it is: the registry's own file, and no other beside it."""
    return (cli.data_dir / DATABASE_NAME).stat().st_ino, sorted(each.name for each in cli.data_dir.iterdir())


def serials(cli: Cli) -> list[str]:
    """Serial numbers of the devices."""
    return [each["serial_number"] for each in cli.json("devices", "list")]


def test_an_encrypted_backup_contains_no_plain_text(cli: Cli, tmp_path: Path, identity: tuple[str, Path]) -> None:
    """Neither the backup nor a draft shows what is in it; the identity opens it, another one does not."""
    recipient, file = identity
    cli("devices", "register", MARK)
    medium = tmp_path / "medium"
    medium.mkdir()
    cli("backup", str(medium / "plain.db"))
    assert MARK.encode() in (medium / "plain.db").read_bytes()  # the attack works
    (medium / "plain.db").unlink()
    sealed = medium / "copy.age"
    facts = cli.json("backup", str(sealed), "--recipient", recipient)
    assert (facts["devices"], facts["bytes"]) == (1, sealed.stat().st_size)
    assert [each.name for each in medium.iterdir()] == ["copy.age"]
    assert MARK.encode() not in sealed.read_bytes()
    assert sealed.stat().st_mode & 0o777 == 0o600
    assert not list(cli.data_dir.glob(".*"))

    cli("devices", "register", "BP-2")
    before = state(cli)
    assert "--identity" in cli("restore", str(sealed), "--yes", code=1).err
    stranger = tmp_path / "other.key"
    stranger.write_text(str(pyrage.x25519.Identity.generate()))
    assert "does not open" in cli("restore", str(sealed), "--yes", "--identity", str(stranger), code=1).err
    whole = sealed.read_bytes()
    for damaged in (whole[:-1], whole[: len(whole) // 2], whole[:-40] + os.urandom(40)):
        sealed.write_bytes(damaged)
        assert "damaged" in cli("restore", str(sealed), "--yes", "--identity", str(file), code=1).err
    assert state(cli) == before
    sealed.write_bytes(whole)
    cli("restore", str(sealed), "--yes", "--identity", str(file))
    assert serials(cli) == [MARK]
    assert not list(cli.data_dir.glob(".restore-*"))


def test_an_ssh_key_is_accepted_as_recipient(cli: Cli, tmp_path: Path) -> None:
    """Many have one already."""
    made, key = Ed25519PrivateKey.generate(), tmp_path / "id_ed25519"
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    recipient = made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    cli("backup", str(tmp_path / "copy.age"), "--recipient", recipient)
    cli("restore", str(tmp_path / "copy.age"), "--yes", "--identity", str(key))


@pytest.mark.parametrize("wrong", ["age1nonsense", "AGE-SECRET-KEY-1", "backup@example.com"])
def test_an_invalid_recipient_is_refused(cli: Cli, tmp_path: Path, wrong: str) -> None:
    """It is said before anything is written."""
    assert "--recipient" in cli("backup", str(tmp_path / "copy.age"), "--recipient", wrong, code=1).err
    assert not (tmp_path / "copy.age").exists()


def test_a_backup_signed_by_another_key_is_not_restored(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mac_key: Path, identity: tuple[str, Path]
) -> None:
    """Changed, of another key, without its MAC, or with that of another backup: each is refused, nothing touched."""
    recipient, opens = identity
    other_key = tmp_path / "other.key"
    cli.json_of("secrets", "new-key", str(other_key))
    good, sealed, early = (tmp_path / name for name in ("good.db", "good.age", "early.db"))
    cli("backup", str(early))
    cli("devices", "register", MARK)
    cli("backup", str(good))
    cli("backup", str(sealed), "--recipient", recipient)
    monkeypatch.setenv("GATEWAY_BACKUP_MAC_KEY_FILE", str(other_key))
    forged = tmp_path / "forged.db"
    cli("backup", str(forged))
    monkeypatch.setenv("GATEWAY_BACKUP_MAC_KEY_FILE", str(mac_key))
    before = state(cli)

    assert "another key" in cli("restore", str(forged), "--yes", code=1).err
    whole, mac = good.read_bytes(), good.with_name("good.db.mac")
    told = mac.read_text()
    for content, line, says in (
        (whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], told, "MAC is wrong"),
        (whole + b"\0", told, "MAC is wrong"),
        (whole, early.with_name("early.db.mac").read_text(), "MAC is wrong"),
        (whole, "", "another key"),
        (whole, None, "is not there"),
    ):
        good.write_bytes(content)
        mac.unlink(missing_ok=True)
        if line is not None:
            mac.write_text(line)
        assert says in cli("restore", str(good), "--yes", code=1).err
    impostor = tmp_path / "impostor.age"  # anybody can encrypt for a recipient
    impostor.write_bytes(pyrage.encrypt(whole, [pyrage.x25519.Recipient.from_str(recipient)]))
    assert "is not there" in cli("restore", str(impostor), "--yes", "--identity", str(opens), code=1).err
    assert state(cli) == before

    good.write_bytes(whole)
    mac.write_text(told)
    cli("restore", str(good), "--yes")
    cli("restore", str(sealed), "--yes", "--identity", str(opens))
    monkeypatch.delenv("GATEWAY_BACKUP_MAC_KEY_FILE")
    assert "was not looked at" in cli("restore", str(good), "--yes").err
