"""Faults come from a seed, strike where they were asked for, and leave the rest alone."""

import pytest

from device_sim.actions import Action, Area, EraseFlash, OpenLink, Publish, Reboot, RecordFact, WriteFlash
from device_sim.errors import PowerCutError
from device_sim.facts import step
from device_sim.faults import NoFaults, SeededFaults
from tests.device_sim.support import Signer as _Signer
from tests.device_sim.support import make_binding, seeded

ACTIONS: list[tuple[Action, str]] = [
    (RecordFact("online"), "tell:online"),
    (Publish("heartbeat", b"{}"), "publish:heartbeat"),
    (Publish("ack", b"{}", "cmd_1", "reboot", "executed"), "publish:ack:executed"),
    (WriteFlash(Area.KEPT, "reset_in_progress", {}), "write:reset_in_progress"),
    (EraseFlash(Area.WIPED, "device_token"), "erase:device_token"),
    (OpenLink("wifi", make_binding(_Signer())), "open_link"),
    (Reboot(), "reboot"),
]


@pytest.mark.parametrize(("action", "name"), ACTIONS, ids=[name for _, name in ACTIONS])
def test_steps_have_names(action: Action, name: str) -> None:
    """Every action can be named, so that the power can go before it."""
    assert step(action) == name
    with pytest.raises(PowerCutError, match=name):
        SeededFaults(seeded(), power_cuts=[name]).before(action)


def test_a_power_cut_happens_once() -> None:
    """Each entry of the list cuts the power once; twice named, twice cut."""
    faults = SeededFaults(seeded(), power_cuts=["reboot", "reboot"])
    for _ in range(2):
        with pytest.raises(PowerCutError):
            faults.before(Reboot())
    faults.before(Reboot())


def test_no_faults_leave_every_message_alone() -> None:
    """Without faults every message arrives once, at once, over a link that stays."""
    faults = NoFaults()
    faults.before(Reboot())
    assert faults.copies("incoming") == faults.copies("outgoing") == (0.0,)
    assert faults.link_lifetime() is None


def test_faults_occur_at_their_rates() -> None:
    """A fifth is lost, a third of the rest comes twice, and no copy is later than the bound."""
    faults = SeededFaults(seeded(), drop=0.2, duplicate=1 / 3, delay=(0.5, 2.0), flap=(1.0, 3.0))
    copies = [faults.copies("incoming") for _ in range(5000)]
    counts = [sum(len(each) == number for each in copies) / len(copies) for number in range(3)]
    assert counts == pytest.approx([0.2, 0.8 * 2 / 3, 0.8 / 3], abs=0.03)
    assert all(0.5 <= delay <= 2.0 for each in copies for delay in each)
    lifetime = faults.link_lifetime()
    assert lifetime is not None
    assert 1.0 <= lifetime <= 3.0


def test_the_same_seed_gives_the_same_faults() -> None:
    """The same seed does the same harm."""

    def harm(seed: int) -> list[tuple[float, ...]]:
        faults = SeededFaults(seeded(seed), drop=0.3, duplicate=0.3, delay=(0, 1))
        return [faults.copies("outgoing") for _ in range(50)]

    assert harm(1) == harm(1) != harm(2)
