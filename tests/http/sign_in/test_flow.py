"""Sign-in over HTTP against a real provider: who gets in, with which role, and how a session ends."""

from tests.http.sign_in.support import Site


async def test_a_person_signs_in(place: Site) -> None:
    """X."""
    await place.provider.person("ann", name="Ann Example", groups=["operators"])
    browser = place.browser()
    assert await place.sign_in(browser, "ann", view="/resets") == "/resets"
