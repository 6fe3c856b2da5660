"""The endpoint as the settings put it to work: where it listens, by TLS or not, with which secret and accounts."""

import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from gateway.broker.doctor_accounts import ProbeAccounts
from gateway.broker.external.serving import asked_access
from gateway.broker.external.session_sync import NOT_CUT
from gateway.domain.refused_sign_ins import RefusedSignIn
from gateway.errors import UnavailableError
from gateway.settings.loading import Settings, load
from gateway.tls.certificates import Files, ServerCertificate
from tests.support.certificates import make_authority, server_pair, trusting_context
from tests.support.registry import GATEWAY_ID, Registry, registry

QUESTION = {"clientid": GATEWAY_ID, "username": "central", "password": "p@ss"}


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry."""
    async with registry(tmp_path) as opened:
        yield opened


def settings_at(tmp_path: Path, at: str, **more: object) -> Settings:
    """Settings of a gateway that is asked there, and goes by another name than usual."""
    given = {"data_dir": str(tmp_path / "data"), "broker": "mqtt://central:p%40ss@127.0.0.1", "broker_auth": at}
    return load({**given, **more}, {}).settings


async def served(
    fleet: Registry, settings: Settings, certificate: ServerCertificate | None, stack: AsyncExitStack
) -> str:
    """Have it listen; its URL, as the log says it."""
    with capture_logs() as logs:
        access = await asked_access(settings, fleet.store, ProbeAccounts(), certificate, stack)
    assert access.limitation == NOT_CUT
    return next(str(entry["url"]) for entry in logs if entry["event"] == "broker_auth.listening")


def certificate_in(tmp_path: Path) -> tuple[ServerCertificate, ssl.SSLContext]:
    """What the server shows, and a client that trusts it."""
    authority = make_authority(tmp_path / "tls")
    pair = server_pair(authority)
    return ServerCertificate("http", Files(pair.certificate, pair.key)), trusting_context(authority)


async def test_on_loopback_the_endpoint_uses_http_and_creates_its_secret(fleet: Registry, tmp_path: Path) -> None:
    """With the gateway's account from `broker`, and a secret that only its owner can read, also where HTTP has TLS."""
    certificate, _ = certificate_in(tmp_path)
    async with AsyncExitStack() as stack:
        url = await served(fleet, settings_at(tmp_path, "127.0.0.1:0"), certificate, stack)
        file = tmp_path / "data" / "broker-auth-secret"
        assert file.stat().st_mode & 0o777 == 0o600
        async with httpx.AsyncClient(base_url=url) as http:
            answer = await http.post(f"/{file.read_text().strip()}/emqx/authenticate", json=QUESTION)
        assert url.startswith("http://")
        assert answer.json()["result"] == "allow"


async def test_beyond_loopback_the_endpoint_uses_https(fleet: Registry, tmp_path: Path) -> None:
    """With the certificate of the API, and the secret of the file that was named."""
    certificate, trusted = certificate_in(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("an-operators-own-secret-0123456789\n")
    files = {"http_cert_file": "c", "http_key_file": "k", "broker_auth_secret_file": str(secret)}
    async with AsyncExitStack() as stack:
        url = await served(fleet, settings_at(tmp_path, "0.0.0.0:0", **files), certificate, stack)
        async with httpx.AsyncClient(base_url=url, verify=trusted) as http:
            answer = await http.post(f"/{secret.read_text().strip()}/emqx/authenticate", json=QUESTION)
        assert url.startswith("https://127.0.0.1:")
        assert answer.json()["result"] == "allow"
        async with httpx.AsyncClient(base_url=url.replace("https", "http")) as http:
            with pytest.raises(httpx.HTTPError):
                await http.post("/x/emqx/authenticate")


async def test_refusals_are_logged(fleet: Registry, tmp_path: Path) -> None:
    """A wrong password counts as a refused MQTT client, a wrong secret as a refused caller with its address."""
    refused: list[RefusedSignIn] = []
    settings = settings_at(tmp_path, "127.0.0.1:0")
    async with AsyncExitStack() as stack:
        with capture_logs() as logs:
            await asked_access(settings, fleet.store, ProbeAccounts(), None, stack, refused.append)
        url = next(str(entry["url"]) for entry in logs if entry["event"] == "broker_auth.listening")
        secret = (tmp_path / "data" / "broker-auth-secret").read_text().strip()
        async with httpx.AsyncClient(base_url=url) as http:
            await http.post(f"/{secret}/emqx/authenticate", json=QUESTION)
            await http.post(f"/{secret}/emqx/authenticate", json={**QUESTION, "password": "wrong"})
            await http.post("/wrong/emqx/authenticate", json=QUESTION)
    assert refused == [RefusedSignIn("mqtt", "unknown", ""), RefusedSignIn("broker_auth", "unknown", "127.0.0.1")]


async def test_a_port_in_use_names_its_setting(fleet: Registry, tmp_path: Path) -> None:
    """The start fails with the option to change, not with that of the API."""
    async with AsyncExitStack() as stack:
        url = await served(fleet, settings_at(tmp_path, "127.0.0.1:0"), None, stack)
        taken = settings_at(tmp_path, url.removeprefix("http://"))
        with pytest.raises(UnavailableError, match="--broker-auth HOST:PORT"):
            await asked_access(taken, fleet.store, ProbeAccounts(), None, stack)
