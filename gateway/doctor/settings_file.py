"""Checks of the settings file: who may read its secrets, and whether the running gateway was started with it.

The gateway's password is not tried at the broker. Where the broker makes the user name the client id (Mosquitto with
our configuration), that would end the gateway's session, and what is queued in it would be lost.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from gateway.core.addresses import BrokerUrl
from gateway.doctor.findings import Finding
from gateway.doctor.host_checks import SETTINGS
from gateway.settings.broker_api import BrokerApi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.broker.doctor_accounts import ProbeAccounts
    from gateway.settings.loading import Loaded


def settings_file(loaded: Loaded, running: ProbeAccounts | None) -> Iterator[Finding]:
    """Check the file that was read, if there was one; ``running`` has digests of the running gateway's settings."""
    file = loaded.config_file
    if file is None:
        return
    written = [name for name, source in loaded.sources.items() if source.startswith(f"{file.name}:")]
    secret = [name for name in written if _holds_a_secret(getattr(loaded.settings, name))]
    if secret and stat.S_IMODE(file.stat().st_mode) & stat.S_IROTH:
        yield SETTINGS.error(
            "file's mode",
            f"everybody on this machine may read {file}, which holds a password ({', '.join(secret)})",
            f"chmod o-rwx {file}, and change the password.",
        )
    else:
        yield SETTINGS.ok("file's mode", f"{file}: no secret that everybody may read")
    if running is None or not running.settings:
        return
    others = [
        name
        for name in written
        if running.settings.get(name) not in (None, running.digest(name, getattr(loaded.settings, name)))
    ]
    if others:
        yield SETTINGS.warning(
            "running gateway",
            f"{file} says otherwise than the gateway that runs was started with: {', '.join(others)}",
            "Restart the gateway, so that it goes by the file, or put the file right. If an option or the environment "
            "says so too, give it to the doctor as well.",
        )
    else:
        yield SETTINGS.ok("running gateway", "it was started with what the file says")


def _holds_a_secret(value: object) -> bool:
    return isinstance(value, BrokerApi) or (isinstance(value, BrokerUrl) and value.password is not None)
