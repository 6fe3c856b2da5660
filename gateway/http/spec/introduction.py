"""Introduction of the OpenAPI document, and what each tag groups. The texts of fields stand in their models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ABOUT: Final = """Registry and factory reset for wearables that speak MQTT.

Every error has the shape of `ErrorAnswer`; its `message` says what to do. Bodies are JSON in UTF-8; unknown fields \
and query parameters are refused, except in heartbeats, which firmware may extend. An integer is written without a \
fraction (`300`, not `300.0`). Times are RFC 3339 in UTC.

`/` serves a page that shows the fleet, `/docs` one to try all of this. HEAD is answered like GET, OPTIONS with the \
methods of a path, another method with 405 `method_not_allowed` and the header `Allow`, a path that is not here with \
404 `not_found` (beneath `/v1` only to callers with a credential), more than 32 KiB of path and headers with 431.

Every answer carries `X-Request-Id`: name it when you report something. Send a POST that has to be repeated safely \
with an `Idempotency-Key`. Wait as long as `Retry-After` says after a 429 or a 503.

Requests are counted for each API key and each device token in windows of a minute. Where no limit is set (setting \
`rate_limit_per_minute` 0), the headers say 2147483647. Requests without a good credential are counted for each \
address (setting `refused_credentials_per_minute`): 401 becomes 429 when there are too many. Those with a good one \
from the same address are served all the same."""
"""What the document says of the API as a whole."""

TAGS: Final[Mapping[str, str]] = {
    "gateway": "Whether the gateway is well, and what it says of itself. Open to anybody, but for `/v1/key`.",
    "sign-in": "People who sign in on the page through OpenID Connect, and their session.",
    "devices": "The registry, with an API key of a back end: who has which device, how it is, and its reset.",
    "devices' own": "What a device calls itself, with the device token that its bind answered.",
    "commands": "What devices are told to do, with an API key.",
    "resets": "Factory resets: which are open and for how long, and how the others ended.",
    "jobs": "One action on many devices: at a pace, with a threshold at which it stops by itself.",
    "cells": "The brokers of a registry, each the home of devices: how many it has, moves, and drains.",
    "events": "The audit trail: everything that happened in a project, as a list and as a stream.",
    "end users": "What is kept about a person: export it, erase it.",
    "webhooks": "Where the gateway sends events by itself, and what became of each delivery.",
}
