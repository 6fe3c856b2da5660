"""Devices of a load: registered and bound at a gateway, and stored in a file for the next run."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from pathlib import Path
from typing import Final

from device_sim.app import GatewayApi
from device_sim.binding import Binding, Endpoint
from device_sim.errors import SimulatorError
from device_sim.load import Broker, LoadPlan, LoadResult, run

_AT_ONCE: Final = 8


class CredentialsError(SimulatorError):
    """The file with the devices of a load cannot be used."""


async def run_load(
    api: GatewayApi, plan: LoadPlan, *, devices: int, file: Path | None, tls: ssl.SSLContext
) -> LoadResult:
    """Run this load with so many devices. Read them from ``file`` if it exists; else provision and store them.

    Raises:
        SimulatorError: the gateway or the broker does not answer, or the file cannot be used.
    """
    endpoint, known = await _get_devices(api, devices, file)
    broker = Broker(endpoint.host, endpoint.port, tls if endpoint.tls else None, endpoint.topic_prefix)
    return await run(broker, known, plan)


async def _get_devices(api: GatewayApi, count: int, file: Path | None) -> tuple[Endpoint, list[tuple[str, str]]]:
    if file is not None and await asyncio.to_thread(file.exists):
        endpoint, known = read_devices(file)
        if len(known) < count:
            raise CredentialsError(
                f"{file} holds {len(known)} devices. Ask for no more, or remove it: all are bound anew."
            )
        return endpoint, known[:count]
    async with api:
        endpoint, known = await provision(api, count, "eu_load")
    if file is not None:
        write_devices(file, endpoint, known)
    return endpoint, known


async def provision(api: GatewayApi, count: int, end_user: str) -> tuple[Endpoint, list[tuple[str, str]]]:
    """Bind devices ``LOAD-000000`` and so on. Return the broker's address, and id and MQTT password of each."""
    gate = asyncio.Semaphore(_AT_ONCE)
    bindings = await asyncio.gather(*(_bind(api, gate, f"LOAD-{number:06}", end_user) for number in range(count)))
    return bindings[0].mqtt, [(each.device_id, each.mqtt_password) for each in bindings]


async def _bind(api: GatewayApi, gate: asyncio.Semaphore, serial: str, end_user: str) -> Binding:
    async with gate:
        device = await api.register(serial, model="bota_pin", name=None, firmware_version="1.4.2")
        if device["status"] == "bound":
            await api.call_when_allowed("POST", f"/v1/devices/{device['id']}/unbind", {})
        return await api.bind(device["id"], end_user)


def write_devices(file: Path, endpoint: Endpoint, devices: list[tuple[str, str]]) -> None:
    """Write the devices to a file. Only its owner can read it, since the passwords are secrets."""
    with os.fdopen(os.open(file, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as stream:
        json.dump({"mqtt": endpoint.__dict__, "devices": devices}, stream)


def read_devices(file: Path) -> tuple[Endpoint, list[tuple[str, str]]]:
    """Return what :func:`write_devices` wrote.

    Raises:
        CredentialsError: it is not such a file.
    """
    try:
        content = json.loads(file.read_text())
        return Endpoint(**content["mqtt"]), [(str(name), str(password)) for name, password in content["devices"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CredentialsError(
            f"{file} holds no devices of a load: {error}. Remove it, to have them bound anew."
        ) from error
