"""A gateway with either broker for the firmware, also with TLS on every listener."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from device_sim import GatewayApi
from gateway.tls.ca import Authority
from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import GUARD_SECONDS, started
from tests.e2e.support import BrokerKind, Site
from tests.support.certificates import make_authority, server_pair, trusting_context
from tests.support.mosquitto import GATEWAY_PASSWORD, Mosquitto


@asynccontextmanager
async def secured_site(folder: Path, kind: BrokerKind) -> AsyncIterator[tuple[Site, Authority]]:
    """Start broker and gateway, each with a certificate of one authority, and stop them at the end."""
    authority = make_authority(folder / "tls")
    pair = server_pair(authority)
    files = {"cert-file": str(pair.certificate), "key-file": str(pair.key)}
    options = _shown("http", files)
    async with contextlib.AsyncExitStack() as stack:
        broker = None
        if kind == "mosquitto":
            settings = f"certfile {pair.certificate}\nkeyfile {pair.key}"
            broker = await stack.enter_async_context(Mosquitto(folder, settings=settings))
            options += _link(broker, authority)
        else:
            options += _shown("mqtt", files)
        gateway = GatewayProcess(folder / "gateway", *options, "--rate-limit-per-minute", "0")
        await stack.enter_async_context(started(gateway))
        key = gateway.new_key()
        tls = trusting_context(authority)
        http = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}, timeout=GUARD_SECONDS, verify=tls
            )
        )
        api = await stack.enter_async_context(GatewayApi(gateway.url, key, tls=tls))
        site = Site(kind, gateway, http, api, key, broker)
        await site.synced()
        yield site, authority


def _shown(listener: str, files: dict[str, str]) -> list[str]:
    return [word for name, path in files.items() for word in (f"--{listener}-{name}", path)]


def _link(broker: Mosquitto, authority: Authority) -> list[str]:
    return [
        *("--broker", f"mqtts://gateway:{GATEWAY_PASSWORD}@{broker.host}:{broker.port}"),
        *("--broker-ca-file", str(authority.files.certificate)),
        *("--mosquitto-password-file", str(broker.password_file)),
        *("--mosquitto-pid-file", str(broker.pid_file)),
    ]
