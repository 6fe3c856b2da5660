"""All deliberate faults, from every module that registers some."""

from tests.simulation import device_mutants, grant_mutants, token_mutants
from tests.simulation.mutants import FAULTS, Fault

__all__ = ["FAULTS", "Fault", "device_mutants", "grant_mutants", "token_mutants"]
