"""What `gateway serve` loads: each module that it has no use for is memory of every gateway, for as long as it runs."""

import re
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import GatewayProcess
from tests.e2e.program import started

TELLS = (sys.executable, "-v")
_LOADED = re.compile(r"^import '([\w.]+)' #", re.MULTILINE)
FOR_PEOPLE = {"rich", "pygments", "attr"}
FOR_OTHERS = {"httpx", "httpcore", "jwt", "tabulate", "gateway.http.spec.openapi", "gateway.http.spec.asyncapi"}
FOR_AN_UPDATE = {"sqlite_utils", "dateutil", "pluggy"}
COMMANDS = {f"gateway.cli.{name}" for name in ("devices", "keys", "top", "watch", "demo", "doctor", "output", "api")}


async def loaded(gateway: GatewayProcess) -> set[str]:
    """The modules and packages that it loads until it is ready and has answered a request, as Python tells."""
    async with started(gateway), httpx.AsyncClient(base_url=gateway.url) as client:
        assert (await client.get("/health")).status_code == httpx.codes.OK
    return set(_LOADED.findall(gateway.err))


async def test_serving_loads_nothing_that_only_commands_use(tmp_path: Path) -> None:
    """No tables, no HTTP client, no texts of the API, no other command; sqlite_utils only for an update."""
    first = await loaded(GatewayProcess(tmp_path, by=TELLS))
    assert FOR_AN_UPDATE & first, "a new registry is made by it"
    second = await loaded(GatewayProcess(tmp_path, by=TELLS))
    assert {"gateway.app", "gateway.cli.serve", "uvicorn"} <= second
    assert second & (FOR_PEOPLE | FOR_OTHERS | FOR_AN_UPDATE | COMMANDS) == set()


@pytest.mark.parametrize("module", ["amqtt", "cryptography.x509"])
async def test_beside_a_broker_without_tls_neither_its_own_nor_certificates_are_loaded(
    tmp_path: Path, module: str
) -> None:
    """The embedded broker's library is for the embedded broker, X.509 for TLS."""
    gateway = GatewayProcess(tmp_path, "--broker", "mqtt://gateway:secret@127.0.0.1:9", by=TELLS)
    assert module not in await loaded(gateway)
