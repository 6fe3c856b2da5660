"""The MicroPython firmware follows the checklist, and the conformance kit says so."""

from pathlib import Path
from typing import Any

import pytest

from device_sim.conformance.findings import LINES
from device_sim.conformance.report import as_text
from device_sim.conformance.tls_side import TlsSide
from tests.device_sim.conformance.bench import INTERVAL, judge
from tests.firmware.device import NETWORKS, FirmwareDevice
from tests.support.certificates import make_authority, server_pair
from tests.support.wait import eventually

LONGEST_MS, STABLE_MS = 800, 700
PATIENCE = 20.0
"""Seconds: an Ed25519 signature is verified in Python here."""


class FirmwareRig:
    """The firmware on the Unix port, whose power is cut by a kill."""

    def __init__(self, folder: Path, ca_file: str) -> None:
        self.url = ""
        self._folder = folder
        self._ca_file = ca_file
        self._device: FirmwareDevice | None = None

    async def bind(self, answer: dict[str, Any], *, first: bool) -> None:
        """Send the bind answer over the serial line, once the device is unpaired."""
        if first:
            config: dict[str, Any] = {"api_url": self.url, "ca_file": self._ca_file, "heartbeat_seconds": INTERVAL}
            pauses: dict[str, Any] = {"backoff_longest_ms": LONGEST_MS, "backoff_stable_ms": STABLE_MS}
            self._device = FirmwareDevice(self._folder, "DUT-1", **config, **pauses)
            await self._device.start()
        device = self._device
        assert device is not None

        async def is_provisioned() -> bool:
            return bool((await device.ask(do="provision", bind=answer, networks=NETWORKS))["ok"])

        # It refuses while it is paired: the companion app asks again.
        await eventually(is_provisioned, "the firmware takes the bind answer")

    async def cut_power(self) -> None:
        """Kill it, and start it on its flash."""
        assert self._device is not None
        await self._device.kill()
        await self._device.start()

    def patience(self, usual: float, *, first: bool) -> float:
        """Wait as for everything else."""
        del first
        return usual

    async def power_off(self) -> None:
        """Kill it at the end of the test."""
        if self._device is not None:
            await self._device.kill()


@pytest.mark.checklist(*LINES)
async def test_the_firmware_passes_every_line(tmp_path: Path) -> None:
    """Over TLS, where no line is left out."""
    authority = make_authority(tmp_path)
    pair = server_pair(authority)
    rig = FirmwareRig(tmp_path / "device", str(authority.files.certificate))
    findings = await judge(rig, tls=TlsSide(pair.certificate, pair.key), patience=PATIENCE)
    assert findings.verdicts() == dict.fromkeys(LINES, "passed"), as_text(findings, "firmware")
