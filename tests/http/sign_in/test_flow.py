"""Sign-in over HTTP against a real provider: who gets in, with which role, and what is left of it."""

import re
from pathlib import Path

import httpx
import pytest

from gateway.http.sign_in.cookies import Cookies
from gateway.oidc.options import OidcOptions
from gateway.settings.role_rules import RoleRule
from tests.http.sign_in.support import Site, options, site
from tests.http.support import Json, body, error, serving
from tests.support.ports import closed_port


async def facts(browser: httpx.AsyncClient) -> Json:
    """The session of a browser."""
    return body(await browser.get("/v1/session"), 200)


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
async def test_a_claim_gives_the_role(place: Site, role: str) -> None:
    """With the name that the provider says, in the project of the rule."""
    browser = await place.signed_in("ann", name="Ann Example", groups=["others", f"{role}s"])
    told = await facts(browser)
    assert (told["actor"], told["name"], told["role"]) == ("user:ann", "Ann Example", role)
    assert told["project_id"] == place.api.project_id


async def test_the_browser_comes_back_to_its_view(place: Site) -> None:
    """The part of the address after # that the page asked for."""
    await place.provider.person("ann", groups=["viewers"])
    assert await place.sign_in(place.browser(), "ann", view="/devices/dev_1?x=1") == "/devices/dev_1?x=1"


async def test_the_highest_role_of_the_first_project_counts(tmp_path: Path, issuer: str) -> None:
    """The first rule that fits decides the project; an unknown project is passed over."""
    rules = (
        RoleRule("b", "nowhere", "admin"),
        RoleRule("a", "one", "viewer"),
        RoleRule("b", "two", "admin"),
        RoleRule("c", "one", "operator"),
    )
    async with site(tmp_path, issuer, rules=rules) as place:
        await place.api.another_key(project="two")
        told = await facts(await place.signed_in("ann", groups=["a", "b", "c"]))
        assert (told["project_name"], told["role"]) == ("one", "operator")


async def test_a_claim_may_lie_deeper(tmp_path: Path, issuer: str) -> None:
    """As Keycloak has it: a dot leads into an object."""
    async with site(tmp_path, issuer, role_claim="realm_access.roles") as place:
        browser = await place.signed_in("ann", realm_access={"roles": ["admins"]})
        assert (await facts(browser))["role"] == "admin"


async def test_a_claim_of_the_userinfo_endpoint_counts(place: Site) -> None:
    """Where the ID token lacks it."""
    await place.provider.behave(id_token={"claims": {"groups": None}})
    assert (await facts(await place.signed_in("ann", groups=["viewers"])))["role"] == "viewer"


@pytest.mark.parametrize("claims", [{}, {"groups": []}, {"groups": ["others"]}, {"groups": {"admins": True}}], ids=str)
async def test_a_person_without_a_role_is_refused(place: Site, claims: Json) -> None:
    """With the reason for the page, and without a session."""
    await place.provider.person("ann", **claims)
    browser = place.browser()
    assert await place.sign_in(browser, "ann") == "/sign-in/no_role"
    assert list(browser.cookies.jar) == []
    error(await browser.get("/v1/session"), 401, "unauthorized")


async def test_a_person_may_decline(place: Site) -> None:
    """At the provider; the page says so."""
    browser = place.browser()
    begun = await browser.get("/auth/login")
    answer = await place.provider.http.post(begun.headers["location"], data={"action": "deny"})
    back = answer.headers["location"]
    state = httpx.URL(begun.headers["location"]).params["state"]
    back = back if "state=" in back else f"{back}&state={state}"
    ended = await browser.get(back)
    assert ended.headers["location"].endswith("/#/sign-in/denied")


async def test_the_request_to_the_provider_is_complete(place: Site) -> None:
    """Code flow with PKCE, state and nonce, each random; the cookie is for the gateway alone."""
    sent = []
    for _ in range(2):
        begun = await place.browser().get("/auth/login")
        asked = dict(httpx.URL(begun.headers["location"]).params)
        assert asked["response_type"] == "code"
        assert asked["redirect_uri"] == f"{place.api.url}/auth/callback"
        assert asked["code_challenge_method"] == "S256"
        assert all(len(asked[name]) == 43 for name in ("state", "nonce", "code_challenge"))
        (cookie,) = begun.headers.get_list("set-cookie")
        assert re.fullmatch(r"gateway_sign_in=[\w-]+; Max-Age=600; Path=/; HttpOnly; SameSite=Lax", cookie)
        assert asked["state"] not in cookie
        sent.append({asked[name] for name in ("state", "nonce", "code_challenge")})
    assert not sent[0] & sent[1]


