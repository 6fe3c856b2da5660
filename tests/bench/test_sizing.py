"""The sizing of the guide is what the command computes, and its costs can be measured."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from bench import storage
from bench.sizing import POSTGRESQL, ROWS, SQLITE, cores, main, need, table

GUIDE = Path(__file__).parents[2] / "docs" / "sizing.md"


@pytest.mark.parametrize(("name", "costs"), [("sqlite", SQLITE), ("postgresql", POSTGRESQL)])
def test_the_guide_has_the_computed_tables(name: str, costs: object) -> None:
    """Byte for byte: `python -m bench.sizing` prints them."""
    assert costs in (SQLITE, POSTGRESQL)
    wanted = table(SQLITE if name == "sqlite" else POSTGRESQL)
    text = GUIDE.read_text("utf-8")
    _, _, rest = text.partition(f"<!-- sizing: {name} -->\n")
    found, _, _ = rest.partition("\n<!-- end -->")
    assert found == wanted
    assert found.count("\n") == len(ROWS) + 1


def test_the_need_follows_from_the_costs() -> None:
    """Twice the devices need twice as much, as do twice the heartbeats; thinned history knows the devices alone."""
    one, many, often = (need(devices, interval, SQLITE) for devices, interval in ((600, 60), (1_200, 60), (600, 30)))
    assert one.rate == 10
    assert one.raw == 10 * 86_400 * SQLITE.raw
    assert many == tuple(2 * each for each in one)
    assert (often.gateway, often.thinned) == (2 * one.gateway, one.thinned)
    assert one.thinned == 600 * 24 * SQLITE.thinned
    assert need(600, 86_400, SQLITE).thinned == 600 * SQLITE.thinned
    assert (cores(0), cores(0.5), cores(0.51)) == (1, 1, 2)


def test_another_size_is_computed() -> None:
    """With what the history needs in all, for both engines."""
    size = ("--devices", "1000", "--interval", "60", "--raw-days", "7", "--history-days", "8")
    outcome = CliRunner().invoke(main, size)
    assert outcome.exit_code == 0, outcome.output
    wanted = need(1_000, 60, SQLITE)
    assert f"{(wanted.raw * 7 + wanted.thinned) / 1_000_000:,.0f} MB" in outcome.output
    assert [line.partition(":")[0] for line in outcome.output.splitlines()[::2]] == ["SQLite", "PostgreSQL"]
    assert CliRunner().invoke(main, ["--devices", "0"]).exit_code == 2


def test_costs_can_be_measured() -> None:
    """On both engines: each part that an engine has costs something."""
    found = storage.measure(senders=20, each=20)
    assert found["sqlite"].gateway_seconds > 0
    assert (found["sqlite"].server_seconds, found["sqlite"].log_bytes) == (0, 0)
    assert all(each > 0 for each in vars(found["postgresql"]).values())
