"""``gateway doctor`` as people read it."""

import pytest

from gateway.doctor import host_checks
from gateway.doctor.findings import Level
from tests.cli.support import Cli


def test_headings_are_unique_and_plurals_correct(cli: Cli) -> None:
    """Whatever order things were looked at in; and one is no plural."""
    cli("devices", "register", "BP-1")
    report = cli("doctor", "--json", code=1)
    shown = cli("doctor", code=1).out.splitlines()
    headings = [line for line in shown if line and not line.startswith(" ")][:-1]
    assert len(headings) == len(set(headings))
    assert "broker" in headings
    assert any("1 device, 0 bound" in line for line in shown)
    warnings = report.out.count('"warning"') - 1  # of them all, not of the whole
    assert f" {warnings} warning{'' if warnings == 1 else 's'}, 0 errors" in shown[-1]


@pytest.mark.parametrize(
    ("version", "base", "level"),
    [
        ((3, 11, 4), "/opt/python", Level.WARNING),
        ((3, 11, 5), "/opt/python", Level.OK),
        ((3, 12, 8), "/opt/python", Level.WARNING),
        ((3, 13, 1), "/opt/python", Level.WARNING),
        ((3, 14, 0), "/opt/python", Level.OK),
        ((3, 11, 2), "/usr", Level.OK),  # Debian mends its own under the old number
    ],
)
def test_a_python_with_known_vulnerabilities_is_reported(
    version: tuple[int, int, int], base: str, level: Level
) -> None:
    """A floor for the patch level of each version; the finding names it."""
    assert host_checks.python(version, base).level is level
