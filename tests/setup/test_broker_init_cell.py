"""`gateway broker init --cell`: the set of one cell, whose registry is a database that all cells share."""

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from gateway.core.addresses import BrokerUrl
from gateway.errors import GatewayError
from gateway.settings.loading import load
from gateway.setup.broker_init import initialise
from gateway.setup.file_manifest import NAME as MANIFEST
from gateway.setup.options import InitOptions
from tests.setup.support import SETTINGS, contents, init, lines
from tests.support.certificates import make_authority

PASSWORD = "the-word-of-the-database"
URL = "postgresql://gateway@db1,db2/registry"
UNIT = "systemd/device-gateway.service"


def password_file(folder: Path, text: str = f"{PASSWORD}\n") -> str:
    """A file as the operator has it."""
    file = folder / "word"
    file.write_text(text)
    return str(file)


def test_the_settings_name_the_cell_and_its_registry(tmp_path: Path) -> None:
    """They can be loaded, and the password stands in one file, for the gateway's user alone."""
    site = tmp_path / "site"
    outcome = init(site, cell="cell_1", database=URL, database_password_file=password_file(tmp_path))
    settings = load({}, {}, site / SETTINGS).settings
    assert (settings.broker_id, settings.gateway_id, settings.is_shared) == ("cell_1", "gw_cell_1", True)
    registry = settings.registry
    assert not isinstance(registry, Path)
    assert registry.url == f"{URL}?sslmode=verify-full"
    assert registry.password is not None
    assert registry.password.get_secret_value() == PASSWORD
    assert {name for name, text in contents(site).items() if PASSWORD.encode() in text} == {"gateway/database-password"}
    assert stat.S_IMODE((site / "gateway/database-password").stat().st_mode) & 0o007 == 0
    assert outcome.files["gateway/database-password"] == "written"
    assert PASSWORD not in json.dumps(json.loads((site / MANIFEST).read_text()))
    assert "StartLimitIntervalSec=0" in lines(site / UNIT)


def test_a_second_run_takes_a_new_password(tmp_path: Path) -> None:
    """Nothing changes while the file does not; then the copy alone does. Options that are left out stay."""
    site, word = tmp_path / "site", password_file(tmp_path)
    init(site, cell="cell_1", gateway_id="gw_9", database=URL, database_password_file=word)
    before = contents(site)
    assert set(initialise(site, InitOptions()).files.values()) == {"unchanged"}
    assert contents(site) == before
    password_file(tmp_path, "another\n")
    changed = initialise(site, InitOptions()).files
    assert {name for name, state in changed.items() if state != "unchanged"} == {"gateway/database-password"}
    assert (site / "gateway/database-password").read_text() == "another\n"
    assert load({}, {}, site / SETTINGS).settings.gateway_id == "gw_9"


def test_a_site_without_a_cell_is_as_before(tmp_path: Path) -> None:
    """Its registry is in its data directory, and no setting of a cell is written."""
    init(tmp_path)
    settings = load({}, {}, tmp_path / SETTINGS).settings
    assert (settings.is_shared, settings.broker_id, settings.gateway_id) == (False, "default", None)
    assert "StartLimitIntervalSec=0" not in lines(tmp_path / UNIT)


def test_cells_can_share_a_trial_authority(tmp_path: Path) -> None:
    """A copied authority signs the next cell's certificate; the outcome says why that matters."""
    one, other = tmp_path / "one", tmp_path / "other"
    outcome = init(one, cell="cell_1", database=URL)
    assert any("one authority" in each for each in outcome.problems)
    other.mkdir()
    shutil.copytree(one / "authority", other / "authority")
    init(other, cell="cell_2", database=URL)
    assert (one / "ca.pem").read_bytes() == (other / "ca.pem").read_bytes()
    assert (one / "mosquitto/server.pem").read_bytes() != (other / "mosquitto/server.pem").read_bytes()
    assert "database_password_file" not in (other / SETTINGS).read_text()


def test_the_gateway_of_a_cell_connects_to_its_own_broker(tmp_path: Path) -> None:
    """Devices receive the first name, which leads to a load balancer; the gateway takes the last one."""
    authority = make_authority(tmp_path / "ca")
    pair = authority.server("own", ["gateway.invalid", "localhost"])
    chain, key = str(pair.certificate), str(pair.key)
    files: dict[str, Any] = {"cert_file": chain, "key_file": key, "ca_file": str(authority.files.certificate)}
    good = init(tmp_path / "good", cell="a", database=URL, names=("gateway.invalid", "localhost"), **files)
    settings = load({}, {}, tmp_path / "good" / SETTINGS).settings
    assert isinstance(settings.broker, BrokerUrl)
    assert (settings.broker.address.host, str(settings.mqtt_advertise)) == ("localhost", "gateway.invalid:8883")
    assert good.problems == ()
    lost = init(tmp_path / "lost", cell="a", database=URL, names=("gateway.invalid",), **files)
    assert [each for each in lost.problems if "'127.0.0.1 gateway.invalid' to /etc/hosts" in each]


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"cell": "a-b", "database": URL}, "--cell: 'a-b' should be 1 to 64 letters"),
        ({"cell": "a", "gateway_id": "a b", "database": URL}, "--gateway-id: 'a b' should be"),
        ({"cell": "a" * 64, "database": URL}, "--gateway-id: .* should be 1 to 64"),
        ({"cell": "a"}, "--cell needs --database"),
        ({"database": URL}, "--database belongs to a cell"),
        ({"gateway_id": "gw_1"}, "--gateway-id belongs to a cell"),
        ({"cell": "a", "database": "mysql://g@h/d"}, "--database: should be postgresql://"),
        ({"cell": "a", "database": "postgresql://g@h"}, "--database: names no database"),
        ({"cell": "a", "database": f"postgresql://g:{PASSWORD}@h/d"}, "--database: leave the password out of the URL"),
        ({"cell": "a", "database": 'postgresql://g@h/d"'}, "--database: should have no quotation mark"),
        ({"cell": "a", "database": URL, "database_password_file": "/not/there"}, "--database-password-file"),
    ],
)
def test_wrong_options_write_nothing(tmp_path: Path, wish: dict[str, Any], says: str) -> None:
    """The error names the option, and never a password."""
    with pytest.raises(GatewayError, match=says) as refused:
        init(tmp_path / "site", **wish)
    assert PASSWORD not in refused.value.message
    assert not (tmp_path / "site").exists()
