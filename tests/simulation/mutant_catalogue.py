"""All deliberate faults, from every module that registers some."""

from tests.simulation import device_mutants, grant_mutants, key_mutants, token_mutants
from tests.simulation.mutants import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant", "device_mutants", "grant_mutants", "key_mutants", "token_mutants"]
