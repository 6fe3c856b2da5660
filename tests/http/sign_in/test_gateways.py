"""The sign-in in a whole gateway: by its settings, without the extra, and with several gateways of one registry."""

import importlib.util
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import running
from gateway.errors import UnavailableError
from gateway.http.app import build
from gateway.http.server.server import HttpServer
from gateway.http.sign_in.people import People
from gateway.oidc.options import options_of
from gateway.settings.loading import Settings, load
from tests.http.sign_in.support import Site
from tests.http.support import TLS, body, error
from tests.support.oidc_provider import OidcProvider, client_of
from tests.support.ports import free_port


def settings_of(data_dir: Path, issuer: str, client_id: str, secret: str, **given: Any) -> Settings:
    """Settings of a gateway that people sign in at."""
    file = data_dir.parent / "secret"
    file.write_text(f"{secret}\n")
    told = {
        "data_dir": str(data_dir),
        "mqtt": "127.0.0.1:0",
        "oidc_issuer": issuer,
        "oidc_client_id": client_id,
        "oidc_client_secret_file": str(file),
        "oidc_roles": "staff=default:operator",
    }
    return load({**told, **given}, {}).settings


async def test_a_gateway_signs_people_in_by_its_settings(tmp_path: Path, issuer: str) -> None:
    """From the settings to the session; the project is named as the first start named it."""
    port = free_port()
    async with client_of(issuer) as http:
        provider = OidcProvider(issuer, http)
        await provider.behave()
        client_id, secret = await provider.register(f"http://127.0.0.1:{port}/auth/callback")
        await provider.person("ann", groups=["staff"])
        settings = settings_of(tmp_path / "data", issuer, client_id, secret, http=f"127.0.0.1:{port}")
        async with (
            running(settings) as gateway,
            httpx.AsyncClient(base_url=gateway.http.url, verify=TLS, trust_env=False) as browser,
        ):
            begun = await browser.get("/auth/login")
            await browser.get(await provider.approve(begun.headers["location"], "ann"))
            told = body(await browser.get("/v1/session"), 200)
            assert (told["actor"], told["role"]) == ("user:ann", "operator")


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the remedy, before the gateway serves anything."""
    settings = settings_of(tmp_path / "data", "http://127.0.0.1:9", "gateway", "hush")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UnavailableError, match=r"pip install 'device-gateway\[oidc\]'"):
        options_of(settings)


async def test_another_gateway_ends_the_sign_in_and_serves_the_session(place: Site) -> None:
    """Of the same registry, with the same client secret: nothing is kept in one process."""
    people = place.api.services.people
    assert people is not None
    await place.provider.person("ann", groups=["operators"])
    begun = place.browser()
    back = await place.to_callback(begun, "ann")
    services = place.api.services
    other_services = type(services)(
        store=services.store,
        topics=services.topics,
        broker_address=services.broker_address,
        synced=services.synced,
        readiness=services.readiness,
        people=People(services.store, people.options),
    )
    async with (
        HttpServer(build(other_services), "127.0.0.1", 0, stopping=other_services.streams.close) as other,
        httpx.AsyncClient(base_url=other.url, verify=TLS, trust_env=False) as browser,
    ):
        browser.cookies.update(dict(begun.cookies))
        ended = await browser.get(f"{other.url}{httpx.URL(back).raw_path.decode()}")
        assert ended.headers["location"] == f"{place.api.url}/#/"
        begun.cookies.set("gateway_session", browser.cookies["gateway_session"])
        told = body(await begun.get("/v1/session"), 200)
        assert told["actor"] == "user:ann"
        headers = {"X-CSRF-Token": told["csrf_token"]}
        body(await browser.delete("/v1/session", headers=headers), 200)
        error(await begun.get("/v1/session"), 401, "unauthorized")
