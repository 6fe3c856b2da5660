"""Latency of the calls of the API: each is made at every size in turn, so other work delays all of them alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from typing import Final
from urllib.parse import urlencode

from bench import large
from bench.caller import Caller, caller
from bench.figures import percentile
from bench.growth.plan import Plan
from bench.growth.rows import CALL_MOST, SEARCH_MOST, CallRow, Growth
from bench.growth.site import Site
from bench.process import BenchError
from bench.server import OK
from gateway.models.devices import MAX_OFFSET, ListDevices
from gateway.store import View, device_list, open_reader

_MS: Final = 1_000
_WARM_UP: Final = 3
_PAGE: Final = 25
_DEVICE, _LIST, _FILTER, _SEARCH = "one device", "lists and counts", "filters", "searches"


def paths(view: View) -> dict[CallRow, str]:
    """Return the path of each call; the device is one in the middle of the registry."""
    count: int = view.value("SELECT max(pk) FROM devices")
    found = view.one("SELECT * FROM devices WHERE pk >= ? AND bound_at IS NOT NULL ORDER BY pk LIMIT 1", count // 2)
    assert found is not None
    by_name = ListDevices(sort="name", limit=1, offset=min(count, MAX_OFFSET) // 2)
    (last, _) = device_list.page(view, found["project_id"], by_name)
    one, devices = f"/v1/devices/{found['id']}", "/v1/devices"
    near_the_end: dict[str, object] = {"offset": max(0, min(count, MAX_OFFSET) - _PAGE)}
    plain = {
        "device": (_DEVICE, one),
        "state": (_DEVICE, f"{one}/state"),
        "history": (_DEVICE, f"{one}/heartbeats"),
        "events": (_DEVICE, f"{one}/events"),
        "commands": (_DEVICE, f"{one}/commands"),
        "stats": (_LIST, f"{devices}/stats"),
        "stats, by tag": (_LIST, f"{devices}/stats?tag=site-7"),
        "events of the project": (_LIST, "/v1/events"),
        "list": (_LIST, devices),
    }
    queries: dict[str, tuple[str, dict[str, object]]] = {
        "list, by status": (_LIST, {"status": "unbound"}),
        "list, by connection": (_LIST, {"connection": "online"}),
        "list, by serial number": (_LIST, {"serial_number": found["serial_number"]}),
        "list, with total": (_LIST, {"total": "true"}),
        "list, by cursor and name": (_LIST, {"sort": "name", "cursor": device_list.cursor(by_name, last)}),
        "list, offset near the end": (_LIST, near_the_end),
        "filter: end user, none": (_FILTER, {"end_user_id": "eu_nobody"}),
        "filter: model, none": (_FILTER, {"model": "no_such_model"}),
        "filter: model, few": (_FILTER, {"model": large.RARE_MODEL}),
        "filter: model and status, few": (_FILTER, {"model": large.RARE_MODEL, "status": "bound"}),
        "filter: condition": (_FILTER, {"condition": "low_battery"}),
        "filter: offline": (_FILTER, {"connection": "offline", "seen": "true"}),
        "filter: never heard": (_FILTER, {"seen": "false"}),
        "filter: never heard and online": (_FILTER, {"seen": "false", "connection": "online"}),
        "filter: tag": (_FILTER, {"tag": "site-7"}),
        "search: serial number": (_SEARCH, {"search": found["serial_number"]}),
        "search: part of an id": (_SEARCH, {"search": found["id"][-8:]}),
        "search: part of an end user": (_SEARCH, {"search": found["end_user_id"][-8:]}),
        "search: one character, none": (_SEARCH, {"search": "~"}),
        "search: none": (_SEARCH, {"search": "no such text"}),
        "search: none of digits": (_SEARCH, {"search": "99999999"}),
    }
    asked = {name: (panel, f"{devices}?{urlencode(query)}") for name, (panel, query) in queries.items()}
    return {
        CallRow(name, panel, SEARCH_MOST if panel == _SEARCH else CALL_MOST): path
        for name, (panel, path) in {**plain, **asked}.items()
    }


def rows(site: Site) -> tuple[CallRow, ...]:
    """Return the calls."""
    return tuple(_paths(site))


def _paths(site: Site) -> dict[CallRow, str]:
    with closing(open_reader(site.registry.location)) as connection:
        return paths(View(connection))


async def measure(growth: Growth, sites: Sequence[Site], plan: Plan) -> None:
    """Make every call at every size in turn, in rounds.

    Raises:
        BenchError: a call was refused.
    """
    asked = [_paths(site) for site in sites]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(caller(each.server.port, each.registry.api_key)) for each in sites]
        for number in range(plan.rounds):
            for row in growth.calls:
                taken: list[list[float]] = [[] for _ in sites]
                for _ in range(plan.calls + (0 if number else _WARM_UP)):
                    for http, of, times in zip(clients, asked, taken, strict=True):
                        times.append(await _call(http, of[row]))
                for site, times in zip(sites, taken, strict=True):
                    growth.add(row.p50, site.size, percentile(times[-plan.calls :], 50))
                    growth.add(row.p99, site.size, percentile(times[-plan.calls :], 99))


async def _call(http: Caller, path: str) -> float:
    """Return the milliseconds of a call."""
    began = time.perf_counter()
    status = await http.call("GET", path)
    if status != OK:
        raise BenchError(f"GET {path} answered {status}")
    return (time.perf_counter() - began) * _MS
