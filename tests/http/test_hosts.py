"""A page whose name points to the gateway (DNS rebinding) gets nothing; our own pages can be switched off."""

from pathlib import Path

import httpx
import pytest

from gateway.http.pages import FILES
from gateway.settings.loading import SettingsError, load
from tests.http.support import TLS, error, serving

REBOUND = ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "evil:8080", "1.2.3", "0x7f.1")
OWN = (
    "localhost",
    "LOCALHOST:1",
    "gateway.localhost",
    "127.0.0.1",
    "10.1.2.3:80",
    "[::1]",
    "[2001:db8::1]:1",
    "localhost.",
)
CALLS = ("/", "/docs", "/health", "/ready", "/metrics", "/openapi.json", "/v1/devices", "/nowhere")


def allowed(**options: object) -> tuple[str, ...]:
    """What the settings make of it."""
    return load(options, {}).settings.allowed_hosts


def test_on_loopback_host_names_are_checked_by_default() -> None:
    """Elsewhere a service's name, or that of a load balancer, is in ``Host``, and a certificate keeps others out."""
    assert allowed() == allowed(http="localhost:0") == allowed(http="[::1]:0") == ()
    assert allowed(http="0.0.0.0:80", insecure_listen=True) == ("*",)
    assert allowed(http_cert_file="/c", http_key_file="/k") == ("*",)
    assert allowed(http_allowed_hosts="API.example.com.,*.fleet.lan") == ("api.example.com", "*.fleet.lan")


@pytest.mark.parametrize("wrong", ["", "a:80", "http://a", "a,*", "auto,a", "*a", "a b", "a,", "[::1]"])
def test_an_invalid_host_name_is_refused(wrong: str) -> None:
    """At the start, by the setting's name."""
    with pytest.raises(SettingsError, match=r"^http_allowed_hosts: .* should be auto"):
        load({"http_allowed_hosts": wrong}, {})


async def test_dns_rebinding_is_refused(tmp_path: Path) -> None:
    """400 that names the setting for every call and page, with a key and without; addresses and localhost are ours."""
    async with (
        serving(tmp_path, allowed_hosts=allowed()) as api,
        httpx.AsyncClient(base_url=api.url, verify=TLS) as page,
    ):
        for host in REBOUND:
            for path in CALLS:
                headers = {"Host": host, "Authorization": f"Bearer {api.key}", "X-Forwarded-Host": "localhost"}
                refused = error(await page.get(path, headers=headers), 400, "invalid_request")
                assert refused["details"] == {"field": "Host"}
                assert "http_allowed_hosts" in refused["message"]
        for host in OWN:
            for path in CALLS[:3]:
                assert (await page.get(path, headers={"Host": host})).status_code == 200, host


async def test_allowed_host_names_are_served(tmp_path: Path) -> None:
    """To the letter, and beneath a name, but not that name."""
    names = allowed(http_allowed_hosts="api.example.com,*.fleet.lan")
    async with serving(tmp_path, allowed_hosts=names) as api, httpx.AsyncClient(base_url=api.url, verify=TLS) as client:

        async def status(host: str) -> int:
            return (await client.get("/health", headers={"Host": host})).status_code

        for good in ("api.example.com", "API.EXAMPLE.COM:443", "a.fleet.lan", "a.b.fleet.lan", "127.0.0.1"):
            assert await status(good) == 200, good
        for bad in ("example.com", "xapi.example.com", "fleet.lan", "evilfleet.lan", "api.example.com.evil"):
            assert await status(bad) == 400, bad


async def test_the_pages_can_be_switched_off(tmp_path: Path) -> None:
    """404, as for any other path; the API and its document stay."""
    async with serving(tmp_path, serves_page=False, serves_docs=False) as api:
        for path in FILES:
            assert "/docs" not in error(await api.as_(None).get(path), 404, "not_found")["message"]
        assert (await api.as_(None).get("/openapi.json")).status_code == 200
    async with (
        serving(tmp_path / "2", serves_page=False) as api,
        httpx.AsyncClient(base_url=api.url, verify=TLS) as client,
    ):
        assert [(await client.get(path)).status_code for path in ("/", "/page/main.js", "/docs")] == [404, 404, 200]