async def test_the_session_cookie_has_its_attributes(place: Site) -> None:
    """On loopback without Secure; beyond it, with Secure and the prefix that binds it to the host."""
    await place.provider.person("ann", groups=["viewers"])
    browser = place.browser()
    ended = await browser.get(await place.to_callback(browser, "ann"))
    session, removed = ended.headers.get_list("set-cookie")
    assert re.fullmatch(r"gateway_session=gws_\w{34}; Max-Age=43200; Path=/; HttpOnly; SameSite=Lax", session)
    assert removed == "gateway_sign_in=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"
    assert ended.headers["cache-control"] == "no-store"
    beyond = Cookies(secure=True).kept("gateway_session", "x", 60)
    assert beyond == "__Host-gateway_session=x; Max-Age=60; Path=/; HttpOnly; SameSite=Lax; Secure"


async def test_a_sign_in_is_in_the_audit_trail(place: Site) -> None:
    """Begin and end, with person, role and address; and no token."""
    browser = await place.signed_in("ann", groups=["operators"])
    token = (await facts(browser))["csrf_token"]
    body(await browser.delete("/v1/session", headers={"X-CSRF-Token": token}), 200)
    ended, begun = body(await place.api.back_end.get("/v1/events"), 200)["data"][:2]
    assert (begun["type"], ended["type"]) == ("session.started", "session.ended")
    assert begun["data"]["actor"] == ended["data"]["actor"] == "user:ann"
    assert begun["data"]["role"] == "operator"
    assert begun["data"]["client_address"] == "127.0.0.1"
    assert ended["data"]["because"] == "signed_out"


async def test_sign_out_leads_to_the_provider(place: Site) -> None:
    """With the ID token as a hint, and back to the page; the session has ended before that."""
    browser = await place.signed_in("ann", groups=["viewers"])
    token = (await facts(browser))["csrf_token"]
    answer = body(await browser.delete("/v1/session", headers={"X-CSRF-Token": token}), 200)
    address = httpx.URL(answer["end_session_url"])
    assert str(address).startswith(f"{place.provider.issuer}/oauth2/end_session?")
    assert address.params["post_logout_redirect_uri"] == f"{place.api.url}/"
    assert address.params["id_token_hint"].count(".") == 2
    error(await browser.get("/v1/session"), 401, "unauthorized")


async def test_another_sign_in_replaces_the_session(place: Site) -> None:
    """Of the same browser: the cookie of before opens nothing any more."""
    browser = await place.signed_in("ann", groups=["viewers"])
    before = browser.cookies["gateway_session"]
    await place.provider.person("bob", groups=["operators"])
    assert await place.sign_in(browser, "bob") == "/"
    assert (await facts(browser))["actor"] == "user:bob"
    old = place.browser()
    old.cookies.set("gateway_session", before)
    error(await old.get("/v1/session"), 401, "unauthorized")


async def test_a_provider_that_is_down_signs_nobody_in(tmp_path: Path) -> None:
    """The page says so, at the beginning; the API and its keys go on."""
    with closed_port() as port:

        async def oidc(page_url: str) -> OidcOptions:
            return options(page_url, issuer=f"http://127.0.0.1:{port}")

        async with serving(tmp_path, oidc=oidc) as api, httpx.AsyncClient(base_url=api.url) as browser:
            begun = await browser.get("/auth/login")
            assert begun.headers["location"] == f"{api.url}/#/sign-in/provider_unavailable"
            body(await api.back_end.get("/v1/devices"), 200)


async def test_a_provider_that_goes_down_meanwhile_signs_nobody_in(place: Site) -> None:
    """The page says so; that is no refusal of the person."""
    await place.provider.person("ann", groups=["viewers"])
    browser = place.browser()
    back = await place.to_callback(browser, "ann")
    await place.provider.behave(status={"/oauth2/token": 503})
    ended = await browser.get(back)
    assert ended.headers["location"].endswith("/#/sign-in/provider_unavailable")


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://evil.example/token"},
        {"jwks_uri": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"end_session_endpoint": "ftp://evil.example"},
    ],
    ids=str,
)
async def test_metadata_that_is_not_safe_is_refused(place: Site, metadata: Json) -> None:
    """Another issuer, an address without TLS, none at all: nothing of it is used."""
    await place.provider.behave(metadata=metadata)
    begun = await place.browser().get("/auth/login")
    assert begun.headers["location"] == f"{place.api.url}/#/sign-in/provider_unavailable"


async def test_without_a_provider_there_are_no_paths(tmp_path: Path) -> None:
    """The sign-in is not there, and the page is told so."""
    async with serving(tmp_path) as api, httpx.AsyncClient(base_url=api.url) as browser:
        for path in ("/auth/login", "/auth/callback"):
            assert (await browser.get(path)).status_code == 404
        assert (await browser.post("/auth/backchannel")).status_code == 404
        assert (await browser.get("/auth/options")).json() == {"oidc": None}
