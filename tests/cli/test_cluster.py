"""``gateway cluster``: gateways, leases and their owners, what waits, and the database, on both engines."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.store import Context, Tx, broker_sql, lease_sql, open_database, transact
from gateway.store.lease_sql import FLEET, GatewayRecord, Holder
from gateway.store.location import Location
from tests.support.postgres import database

GATEWAY = GatewayRecord("gw_a", "i", "1.0.0", "node-1", "127.0.0.1:8080", "default", 0, 0)


def _fill(where: Location) -> None:
    def fill(tx: Tx) -> None:
        lease_sql.register(tx, GATEWAY, 6_000)
        broker_sql.join(tx, "default")
        broker_sql.leave_out(tx, broker_sql.join(tx, "brk_b"))
        lease_sql.acquire(tx, "broker:default", Holder("gw_a", "i"), 60_000)
        handed_over = lease_sql.acquire(tx, FLEET, Holder("gw_b", "j"), 60_000)
        assert handed_over is not None
        lease_sql.release(tx, handed_over)

    with closing(open_database(where)) as connection:
        transact(connection, Context(), fill)


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_who_does_what(engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Owners with epochs; a lease that no gateway holds is named on stderr, for people."""
    address = database(tmp_path)
    where: Location = address if engine == "postgresql" else tmp_path
    options = ["--data-dir", str(tmp_path), *(["--database", address.url] if engine == "postgresql" else [])]
    _fill(where)
    assert main(["cluster", "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    (gateway,) = found["gateways"]
    assert (gateway["gateway_id"], gateway["host"], gateway["http"]) == ("gw_a", "node-1", "127.0.0.1:8080")
    held = [(each["name"], each["owner"], each["epoch"]) for each in found["leases"]]
    assert held == [("broker:default", "gw_a", 1), (FLEET, None, 1)]
    assert [(each["broker_id"], each["owner"], each["state"]) for each in found["brokers"]] == [
        ("default", "gw_a", "away"),
        ("brk_b", None, "left out"),
    ]
    assert 0 < found["leases"][0]["ends_in_seconds"] <= 60
    assert (found["database"]["engine"], found["database"]["role"]) == (engine, "primary")
    assert main(["cluster", *options]) == 0
    shown = capsys.readouterr()
    assert "broker:default  gw_a" in shown.out
    assert shown.err == "No gateway holds the lease 'fleet' now.\n"


def test_a_broker_that_is_gone_is_forgotten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One with a gateway stays, and the message says what to do first."""
    _fill(tmp_path)
    options = ["--yes", "--data-dir", str(tmp_path)]
    assert main(["registry", "forget-broker", "default", *options]) != 0
    assert "served by gw_a. Stop these gateways first" in capsys.readouterr().err
    assert main(["registry", "forget-broker", "brk_b", *options]) == 0
    assert main(["cluster", "--json", "--data-dir", str(tmp_path)]) == 0
    assert [each["broker_id"] for each in json.loads(capsys.readouterr().out.strip())["brokers"]] == ["default"]


def test_without_a_registry_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And makes none."""
    assert main(["cluster", "--data-dir", str(tmp_path / "none")]) == 4
    assert "no registry" in capsys.readouterr().err.lower()
    assert not (tmp_path / "none").exists()
