"""The simulator follows the checklist, and the kit says so."""

from dataclasses import replace
from pathlib import Path

from device_sim.conformance.findings import LINES, OUTSIDE
from device_sim.conformance.report import as_text, exit_code
from device_sim.conformance.tls_side import TlsSide
from tests.device_sim.conformance.bench import QUICK, Rig, judge
from tests.support.certificates import make_authority, server_pair
from tests.support.checklist import lines


async def test_the_simulator_passes_every_line(tmp_path: Path) -> None:
    """Over TLS, where no line is left out."""
    authority = make_authority(tmp_path)
    pair = server_pair(authority)
    ca_file = str(authority.files.certificate)
    rig = Rig(options=replace(QUICK, ca_file=ca_file), ca_file=ca_file)
    findings = await judge(rig, tls=TlsSide(pair.certificate, pair.key))
    assert findings.verdicts() == dict.fromkeys(LINES, "passed"), as_text(findings, "simulator")
    assert exit_code(findings, allow_unchecked=False) == 0


def test_each_line_of_the_checklist_is_checked_or_outside() -> None:
    """A line that is added to docs/firmware.md has to be decided about."""
    assert sorted([*LINES, *OUTSIDE]) == sorted(each.id for each in lines())
