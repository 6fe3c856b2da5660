"""Deliberate faults of the firmware."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from device_sim import grant, reset
from device_sim.actions import Action, EraseFlash, WriteFlash
from device_sim.device import Device
from device_sim.journal import Journal, Outcome
from device_sim.last_command import LAST_COMMAND, LastCommand
from device_sim.recordings import RECORDINGS, Recordings
from device_sim.reset import IN_PROGRESS
from tests.simulation.broker_session import Packet
from tests.simulation.device_radio import VirtualRadio
from tests.simulation.mutants import mutant


@mutant("a device does not look at the generation", 2)
def _ignores_generation() -> Iterator[None]:
    with patch.object(grant, "_check_generation", lambda *_: None):
        yield


@mutant("a device forgets the ids of executed commands", 2)
def _forgets_executed_ids() -> Iterator[None]:
    with patch.object(Journal, "find", lambda *_: None):
        yield


@mutant("a device takes retained messages for old ones", 1)
def _ignores_retained() -> Iterator[None]:
    real = VirtualRadio.receive

    def receive(self: VirtualRadio, packet: Packet) -> None:
        if not packet.retain:
            real(self, packet)

    with patch.object(VirtualRadio, "receive", receive):
        yield


@mutant("a device does not check who signed a command", 1, 2, 3)
def _no_grant() -> Iterator[None]:
    with patch.object(grant, "check", lambda *_: 1):
        yield


@mutant("a device stores no outcome of its wipe", 1)
def _stores_no_wipe_outcome() -> Iterator[None]:
    with _without_writes(LAST_COMMAND):
        yield


@mutant("a device takes a PUBACK for the gateway's confirmation", 1)
def _trusts_the_puback() -> Iterator[None]:
    with patch.object(LastCommand, "confirm", lambda self, _: self.handle_refusal(b'{"field": "last_command."}')):
        yield


@mutant("a device does not write down that it begins a reset", 1)
def _stores_no_reset_in_progress() -> Iterator[None]:
    with _without_writes(IN_PROGRESS):
        yield


@mutant("a device uploads what an earlier owner recorded", 2)
def _uploads_everything() -> Iterator[None]:
    with patch.object(Recordings, "_waiting", lambda self, _: sorted(self._made_in)):
        yield


@mutant("a device keeps recordings that it was to wipe", 2)
def _keeps_everything() -> Iterator[None]:
    real = reset.erase

    def erase(outcome: Outcome, recordings: Recordings) -> Sequence[Action]:
        kept = Recordings({RECORDINGS: recordings._made_in})  # noqa: SLF001  # a copy, which may forget
        return [each for each in real(outcome, kept) if not (isinstance(each, EraseFlash) and each.name == RECORDINGS)]

    with patch.object(reset, "erase", erase):
        yield


@mutant("a device forgets in a power cut that it was to wipe recordings", 2)
def _forgets_the_choice() -> Iterator[None]:
    real = Device._resume_reset  # noqa: SLF001  # the step that is spoilt

    def resume(self: Device, outcome: Outcome) -> Sequence[Action]:
        result = dict(outcome.result or {})
        result["wiped"] = [each for each in result["wiped"] if each != RECORDINGS]
        return real(self, replace(outcome, result=result))

    with patch.object(Device, "_resume_reset", resume):
        yield


@contextmanager
def _without_writes(name: str) -> Iterator[None]:
    real = Device.handle

    def handle(self: Device, *given: Any) -> Sequence[Action]:
        return [each for each in real(self, *given) if not (isinstance(each, WriteFlash) and each.name == name)]

    with patch.object(Device, "handle", handle):
        yield
