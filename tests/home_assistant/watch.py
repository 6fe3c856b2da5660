"""A real Home Assistant, with nothing but its MQTT integration: says on stdout, in JSON, what it makes of a broker.

Run by the Python that Home Assistant is installed for: `watch.py CONFIG_DIR HOST PORT PASSWORD`. A line for each change
of an entity, one for each device that comes or goes, and one for each warning of the integration. It runs until it is
killed.
"""

import asyncio
import json
import logging
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

from homeassistant import bootstrap, core, loader
from homeassistant.config_entries import ConfigEntries, ConfigEntry
from homeassistant.const import EVENT_STATE_CHANGED
from homeassistant.core_config import CORE_CONFIG_SCHEMA, async_process_ha_core_config
from homeassistant.helpers import device_registry


def print_event(**facts: Any) -> None:
    """One line."""
    print(json.dumps(facts), flush=True)  # noqa: T201 - for the test


class LoggedErrors(logging.Handler):
    """What the integration is not content with."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        if record.name.startswith("homeassistant.components.mqtt") or record.levelno >= logging.ERROR:
            print_event(complaint=record.getMessage(), cause=repr(record.exc_info[1]) if record.exc_info else None)


def entry(host: str, port: int, password: str) -> ConfigEntry:
    """The MQTT integration as a person sets it up."""
    data = {"broker": host, "port": port, "username": "home_assistant", "password": password}
    return ConfigEntry(
        data=data,
        discovery_keys=MappingProxyType({}),
        domain="mqtt",
        minor_version=2,
        options={},
        source="user",
        title="MQTT",
        unique_id=None,
        version=1,
    )


async def started(folder: Path) -> core.HomeAssistant:
    """Its core, as its own start-up puts it together; without a frontend, and with nothing to be fetched."""
    (folder / "configuration.yaml").touch()
    hass = core.HomeAssistant(str(folder))
    hass.config.skip_pip = True
    loader.async_setup(hass)
    hass.config_entries = ConfigEntries(hass, {})
    await loader.async_get_custom_components(hass)
    await bootstrap.async_load_base_functionality(hass)
    await async_process_ha_core_config(hass, CORE_CONFIG_SCHEMA({}))
    await hass.async_start()
    return hass


async def main(folder: Path, host: str, port: int, password: str) -> None:
    """Start it, and tell until killed."""
    logging.getLogger().addHandler(LoggedErrors(logging.WARNING))
    hass = await started(folder)

    def changed(event: core.Event[Any]) -> None:
        state = event.data["new_state"]
        if state is None or state.domain in ("sensor", "binary_sensor"):
            said = None if state is None else state.state
            print_event(entity=event.data["entity_id"], state=said, attributes=dict(state.attributes) if state else {})

    def device(event: core.Event[Any]) -> None:
        known = device_registry.async_get(hass).async_get(event.data["device_id"])
        names = None if known is None else [known.name, known.model, known.sw_version, known.serial_number]
        print_event(device=event.data["action"], facts=names)

    hass.bus.async_listen(EVENT_STATE_CHANGED, core.callback(changed))
    hass.bus.async_listen(device_registry.EVENT_DEVICE_REGISTRY_UPDATED, core.callback(device))
    await hass.config_entries.async_add(entry(host, port, password))
    print_event(ready=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]))
