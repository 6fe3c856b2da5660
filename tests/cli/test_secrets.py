"""``gateway secrets``: who reads the disk or a backup finds neither signing keys nor webhook secrets in the clear."""

import stat
from contextlib import closing
from pathlib import Path

import pytest

from gateway.domain import grants
from gateway.errors import UnavailableError
from gateway.runtime.sealing import Vault
from gateway.store import DATABASE_NAME, View, open_database, signing_key_sql
from gateway.store.sqlite.lock import exclusive
from tests.cli.support import Cli


@pytest.fixture
def key(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A key in a file, which the environment names; the registry is not encrypted yet."""
    file = tmp_path / "encryption.key"
    assert cli.json_of("secrets", "new-key", str(file))["key"] == Vault(bytes.fromhex(file.read_text())).key_id
    monkeypatch.setenv("GATEWAY_ENCRYPTION_KEY_FILE", str(file))
    return file


def raw_secrets(cli: Cli) -> list[bytes]:
    """The columns that sign, as they are stored."""
    with closing(open_database(cli.data_dir)) as connection:
        found = connection.execute("SELECT private_key FROM signing_keys UNION ALL SELECT secret FROM webhooks")
        return [row[0] for row in found]


def on_disk(cli: Cli) -> bytes:
    """Every byte of the registry and of its log."""
    return b"".join(each.read_bytes() for each in cli.data_dir.glob(f"{DATABASE_NAME}*") if each.is_file())


def webhook(cli: Cli) -> str:
    """A webhook; its id."""
    return str(cli.json("webhooks", "create", "https://example.com/hook")["id"])


def test_no_signing_key_is_stored_in_plain_text(cli: Cli, monkeypatch: pytest.MonkeyPatch, key: Path) -> None:
    """Not in the rows, not in freed pages, not in the log; what is made later neither; and all goes on as before."""
    monkeypatch.delenv("GATEWAY_ENCRYPTION_KEY_FILE")
    device = cli.bound()
    clear = raw_secrets(cli)
    for _ in range(3):  # rows that change leave their old bytes in the free room of a page
        cli("signing-keys", "rotate", "--yes")
        clear += raw_secrets(cli)
    gone = webhook(cli)
    clear += raw_secrets(cli)
    cli("webhooks", "rotate", gone, "--overlap", "0")
    cli("webhooks", "delete", gone, "--yes")
    webhook(cli)
    clear = sorted({*clear, *raw_secrets(cli)})
    assert len(clear) == 6
    assert sum(each in on_disk(cli) for each in clear) >= 5  # the attack works
    monkeypatch.setenv("GATEWAY_ENCRYPTION_KEY_FILE", str(key))
    assert cli.json("secrets", "encrypt")["secrets"] == 5
    assert [each for each in clear if each in on_disk(cli)] == []

    cli("webhooks", "rotate", webhook(cli))
    kid = cli.json("signing-keys", "rotate", "--yes")["kid"]
    assert all(each.startswith(b"sealed1:") for each in raw_secrets(cli))
    assert cli.bound("BP-2", "eu_2")["grant_key"]["kid"] == kid
    cli("devices", "reset", device["id"], "--yes")
    with closing(open_database(cli.data_dir)) as connection:
        view = View(connection)
        (grant,) = [row[0] for row in view.all("SELECT grant_token FROM commands")]
        claims = grants.verified(view, grant)
        assert claims is not None
        assert claims["aud"] == device["id"]
        assert len(signing_key_sql.signing_keys(view)) == 5


def test_without_the_key_nothing_is_signed_and_the_setting_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: Path
) -> None:
    """Nothing is stored half: no command, no key in the clear. Another key says which one is wanted."""
    device = cli.bound()
    cli("secrets", "encrypt")
    wanted = cli.json("secrets", "status")["key"]
    assert wanted is not None
    before = raw_secrets(cli)
    monkeypatch.delenv("GATEWAY_ENCRYPTION_KEY_FILE")
    for command in (("devices", "reset", device["id"], "--yes"), ("signing-keys", "rotate", "--yes")):
        said = cli(*command, code=1).err
        assert "encryption_key_file" in said
        assert wanted in said
    assert "encryption_key_file" in cli("webhooks", "create", "https://example.com/hook", code=1).err
    other = tmp_path / "other.key"
    cli_new = cli.json_of("secrets", "new-key", str(other))["key"]
    monkeypatch.setenv("GATEWAY_ENCRYPTION_KEY_FILE", str(other))
    said = cli("devices", "reset", device["id"], "--yes", code=1).err
    assert wanted in said
    assert cli_new in said
    assert raw_secrets(cli) == before
    monkeypatch.setenv("GATEWAY_ENCRYPTION_KEY_FILE", str(key))
    assert cli.json("devices", "show", device["id"])["status"] == "bound"


def test_the_key_can_be_replaced_and_removed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: Path
) -> None:
    """Each time every secret is sealed again; the key before opens nothing any more."""
    device = cli.bound()
    assert "not encrypted yet" in cli("secrets", "rotate-key", str(key), code=1).err
    cli("secrets", "encrypt")
    first = raw_secrets(cli)
    other = tmp_path / "other.key"
    cli.json_of("secrets", "new-key", str(other))
    assert "Set encryption_key_file" in cli("secrets", "rotate-key", str(other)).err
    assert not set(first) & set(raw_secrets(cli))
    cli("signing-keys", "rotate", "--yes", code=1)
    monkeypatch.setenv("GATEWAY_ENCRYPTION_KEY_FILE", str(other))
    cli("signing-keys", "rotate", "--yes")
    assert "add --yes" in cli("secrets", "decrypt", code=2).err
    cli("secrets", "decrypt", "--yes")
    monkeypatch.delenv("GATEWAY_ENCRYPTION_KEY_FILE")
    assert cli.json("secrets", "status") == {"encrypted": False, "key": None, "key_of_the_setting": None}
    cli("devices", "reset", device["id"], "--yes")
    assert {len(each) for each in raw_secrets(cli)} == {32}


def test_a_backup_stays_sealed_and_opens_with_its_key_alone(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: Path
) -> None:
    """A restore without the key changes nothing; one of a backup from before the key encrypts it."""
    clear, sealed = tmp_path / "clear.db", tmp_path / "sealed.db"
    monkeypatch.delenv("GATEWAY_ENCRYPTION_KEY_FILE")
    cli("secrets", "status")
    seeds = raw_secrets(cli)
    cli("backup", str(clear))
    monkeypatch.setenv("GATEWAY_ENCRYPTION_KEY_FILE", str(key))
    cli("secrets", "encrypt")
    cli("backup", str(sealed))
    assert not any(each in sealed.read_bytes() for each in seeds)
    monkeypatch.delenv("GATEWAY_ENCRYPTION_KEY_FILE")
    before = (cli.data_dir / DATABASE_NAME).stat().st_ino
    assert "encryption_key_file" in cli("restore", str(sealed), "--yes", code=1).err
    assert (cli.data_dir / DATABASE_NAME).stat().st_ino == before
    monkeypatch.setenv("GATEWAY_ENCRYPTION_KEY_FILE", str(key))
    for file in (sealed, clear):
        cli("restore", str(file), "--yes")
        assert all(each.startswith(b"sealed1:") for each in raw_secrets(cli))
        cli.json("signing-keys", "rotate", "--yes")


def test_a_modified_or_moved_secret_is_rejected(key: Path) -> None:
    """Bound to its row and its key: a bit, another row, a secret in the clear, a row that says of another key."""
    vault = Vault(bytes.fromhex(key.read_text()))
    stored = vault.seal("webhooks/wh_1", bytes(24), bytes(12))
    assert vault.open("webhooks/wh_1", stored) == bytes(24)
    for place, changed in (
        ("webhooks/wh_2", stored),
        ("webhooks/wh_1", stored[:-1] + bytes([stored[-1] ^ 1])),
        ("webhooks/wh_1", stored[:20] + bytes([stored[20] ^ 1]) + stored[21:]),
        ("webhooks/wh_1", bytes(24)),
        ("webhooks/wh_1", stored[:8] + bytes(8) + stored[16:]),
    ):
        with pytest.raises(UnavailableError):
            vault.open(place, changed)
    with pytest.raises(UnavailableError, match="encryption_key_file"):
        Vault().open("webhooks/wh_1", stored)


def test_the_key_file_is_validated(cli: Cli, key: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For its owner alone, never replaced, and what is wrong with it is said with the remedy."""
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "not replaced" in cli.fails("secrets", "new-key", str(key), code=5)
    key.chmod(0o644)
    assert "chmod" in cli("secrets", "status", code=1).err
    bad = tmp_path / "bad.key"
    bad.write_text("0123")
    bad.chmod(0o600)
    monkeypatch.setenv("GATEWAY_ENCRYPTION_KEY_FILE", str(bad))
    assert "hexadecimal" in cli("secrets", "status", code=1).err
    monkeypatch.setenv("GATEWAY_ENCRYPTION_KEY_FILE", str(tmp_path / "missing"))
    assert "cannot be read" in cli("secrets", "status", code=1).err


def test_secrets_are_not_changed_while_a_gateway_runs(cli: Cli, key: Path, tmp_path: Path) -> None:
    """Its key would be the wrong one from then on."""
    other = tmp_path / "other.key"
    cli.json_of("secrets", "new-key", str(other))
    assert key != other
    with exclusive(cli.data_dir):
        assert "Stop it" in cli("secrets", "rotate-key", str(other), code=3).err
