"""Planted faults: each device fails at its line, and only where that fault shows."""

import asyncio
from dataclasses import replace

import pytest

from device_sim.conformance.findings import Findings
from device_sim.conformance.report import as_text, exit_code
from tests.device_sim.conformance import faulty
from tests.device_sim.conformance.bench import QUICK, Rig, judge
from tests.device_sim.conformance.faulty_device import a_device

OF_COMMANDS = {
    "accepts every signature": (Rig(a_device(faulty.AnySignature)), {"C3", "C21", "C22", "C27", "C37", "C38"}),
    "ignores the params": (Rig(a_device(faulty.AnyParams)), {"C23"}),
    "checks iat": (Rig(a_device(faulty.ChecksIat)), {"C21"}),
    "ignores the sequence": (Rig(a_device(faulty.AnySequence)), {"C24", "C25"}),
    "forgets ids": (Rig(a_device(faulty.ForgetsIds)), {"C24", "C25", "C27", "C28"}),
    "keeps ids in RAM": (Rig(a_device(faulty.KeepsIdsInRam)), {"C27"}),
    "decides by the retain flag": (Rig(a_device(radio=faulty.DropsRetained)), {"C27", "C28", "C29", "C35"}),
    "acknowledges an empty payload": (Rig(a_device(faulty.AcknowledgesNothing)), {"C20"}),
}
OF_LINK_AND_RESET = {
    "wipes before delivered is confirmed": (Rig(a_device(faulty.WipesAtOnce)), {"C29"}),
    "sends no receipt": (Rig(a_device(radio=faulty.NoReceipt)), {"C29", "C30", "C37"}),
    "reconnects with the wiped token": (Rig(a_device(faulty.ReconnectsWiped)), {"C33"}),
    "reports no last_command": (Rig(a_device(faulty.NoLastCommand)), {"C35", "C36"}),
    "begins clean sessions": (Rig(a_device(radio=faulty.CleanSession)), {"C6"}),
    "publishes online before it subscribes": (Rig(a_device(radio=faulty.BirthFirst)), {"C8"}),
    "sends the token as its password": (Rig(a_device(radio=faulty.TokenAsPassword)), {"C11"}),
    "has keepalive 0": (Rig(options=replace(QUICK, keepalive_seconds=0)), {"C7"}),
    "does not back off": (Rig(options=replace(QUICK, backoff_longest=0.05, backoff_refused=0.05)), {"C15"}),
    "never refreshes its token": (Rig(a_device(faulty.NeverRefreshes)), {"C16"}),
}

OF_REFRESHES = {
    "stays at its broker": (Rig(a_device(faulty.StaysAtItsBroker)), {"C16"}),
    "asks once": (Rig(a_device(radio=faulty.AsksOnce)), {"C16"}),
    "takes any address": (Rig(api_type=faulty.AnyAddress), {"C16"}),
}

RESET_LINES = ["C23", *(f"C{number}" for number in (*range(29, 37), *range(39, 43)))]
"""What a fault about recordings can touch; the rest of the kit would take its time and tell the same."""
OF_RECORDINGS = {
    "takes the choice from the message": (Rig(a_device(faulty.ParWithoutRecordings)), {"C23"}),
    "keeps recordings at an unknown word": (Rig(a_device(faulty.AnyChoice)), {"C39"}),
    "uploads what another owner recorded": (Rig(a_device(faulty.UploadsOthers)), {"C40", "C41"}),
    "reports a wipe of recordings that it did not do": (Rig(a_device(faulty.SaysWiped)), {"C41"}),
    "counts no recordings": (Rig(a_device(faulty.CountsNothing)), {"C42"}),
    "claims a technique for what it kept": (Rig(a_device(faulty.ClaimsMore)), {"C42"}),
}


@pytest.mark.parametrize(
    ("faults", "lines"),
    [(OF_COMMANDS, None), (OF_LINK_AND_RESET, None), (OF_REFRESHES, ["C16", "C17"]), (OF_RECORDINGS, RESET_LINES)],
    ids=["commands", "link and reset", "refreshes", "recordings"],
)
async def test_each_planted_fault_fails_at_its_lines(
    faults: dict[str, tuple[Rig, set[str]]], lines: list[str] | None
) -> None:
    """One kit for each device, all at once."""
    ended = await asyncio.gather(*(judge(rig, lines=lines) for rig, _ in faults.values()))
    for name, findings in zip(faults, ended, strict=True):
        print(as_text(findings, name))  # noqa: T201  # the reports belong to a failure
    found = {name: failed(findings) for name, findings in zip(faults, ended, strict=True)}
    assert found == {name: expected for name, (_, expected) in faults.items()}
    assert {exit_code(findings, allow_unchecked=True) for findings in ended} == {1}


def failed(findings: Findings) -> set[str]:
    """The lines that failed."""
    return {line for line, verdict in findings.verdicts().items() if verdict == "failed"}
