"""Attacks on the way through the provider: each ends without a session, and is counted as a refused sign-in."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from gateway.domain.refused_sign_ins import RefusedSignIn
from tests.http.sign_in.support import Site, site
from tests.http.support import error, trying

EVIL = "https://evil.example"


async def refused(place: Site, browser: httpx.AsyncClient, address: str) -> str:
    """Open a callback that must not sign anybody in; the reason that the page gets."""
    ended = await browser.get(address)
    assert ended.status_code == 303, ended.text
    assert not [each for each in ended.headers.get_list("set-cookie") if each.startswith("gateway_session=gws_")]
    page, _, reason = ended.headers["location"].partition("/#/sign-in/")
    assert page == place.api.url
    error(await browser.get("/v1/session"), 401, "unauthorized")
    return str(reason)


@pytest.fixture
async def victim(place: Site) -> httpx.AsyncClient:
    """A browser; people named ann and eve have roles."""
    await place.provider.person("ann", groups=["operators"])
    await place.provider.person("eve", groups=["viewers"])
    return place.browser()


async def test_a_callback_of_another_browser_is_refused(place: Site, victim: httpx.AsyncClient) -> None:
    """An attacker has the victim's browser finish the attacker's sign-in: that browser began none, or another one."""
    foreign = await place.to_callback(place.browser(), "eve")
    assert await refused(place, victim, foreign) == "state"
    await victim.get("/auth/login")
    assert await refused(place, victim, foreign) == "state"


async def test_a_forged_state_is_refused(place: Site, victim: httpx.AsyncClient) -> None:
    """Empty, another one, none, or two of them."""
    forgers: tuple[Callable[[httpx.URL], httpx.URL], ...] = (
        lambda address: address.copy_set_param("state", ""),
        lambda address: address.copy_set_param("state", "x"),
        lambda address: address.copy_remove_param("state"),
        lambda address: address.copy_add_param("state", address.params["state"]),
    )
    for forge in forgers:
        address = httpx.URL(await place.to_callback(victim, "ann"))
        assert await refused(place, victim, str(forge(address))) == "state"


async def test_a_forged_cookie_is_refused(place: Site, victim: httpx.AsyncClient) -> None:
    """Whatever stands in it: it is sealed."""
    address = await place.to_callback(victim, "ann")
    sealed = victim.cookies["gateway_sign_in"]
    turned = sealed[:30] + ("A" if sealed[30] != "A" else "B") + sealed[31:]
    for forged in ("", "x", "AAAA" * 20, "%", sealed[:-4], turned):
        with trying(forged):
            victim.cookies.clear()
            victim.cookies.set("gateway_sign_in", forged)
            assert await refused(place, victim, address) == "state"


async def test_a_sign_in_that_takes_too_long_is_refused(place: Site, victim: httpx.AsyncClient) -> None:
    """After ten minutes, although the browser still has the cookie."""
    address = await place.to_callback(victim, "ann")
    place.api.clock.ahead_ms = 601_000
    assert await refused(place, victim, address) == "state"


async def test_a_code_can_be_used_once(place: Site, victim: httpx.AsyncClient) -> None:
    """Replayed with a copy of the cookie of before: the provider refuses the code."""
    address = await place.to_callback(victim, "ann")
    copy = dict(victim.cookies)
    assert (await victim.get(address)).headers["location"] == f"{place.api.url}/#/"
    thief = place.browser()
    thief.cookies.update(copy)
    assert await refused(place, thief, address) == "code"


async def test_a_sign_in_begins_one_session(place: Site, victim: httpx.AsyncClient) -> None:
    """With a copy of its cookie and a second code for the same state: the state was used."""
    begun = await victim.get("/auth/login")
    address = await place.provider.approve(begun.headers["location"], "ann")
    copy = dict(victim.cookies)
    assert (await victim.get(address)).headers["location"] == f"{place.api.url}/#/"
    thief = place.browser()
    thief.cookies.update(copy)
    again = await place.provider.approve(begun.headers["location"], "eve")
    assert await refused(place, thief, again) in ("used", "token"), "the provider may refuse the repeated nonce"


async def test_a_stolen_code_is_refused(place: Site, victim: httpx.AsyncClient) -> None:
    """A code of the victim's sign-in, in the attacker's: it belongs to another verifier (PKCE)."""
    code = httpx.URL(await place.to_callback(victim, "ann")).params["code"]
    attacker = place.browser()
    own = httpx.URL(await place.to_callback(attacker, "eve"))
    assert await refused(place, attacker, str(own.copy_set_param("code", code))) == "code"


async def test_an_answer_of_another_issuer_is_refused(place: Site, victim: httpx.AsyncClient) -> None:
    """Mixed-up issuers (RFC 9207): another one, and none where the provider announces it; the right one is taken."""
    await place.provider.behave(callback={"iss": EVIL})
    assert await refused(place, victim, await place.to_callback(victim, "ann")) == "issuer"
    announced = {"authorization_response_iss_parameter_supported": True}
    await place.provider.behave(metadata=announced)
    place.api.clock.ahead_ms = 3_600_001  # the metadata is fetched again
    browser = place.browser()
    address = await place.to_callback(browser, "ann")
    assert await refused(place, browser, address) == "issuer"
    place.api.clock.ahead_ms = 0
    right = httpx.URL(await place.to_callback(browser, "ann")).copy_set_param("iss", place.provider.issuer)
    assert (await browser.get(str(right))).headers["location"] == f"{place.api.url}/#/"


ELSEWHERE = (
    EVIL,
    f"/{EVIL}",
    "//evil.example",
    "/\\evil.example",
    "javascript:alert(1)",
    "/ok\r\nSet-Cookie: a=b",
    "/ok\nLocation: https://evil.example",
    "@evil.example",
    ".evil.example",
    "/" + "x" * 600,
)


async def test_no_link_leads_elsewhere(place: Site, victim: httpx.AsyncClient) -> None:
    """After the sign-in the browser is on the page, whatever the link to it said."""
    for view in ELSEWHERE:
        with trying(view):
            ended = await victim.get(await place.to_callback(victim, "ann", view))
            address = httpx.URL(ended.headers["location"])
            assert (address.scheme, address.netloc.decode(), address.path) == (
                "http",
                place.api.url[len("http://") :],
                "/",
            )
            assert ended.headers["location"].startswith(f"{place.api.url}/#/")
            assert len(ended.headers.get_list("location")) == 1
            assert not [each for each in ended.headers.get_list("set-cookie") if each.startswith("a=")]


async def test_the_host_of_a_request_leads_nowhere(place: Site) -> None:
    """The way back is the setting's: under another name the browser is first sent to the page itself."""
    for host in ("evil.example", "localhost", "127.0.0.1:1"):
        begun = await place.browser().get("/auth/login", params={"view": "/resets"}, headers={"Host": host})
        assert begun.headers["location"] == f"{place.api.url}/auth/login?view=%2Fresets"
        assert "set-cookie" not in begun.headers


