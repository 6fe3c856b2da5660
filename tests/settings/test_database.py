"""The setting `database`: what it needs, what excludes it, and that its password is never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.core.postgres_address import PostgresAddress
from gateway.settings.loading import load
from tests.settings.support import problems

URL = "postgresql://gateway:hush%401@db1,db2:5433/registry"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"database": "mysql://gateway:hush@db/r"}, "database"),
        ({"database": "postgresql://gateway:hu[sh@db/r"}, "database"),
        ({"database": "hush"}, "database"),
        ({"database": "postgresql://gateway:hush@/r"}, "database"),
        ({"database": "postgresql://gateway:hush@db"}, "database"),
        ({"database": "postgresql://gateway@db/r?sslpassword=hush"}, "database"),
        ({"database": URL, "database_password_file": "p"}, "database_password_file"),
        ({"database_password_file": "p"}, "database_password_file"),
        ({"database": "postgresql://gateway@db/r", "backup_mac_key_file": "k"}, "backup_mac_key_file"),
    ],
)
def test_a_wrong_database_is_refused(options: dict[str, object], name: str) -> None:
    """With the setting to change and what it should be, and without any secret."""
    (problem,) = problems(options)
    assert problem.startswith(f"{name}: ")
    assert any(word in problem for word in ("should", "needs", "names no"))
    assert "hush" not in problem
    assert "hu[sh" not in problem


def test_the_registry_is_where_the_settings_say(tmp_path: Path) -> None:
    """In the data directory; or in the database, with the password of the URL or of the file."""
    assert load({"data_dir": str(tmp_path)}, {}).settings.registry == tmp_path
    named = load({"database": URL}, {}).settings.registry
    assert isinstance(named, PostgresAddress)
    assert named.password is not None
    assert named.password.get_secret_value() == "hush@1"
    assert named.url == "postgresql://gateway@db1,db2:5433/registry?sslmode=verify-full"
    file = tmp_path / "password"
    file.write_text("hush 2\n")
    options = {"database": "postgresql://gateway@/r?host=/run/postgresql", "database_password_file": str(file)}
    with_file = load(options, {}).settings.registry
    assert isinstance(with_file, PostgresAddress)
    assert with_file.password is not None
    assert with_file.password.get_secret_value() == "hush 2"


@pytest.mark.parametrize("url", [URL, "postgresql://gateway@db/registry?password=hush%401"])
def test_a_password_is_masked(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In both forms of 'gateway config', in the settings' JSON, and in a warning about the option."""
    monkeypatch.setenv("GATEWAY_DATABASE", url)
    monkeypatch.chdir(tmp_path)
    assert main(["config"]) == 0
    assert main(["config", "--json"]) == 0
    printed = capsys.readouterr()
    assert "hush" not in printed.out + printed.err
    assert "://gateway:********@db" in printed.out
    loaded = load({"database": url}, {})
    shown = json.dumps(loaded.settings.model_dump(mode="json")) + repr(loaded) + " ".join(loaded.warnings)
    assert "hush" not in shown
    assert ("option --database holds a password" in loaded.warnings[0]) if url == URL else True


@pytest.mark.parametrize(
    ("hosts", "mode"),
    [
        ("127.0.0.1", "prefer"),
        ("localhost:5433", "prefer"),
        ("[::1]:5433", "prefer"),
        ("127.0.0.1,db", "verify-full"),
        ("10.0.0.5", "verify-full"),
        ("localhost.example", "verify-full"),
    ],
)
def test_tls_is_verified_beyond_this_machine(hosts: str, mode: str) -> None:
    """Unless the URL says something else."""
    assert PostgresAddress.parse(f"postgresql://gateway@{hosts}/r").url.endswith(f"?sslmode={mode}")
    assert PostgresAddress.parse(f"postgresql://gateway@{hosts}/r?sslmode=verify-ca").url.endswith("=verify-ca")


@pytest.mark.parametrize(
    ("rest", "mode"),
    [
        ("/r?host=localhost", "prefer"),
        ("/r?host=/run/postgresql", "prefer"),
        ("/r?host=::1", "prefer"),
        ("localhost/r?hostaddr=127.0.0.1", "prefer"),
        ("/r?host=db.example", "verify-full"),
        ("/r?host=::2", "verify-full"),
        ("/r?host=localhost,db", "verify-full"),
        ("localhost/r?host=db.example", "verify-full"),
        ("localhost/r?hostaddr=10.0.0.5", "verify-full"),
        ("localhost/r?host=db.example&host=localhost", "verify-full"),
        ("localhost/r?service=abroad", "verify-full"),
    ],
)
def test_hosts_of_options_count_too(rest: str, mode: str) -> None:
    """The client library connects to the host that an option names, and not to the one before the path."""
    assert PostgresAddress.parse(f"postgresql://gateway@{rest}").url.endswith(f"&sslmode={mode}")
