"""Output of ``gateway serve``: where it listens, then that it is ready."""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING, Any, Final

from gateway import __version__
from gateway.core.text import as_called
from gateway.errors import StoreError
from gateway.readiness import reasons
from gateway.store import key_sql

if TYPE_CHECKING:
    from gateway.running import Running

BROKER_NAMES: Final = {"embedded": "embedded broker", "mosquitto": "Mosquitto of its own", "external": "your broker"}
LATE_SECONDS: Final = 3.0
"""After this time a gateway that is not ready says why. Usually it is ready within half a second."""
LOOK_SECONDS: Final = 0.1


async def announce(gateway: Running) -> None:
    """Print where the gateway listens, and how to make the first key."""
    scheme = "mqtts" if gateway.tls else "mqtt"
    kind = BROKER_NAMES[gateway.broker_kind]
    lines = [
        f"gateway {__version__} has started",
        f"  HTTP  {gateway.http_url}",
        f"  MQTT  {scheme}://{gateway.broker} ({kind})",
        f"  data  {gateway.settings.data_dir}",
        f"  page  {gateway.http_url}/ (sign in with an API key)",
    ]
    if not await gateway.store.read(key_sql.all_keys):
        data_dir = shlex.quote(str(gateway.settings.data_dir))
        lines.append(f"Make an API key: {as_called()} keys create --name NAME --data-dir {data_dir}")
    _say("\n".join(lines))


async def announce_readiness(gateway: Running) -> None:
    """Print that the gateway is ready, and before that what is in the way if it takes long."""
    late = asyncio.get_running_loop().time() + LATE_SECONDS
    told = False
    while not (report := await _report(gateway))["ready"]:
        if not told and asyncio.get_running_loop().time() > late:
            told = True
            why = "; ".join(reasons(report)) or "the broker is still being compared with the registry"
            _say(f"gateway {__version__} is not ready yet: {why}")
        await asyncio.sleep(LOOK_SECONDS)
    _say(f"gateway {__version__} is ready")


async def _report(gateway: Running) -> dict[str, Any]:
    try:
        return await gateway.readiness.report()
    except StoreError as error:
        return {"ready": False, "registry": {"error": error.message}}


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - for the person who started it
