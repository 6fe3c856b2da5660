"""``gateway certificates`` on a data directory, and its check without one."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from gateway.domain import grants
from gateway.store import View, open_database
from tests.cli.support import Cli


def ended(cli: Cli, serial: str) -> str:
    """A device whose reset was cancelled: the id of the command."""
    cli.bound(serial)
    command = cli.json("devices", "reset", serial, "--yes")["command"]
    cli("commands", "cancel", command["device_id"], command["id"])
    return str(command["id"])


@pytest.fixture
def files(cli: Cli, tmp_path: Path) -> tuple[Path, Path]:
    """An exported chain of two certificates, and the keys."""
    for serial in ("BP-1", "BP-2"):
        ended(cli, serial)
    chain, keys = tmp_path / "chain.ndjson", tmp_path / "jwks.json"
    chain.write_text(cli("certificates", "export").out)
    connection = open_database(cli.data_dir)
    published = [key.model_dump() for key in grants.published_keys(View(connection))]
    connection.close()
    keys.write_text(json.dumps({"keys": published}))
    return chain, keys


def test_certificates_are_listed_shown_and_exported(cli: Cli) -> None:
    """The newest first; by the id of the certificate and of the reset; the export is a chain."""
    first, second = ended(cli, "BP-1"), ended(cli, "BP-2")
    listed = cli.json("certificates", "list")
    assert [(each["number"], each["command_id"], each["outcome"]) for each in listed] == [
        (2, second, "cancelled"),
        (1, first, "cancelled"),
    ]
    assert cli("certificates", "list", "--limit", "1").rows[0][1].strip() == listed[0]["id"]
    shown = cli.json("certificates", "show", listed[1]["id"])
    assert (shown["claims"]["grant"]["jti"], shown["claims"]["number"]) == (first, 1)
    jws = cli("certificates", "show", first, "--jws").out.strip()
    assert (jws, hashlib.sha256(jws.encode()).hexdigest()) == (shown["jws"], shown["sha256"])
    assert "grant.jti" in cli("certificates", "show", first).out
    exported = [json.loads(line) for line in cli("certificates", "export").out.splitlines()]
    assert [each["number"] for each in exported] == [1, 2]
    assert [json.loads(line)["id"] for line in cli("certificates", "export", "--after", "1").out.splitlines()] == [
        listed[0]["id"]
    ]


def test_what_is_not_there_is_named(cli: Cli) -> None:
    """An unknown id, an open reset, a project among several."""
    cli.bound("BP-1")
    command = cli.json("devices", "reset", "BP-1", "--yes")["command"]
    assert "an open reset has none yet" in cli("certificates", "show", command["id"], code=4).err
    assert cli("certificates", "export").out == ""
    cli("projects", "create", "other")
    assert "name one with --project" in cli("certificates", "list", code=2).err
    assert cli("certificates", "list", "--project", "other").rows == []


def test_an_export_is_verified_offline(cli: Cli, files: tuple[Path, Path]) -> None:
    """Exit code 0 and what was found; 1 and the first broken link for a manipulated one."""
    chain, keys = files
    arguments = ("certificates", "verify", str(chain), "--jwks", str(keys))
    (found,) = cli.json_of(*arguments)
    assert (found["first"], found["last"], found["certificates"]) == (1, 2, 2)
    lines = chain.read_text().splitlines()
    chain.write_text("\n".join([lines[0], lines[0]]))
    assert "line 2: certificate cert_" in cli.fails(*arguments, code=1)
    chain.write_text(lines[1])
    assert cli.json_of(*arguments)[0]["first"] == 2
    chain.write_text(f"{lines[1]}\n{lines[1]}")
    assert "It is a duplicate" in cli.fails(*arguments, "--partial", code=1)


def test_wrong_files_and_keys_say_what_to_do(
    cli: Cli, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing file, missing keys, a file without keys, a URL where nothing answers, a text that is no URL."""
    chain, keys = files
    verify = ("certificates", "verify", str(chain))
    assert "does not exist" in cli.fails("certificates", "verify", "nothing.jws", "--jwks", str(keys), code=2)
    assert "Missing option '--jwks'" in cli.fails(*verify, code=2)
    assert "nowhere.json cannot be read" in cli.fails(*verify, "--jwks", "nowhere.json", code=2)
    assert "is no set of public keys" in cli.fails(*verify, "--jwks", str(chain), code=1)
    assert "No gateway answers" in cli.fails(*verify, "--jwks", "http://127.0.0.1:9/.well-known/jwks.json", code=1)
    assert "is no URL" in cli.fails(*verify, "--jwks", "http://[", code=2)
    with chain.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert cli.json_of("certificates", "verify", "-", "--jwks", str(keys))[0]["certificates"] == 2
