"""Report of a run: as text for people, as JSON, and as JUnit XML for a build server."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from device_sim.conformance.findings import LINES, OUTSIDE, Finding, Findings
from device_sim.terminal_text import escaped

PASSED, FAILED, UNCHECKED = 0, 1, 3
MARKS: Mapping[str, str] = {"passed": "passed", "failed": "FAILED", "not checked": "not checked"}
WIDTH = max(map(len, MARKS.values()))
SHOWN = 3


def exit_code(findings: Findings, *, allow_unchecked: bool) -> int:
    """Return 0 when all lines hold, 1 when one failed, 3 when one was not checked and that is not allowed."""
    verdicts = set(findings.verdicts().values())
    if "failed" in verdicts:
        return FAILED
    return UNCHECKED if "not checked" in verdicts and not allow_unchecked else PASSED


def as_text(findings: Findings, serial: str) -> str:
    """Return the report, one line for each line of the checklist, and what was seen below it."""
    rows = [f"Conformance of {escaped(serial)}", ""]
    for finding in findings.of_line.values():
        rows.append(f"{MARKS[finding.verdict]:{WIDTH}}  {finding.line:4} {LINES[finding.line]}")
        rows.extend(f"{'':{WIDTH}}       {text}" for text in _shown(finding))
    counts = Counter(findings.verdicts().values())
    outside = ", ".join(f"{line} ({what})" for line, what in OUTSIDE.items())
    rows += ["", f"Cannot be seen from the network: {outside}."]
    rows += [f"{counts['passed']} passed, {counts['failed']} failed, {counts['not checked']} not checked."]
    return "\n".join(rows)


def _shown(finding: Finding) -> list[str]:
    """Return what was seen: all that failed, and the first few that held."""
    seen = [escaped(each) for each in finding.seen]
    if finding.verdict == "failed" or len(seen) <= SHOWN:
        return seen
    return [*seen[: SHOWN - 1], f"and {len(seen) - SHOWN + 1} more"]


def as_json(findings: Findings, serial: str) -> str:
    """Return the report for a machine."""
    counts = Counter(findings.verdicts().values())
    body: dict[str, Any] = {
        "serial_number": serial,
        "interrupted": findings.interrupted,
        "counts": {verdict.replace(" ", "_"): counts[verdict] for verdict in ("passed", "failed", "not checked")},
        "lines": [
            {
                "id": line,
                "title": LINES[line],
                "verdict": finding.verdict.replace(" ", "_"),
                "passed": finding.passed,
                "failed": finding.failed,
                "not_checked": finding.unchecked,
            }
            for line, finding in findings.of_line.items()
        ],
        "outside": dict(OUTSIDE),
    }
    return json.dumps(body, indent=2) + "\n"


def as_junit(findings: Findings, serial: str) -> str:
    """Return the report as JUnit XML: a test case for each line; one that was not checked counts as skipped."""
    counts = Counter(findings.verdicts().values())
    totals = {"tests": len(findings.of_line), "failures": counts["failed"], "skipped": counts["not checked"]}
    suite = ET.Element("testsuite", {"name": f"conformance of {escaped(serial)}"})
    suite.attrib.update({name: str(value) for name, value in totals.items()})
    for line, finding in findings.of_line.items():
        case = ET.SubElement(suite, "testcase", {"classname": "conformance", "name": f"{line} {LINES[line]}"})
        seen = escaped("; ".join(finding.seen))
        if finding.verdict == "passed":
            ET.SubElement(case, "system-out").text = seen
        else:
            tag = "failure" if finding.verdict == "failed" else "skipped"
            ET.SubElement(case, tag, {"message": seen})
    ET.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suite, encoding="unicode") + "\n"