async def test_errors_are_not_reflected(place: Site, victim: httpx.AsyncClient) -> None:
    """What stands in the provider's answer reaches neither the page's address nor an answer."""
    begun = httpx.URL((await victim.get("/auth/login")).headers["location"])
    asked = {"state": begun.params["state"], "error": "<script>alert(1)</script>", "error_description": EVIL}
    ended = await victim.get("/auth/callback", params=asked)
    assert ended.headers["location"] == f"{place.api.url}/#/sign-in/provider"
    assert ended.text == ""


async def test_refused_sign_ins_are_counted(tmp_path: Path, issuer: str) -> None:
    """By reason, with the address; one that the person declined does not count."""
    seen: list[RefusedSignIn] = []
    async with site(tmp_path, issuer, seen.append) as place:
        victim = place.browser()
        await place.provider.person("bob")
        await victim.get(await place.to_callback(victim, "bob"))
        await victim.get("/auth/callback", params={"state": "x", "code": "y"})
        begun = httpx.URL((await victim.get("/auth/login")).headers["location"])
        await victim.get("/auth/callback", params={"state": begun.params["state"], "error": "access_denied"})
    assert [(each.channel, each.reason, each.address) for each in seen] == [
        ("http", "role", "127.0.0.1"),
        ("http", "provider", "127.0.0.1"),
    ]


async def test_other_methods_are_refused(place: Site) -> None:
    """405 that names the one there is."""
    for path, allowed in (("/auth/login", "GET"), ("/auth/callback", "GET"), ("/auth/backchannel", "POST")):
        answer = await place.browser().put(path)
        error(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == f"{allowed}, OPTIONS"
