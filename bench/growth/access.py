"""Binds, revocations and resets beside Mosquitto's password file, one at a time and ten binds a second."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from bench.broker import HOST
from bench.caller import Answer, Caller, caller
from bench.figures import percentile
from bench.growth import rows
from bench.growth.plan import WITNESSES, Plan
from bench.growth.rows import Growth
from bench.growth.site import Site
from bench.process import BenchError
from bench.reset import Device
from bench.revocation import Member, Witnesses
from bench.server import OK

_CREATED: Final = 201
_MS: Final = 1_000
_NOT_SYNCED: Final = b"x-broker-synced: false"
_PAUSE_SECONDS: Final = 0.01
_LONGEST_SECONDS: Final = 600.0
"""Time limit for what took a minute beside a million devices."""


async def resets(growth: Growth, sites: Sequence[Site], plan: Plan) -> None:
    """Reset connected devices, at each size in turn.

    Raises:
        BenchError: a reset was refused, or did not arrive.
    """
    async with AsyncExitStack() as stack:
        taken: list[list[float]] = [[] for _ in sites]
        devices = [await stack.enter_async_context(_devices(site, plan.resets)) for site in sites]
        clients = [await stack.enter_async_context(_caller(site)) for site in sites]
        for number in range(plan.resets):
            for of, http, times in zip(devices, clients, taken, strict=True):
                await asyncio.sleep(_PAUSE_SECONDS)
                times.append(await _reset(http, of[number]) * _MS)
    for site, times in zip(sites, taken, strict=True):
        growth.add(rows.RESET_50, site.size, percentile(times, 50))
        growth.add(rows.RESET_99, site.size, percentile(times, 99))


async def binds(growth: Growth, site: Site, plan: Plan) -> None:
    """Bind new devices, each when the broker knows the one before."""
    async with _caller(site) as http:
        names = [await _registered(http) for _ in range(plan.binds)]
        used, answered, known = site.cpu_seconds(), list[float](), list[float]()
        for name in names:
            began = time.perf_counter()
            await _bound(http, name)
            answered.append(time.perf_counter() - began)
            await site.in_step()
            known.append(time.perf_counter() - began)
    growth.add(rows.BIND, site.size, percentile(answered, 50))
    growth.add(rows.BIND_STEP, site.size, percentile(known, 50))
    growth.add(rows.BIND_CPU, site.size, (site.cpu_seconds() - used) / plan.binds)


async def revocations(growth: Growth, site: Site, plan: Plan) -> None:
    """Unbind connected devices, each when the session of the one before has ended."""
    async with _members(site, site.broker.broker.port, plan.revocations) as members, _caller(site) as http:
        taken = [await _revoked(http, member) for member in members]
    await site.in_step()
    growth.add(rows.CUT, site.size, max(taken))


async def embedded_revocations(site: Site, http: Caller, port: int, count: int) -> list[float]:
    """Do the same at the embedded broker; return the seconds of each."""
    async with _members(site, port, count) as members:
        return [await _revoked(http, member) for member in members]


async def burst(growth: Growth, site: Site, plan: Plan) -> None:
    """Ask for ten binds a second, reset a connected device each second, and let a client ping all the time."""
    count = plan.burst_seconds * plan.burst_per_second
    async with (
        _caller(site) as http,
        _devices(site, plan.burst_seconds) as devices,
        _members(site, site.broker.broker.port, WITNESSES) as members,
    ):
        names = [await _registered(http) for _ in range(count)]
        witnesses = Witnesses(members)
        async with witnesses.watching():
            binding = [
                asyncio.create_task(_bound_after(site, name, number / plan.burst_per_second))
                for number, name in enumerate(names)
            ]
            resetting = [asyncio.create_task(_reset_after(site, each, number)) for number, each in enumerate(devices)]
            answers = await asyncio.gather(*binding)
            ended = time.perf_counter()
            await site.in_step()
            growth.add(rows.BURST_STEP, site.size, time.perf_counter() - ended)
            times = await asyncio.gather(*resetting)
            growth.add(rows.BURST_STALL, site.size, witnesses.longest() / _MS)
    growth.add(rows.BURST_ANSWER, site.size, percentile([seconds for seconds, _ in answers], 50))
    growth.add(rows.BURST_SYNCED, site.size, sum(synced for _, synced in answers) / count * 100)
    growth.add(rows.BURST_RESET, site.size, percentile(times, 99))


async def _bound_after(site: Site, name: str, seconds: float) -> tuple[float, bool]:
    """Bind on a new connection; return how long it took, and whether the broker knew the token by then."""
    await asyncio.sleep(seconds)
    async with _caller(site) as http:
        began = time.perf_counter()
        answer = await _bound(http, name)
        return time.perf_counter() - began, _NOT_SYNCED not in answer.head


async def _reset_after(site: Site, device: Device, seconds: float) -> float:
    await asyncio.sleep(seconds)
    async with _caller(site) as http:
        return await _reset(http, device)


async def _registered(http: Caller) -> str:
    """Register a new device; return its id."""
    body = json.dumps({"serial_number": f"GROWTH-{secrets.token_hex(8)}"}).encode()
    answer = await http.ask("POST", "/v1/devices", body)
    if answer.status not in (OK, _CREATED):
        raise BenchError(f"a device was not registered: {answer.status}")
    return str(json.loads(answer.body)["id"])


async def _bound(http: Caller, name: str) -> Answer:
    body = json.dumps({"end_user_id": f"eu_{secrets.token_hex(8)}"}).encode()
    answer = await http.ask("POST", f"/v1/devices/{name}/bind", body)
    if answer.status != OK:
        raise BenchError(f"a bind was answered with {answer.status}: {answer.body.decode(errors='replace')}")
    return answer


async def _reset(http: Caller, device: Device) -> float:
    """Return the seconds until the device has it."""
    began = time.perf_counter()
    status = await http.call("POST", f"/v1/devices/{device.name}/reset")
    if status != OK:
        raise BenchError(f"a reset was answered with {status}")
    return await _within(device.told, "a reset did not arrive") - began


async def _revoked(http: Caller, member: Member) -> float:
    """Return the seconds from the request to the closed session."""
    began = time.perf_counter()
    status = await http.call("POST", f"/v1/devices/{member.name}/unbind")
    if status != OK:
        raise BenchError(f"an unbind was answered with {status}")
    return await _within(member.closed, "a session was not cut") - began


async def _within(moment: asyncio.Future[float], otherwise: str) -> float:
    """Return the moment when it has come."""
    try:
        return await asyncio.wait_for(moment, _LONGEST_SECONDS)
    except TimeoutError:
        raise BenchError(f"{otherwise} within {_LONGEST_SECONDS:g} s") from None


def _caller(site: Site) -> AbstractAsyncContextManager[Caller]:
    return caller(site.server.port, site.registry.api_key)


@asynccontextmanager
async def _devices(site: Site, count: int) -> AsyncIterator[list[Device]]:
    """Connect devices that wait for a reset."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        devices = []
        for name, password in site.take(count):
            _, device = await loop.create_connection(partial(Device, name, password), HOST, site.broker.broker.port)
            stack.callback(device.leave)
            await device.listens
            devices.append(device)
        yield devices


@asynccontextmanager
async def _members(site: Site, port: int, count: int) -> AsyncIterator[list[Member]]:
    """Connect devices that see their session end."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        members = []
        for name, password in site.take(count):
            _, member = await loop.create_connection(partial(Member, name, password), HOST, port)
            stack.callback(member.leave)
            await member.listens
            members.append(member)
        yield members
