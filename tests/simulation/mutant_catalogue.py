"""All deliberate faults, from every module that registers some."""

from tests.simulation import (
    broker_mutants,
    certificate_mutants,
    cluster_mutants,
    device_mutants,
    grant_mutants,
    home_mutants,
    job_mutants,
    key_mutants,
    person_mutants,
    token_mutants,
)
from tests.simulation.mutants import MUTANTS, Mutant

__all__ = [
    "MUTANTS",
    "Mutant",
    "broker_mutants",
    "certificate_mutants",
    "cluster_mutants",
    "device_mutants",
    "grant_mutants",
    "home_mutants",
    "job_mutants",
    "key_mutants",
    "person_mutants",
    "token_mutants",
]
