"""``gateway doctor`` as people read it."""

from cli.support import Cli


def test_an_area_has_one_heading_and_words_fit_their_numbers(cli: Cli) -> None:
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
