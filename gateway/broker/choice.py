"""Choice between the brokers that the gateway can run: the one that is set, or the best that is installed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Final, Literal

from broker_config import local
from gateway.errors import UnavailableError
from gateway.settings.loading import Settings
from gateway.settings.types import EMBEDDED, MOSQUITTO

OLDEST: Final = (2, 0)
"""The oldest version that ``broker_config`` is written for."""


@dataclass(frozen=True)
class Choice:
    """``program`` is the path of Mosquitto, where that was chosen; ``why`` is logged at the start."""

    kind: Literal["embedded", "mosquitto"]
    why: str
    program: str = ""


def choose(settings: Settings) -> Choice:
    """Return the broker that the gateway runs under these settings.

    Raises:
        UnavailableError: the settings name Mosquitto, and it is not installed or too old.
    """
    if settings.broker == EMBEDDED:
        return Choice(EMBEDDED, "it is what 'broker' says")
    if settings.broker != MOSQUITTO and settings.mqtt_client_ca_file:
        return Choice(
            EMBEDDED,
            "mqtt_client_ca_file is set, and Mosquitto does not compare a certificate's CN with the device's id",
        )
    try:
        program = usable()
    except UnavailableError as error:
        if settings.broker == MOSQUITTO:
            raise
        return Choice(EMBEDDED, error.message)
    return Choice(MOSQUITTO, f"{program} is installed", program)


def usable() -> str:
    """Return the path of a Mosquitto that is new enough.

    Raises:
        UnavailableError: there is none; the message says what to install.
    """
    try:
        program = local.binary()
        found = local.version(program)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(
            f"Mosquitto cannot be run here ({error}). Install it (Debian: apt-get install mosquitto), or use the "
            "embedded broker: --broker embedded."
        ) from error
    if found is None or found < OLDEST:
        version = f"{found[0]}.{found[1]}" if found else "of an unknown version"
        raise UnavailableError(f"{program} is {version}, and 2.0 or newer is needed.")
    return program
