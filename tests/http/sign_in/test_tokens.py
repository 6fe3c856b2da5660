"""ID tokens that are not good, and keys that change at the provider."""

import base64
import json
import time

import pytest

from gateway.oidc.options import TokenError
from gateway.oidc.tokens import head_of
from tests.http.sign_in.support import Site
from tests.http.support import Json, trying

NOW = int(time.time())
"""When the tests were collected, minutes before they run: only for times that are wrong by hours."""


SPOILT: tuple[Json, ...] = (
    {"header": {"alg": "none"}},
    {"header": {"alg": "none", "kid": None}},
    {"header": {"alg": "HS256"}},
    {"header": {"kid": "another"}},
    {"header": {"crit": ["x"], "x": 1}},
    {"claims": {"iss": "https://evil.example"}},
    {"claims": {"iss": None}},
    {"claims": {"aud": "another client"}},
    {"claims": {"aud": []}},
    {"claims": {"aud": None}},
    {"claims": {"azp": "another client"}},
    {"claims": {"nonce": "of another sign-in"}},
    {"claims": {"nonce": None}},
    {"claims": {"nonce": 1}},
    {"claims": {"exp": NOW - 120}},
    {"claims": {"exp": None}},
    {"claims": {"exp": True}},
    {"claims": {"exp": "tomorrow"}},
    {"claims": {"iat": NOW - 7200}},
    {"claims": {"iat": NOW + 7200}},
    {"claims": {"iat": None}},
    {"claims": {"nbf": NOW + 7200}},
    {"claims": {"sub": None}},
    {"claims": {"sub": ""}},
    {"claims": {"sub": "ann eve"}},
    {"claims": {"sub": "a" * 256}},
    {"claims": {"sub": 1}},
)


async def test_an_id_token_that_is_not_good_is_refused(place: Site) -> None:
    """Its signature, whom it is from and for, when and whom it is about: each is checked."""
    await place.provider.person("ann", groups=["operators"])
    browser = place.browser()
    for spoilt in SPOILT:
        with trying(spoilt):
            await place.provider.behave(id_token=spoilt)
            assert await place.sign_in(browser, "ann") == "/sign-in/token"
            assert list(browser.cookies.jar) == []
    await place.provider.behave()
    assert await place.sign_in(browser, "ann") == "/"


async def test_an_id_token_for_several_clients_names_this_one(place: Site) -> None:
    """By ``azp``; without it the token may have been given to another client."""
    await place.provider.person("ann", groups=["operators"])
    client = place.client_id
    await place.provider.behave(id_token={"claims": {"aud": [client, "other"]}})
    assert await place.sign_in(place.browser(), "ann") == "/sign-in/token"
    await place.provider.behave(id_token={"claims": {"aud": [client, "other"], "azp": client}})
    assert await place.sign_in(place.browser(), "ann") == "/"


@pytest.mark.parametrize("header", [{}, {"kid": None}], ids=["with kid", "without kid"])
async def test_a_rotated_key_is_fetched(place: Site, header: Json) -> None:
    """A token of an unknown key has the keys fetched again, but not within ten seconds of the last time."""
    await place.provider.person("ann", groups=["operators"])
    await place.provider.behave(id_token={"header": header})
    assert await place.sign_in(place.browser(), "ann") == "/"
    await place.provider.control("rotate")
    assert await place.sign_in(place.browser(), "ann") == "/sign-in/token"
    place.api.clock.ahead_ms = 11_000
    assert await place.sign_in(place.browser(), "ann") == "/"


async def test_a_withdrawn_key_is_forgotten(place: Site) -> None:
    """Ten minutes after the keys were fetched it signs nothing any more, although no token named another one."""
    await place.provider.person("ann", groups=["operators"])
    assert await place.sign_in(place.browser(), "ann") == "/"
    await place.provider.control("withdraw")
    assert await place.sign_in(place.browser(), "ann") == "/", "the kept keys are good for a while"
    later = {"iat": time.time() + 600, "exp": time.time() + 1200}
    place.api.clock.ahead_ms = 600_001
    await place.provider.control("behave", id_token={"claims": later})
    assert await place.sign_in(place.browser(), "ann") == "/", "published again: the spoilt times are good"
    await place.provider.control("withdraw")
    place.api.clock.ahead_ms = 1_200_002
    assert await place.sign_in(place.browser(), "ann") == "/sign-in/token"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS256", "HS512", "RS1", "", None, 1, ["RS256"]], ids=str)
def test_an_algorithm_is_refused_before_any_key_is_looked_up(alg: object) -> None:
    """Those that need no key pair, unknown ones, and what is no name."""
    head = base64.urlsafe_b64encode(json.dumps({"alg": alg}).encode()).rstrip(b"=").decode()
    with pytest.raises(TokenError):
        head_of(f"{head}.e30.")
