"""People who sign in at a real provider, in a real browser."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.http.sign_in.support import Site
from tests.support.page import PageUser, open_page

FORM = ".signin"
SAID = f"{FORM} .error"
"""Where the page says why it asks for a sign-in again."""


@asynccontextmanager
async def at_the_page(place: Site, view: str = "", *others: str) -> AsyncIterator[PageUser]:
    """A browser without a session, with the page open; of further addresses it may ask ``others``."""
    async with open_page(place.api.url, place.provider.issuer, *others) as visitor:
        await visitor.tab.goto(f"{place.api.url}/{view}")
        await visitor.sees("Sign in with 127.0.0.1", FORM)
        yield visitor


async def through_the_provider(place: Site, visitor: PageUser, sub: str) -> None:
    """Click the way to the provider, sign in there, and come back."""
    await visitor.tab.run("document.getElementById('provider').click()")
    await approve(place, visitor, sub)


async def approve(place: Site, visitor: PageUser, sub: str) -> None:
    """Sign in at the provider, where the browser is or will be at once, and come back."""
    await visitor.at(f"{place.provider.issuer}/oauth2/authorize")
    await visitor.tab.run(f"document.querySelector('input[name=sub]').value = {json.dumps(sub)}")
    await visitor.tab.run("document.querySelector('input[name=sub]').form.submit()")
    await visitor.at(place.api.url)


@asynccontextmanager
async def a_person(place: Site, sub: str = "ann", *others: str) -> AsyncIterator[PageUser]:
    """A browser in which this person has signed in, with the page live."""
    async with at_the_page(place, "", *others) as visitor:
        await through_the_provider(place, visitor, sub)
        await visitor.live()
        yield visitor
