"""Planted faults: each device fails at its line, and only where that fault shows."""

import asyncio
from dataclasses import replace

import pytest

from device_sim.conformance.findings import Findings
from device_sim.conformance.report import as_text, exit_code
from tests.device_sim.conformance import faulty
from tests.device_sim.conformance.bench import QUICK, Rig, judge
from tests.device_sim.conformance.faulty import a_device

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


@pytest.mark.parametrize("faults", [OF_COMMANDS, OF_LINK_AND_RESET], ids=["commands", "link and reset"])
async def test_each_planted_fault_fails_at_its_lines(faults: dict[str, tuple[Rig, set[str]]]) -> None:
    """One kit for each device, all at once."""
    ended = await asyncio.gather(*(judge(rig) for rig, _ in faults.values()))
    for name, findings in zip(faults, ended, strict=True):
        print(as_text(findings, name))  # noqa: T201  # the reports belong to a failure
    found = {name: failed(findings) for name, findings in zip(faults, ended, strict=True)}
    assert found == {name: lines for name, (_, lines) in faults.items()}
    assert {exit_code(findings, allow_unchecked=True) for findings in ended} == {1}


def failed(findings: Findings) -> set[str]:
    """The lines that failed."""
    return {line for line, verdict in findings.verdicts().items() if verdict == "failed"}
