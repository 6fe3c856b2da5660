"""The page at ``/`` in a real browser, against a real gateway, with what a test does and sees there."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.support.chromium import Json, Page, browser
from tests.support.wait import eventually

DESKTOP = (1280, 800)
PHONE = (390, 844)
REFUSED = "Failed to load resource"
"""What the browser itself notes of an answer that is an error; the page says it in its own words."""


@dataclass
class PageUser:
    """A visitor of the page."""

    url: str
    tab: Page

    async def sign_in(self, key: str) -> None:
        """With a key, by keyboard; until the stream is open."""
        await self.tab.goto(f"{self.url}/")
        await self.tab.until("document.activeElement.id === 'key'")
        await self.tab.type(key)
        await self.tab.press("Enter")
        await self.live()

    async def live(self) -> None:
        """Until the page says that it is."""
        await self.tab.until("document.getElementById('live').dataset.state === 'live'")

    async def at(self, url: str) -> None:
        """Wait until the browser is at an address that begins like this, whatever page it comes from."""

        async def is_there() -> bool:
            try:
                return bool(
                    await self.tab.run(
                        f"location.href.startsWith({json.dumps(url)}) && document.readyState === 'complete'"
                    )
                )
            except AssertionError:  # the page was left meanwhile
                return False

        await eventually(is_there, f"the browser is at {url}")

    async def sees(self, text: str, where: str = "body") -> None:
        """Wait until this stands in what a person sees."""
        await self.tab.until(f"document.querySelector({json.dumps(where)})?.innerText.includes({json.dumps(text)})")

    async def text(self, where: str) -> str:
        """What stands there; only one element may fit."""
        found: list[str] = await self.tab.run(
            f"[...document.querySelectorAll({json.dumps(where)})].map((each) => each.innerText)"
        )
        assert len(found) == 1, f"{where}: {found}"
        return found[0]

    async def devices(self) -> list[str]:
        """What the devices in the list are called, from above."""
        names: list[str] = await self.tab.run(
            "[...document.querySelectorAll('.devices tbody a')].map((each) => each.textContent)"
        )
        return names

    async def lists(self, *names: str) -> None:
        """Wait until the list has these devices and no others."""
        wanted = json.dumps(list(names))
        await self.tab.until(
            f"JSON.stringify([...document.querySelectorAll('.devices tbody a')].map((each) => each.textContent))"
            f" === JSON.stringify({wanted})"
        )

    async def press_button(self, words: str) -> None:
        """Click what says this; there has to be one that can be seen."""
        await self.tab.until(_button(words))
        await self.tab.run(f"{_button(words)}.click()")

    async def has_button(self, words: str) -> bool:
        """Whether there is one that says this and can be seen."""
        return bool(await self.tab.run(f"Boolean({_button(words)})"))

    async def opens(self, device: Json) -> None:
        """Go to a device and wait until it is there."""
        await self.tab.run(f"location.hash = '#/devices/{device['id']}'")
        await self.sees(device["id"], ".device .body")


def _button(words: str) -> str:
    return (
        "[...document.querySelectorAll('button')].find((each) => each.checkVisibility() && !each.disabled"
        f" && each.textContent.startsWith({json.dumps(words)}))"
    )


@asynccontextmanager
async def open_page(url: str, *others: str) -> AsyncIterator[PageUser]:
    """A separate browser context; at the end no host but ``others`` was asked, and nothing went wrong in the page."""
    async with browser() as tab:
        await tab.screen(*DESKTOP)
        yield PageUser(url, tab)
        assert [each for each in tab.complaints if not each.startswith(REFUSED)] == []
        assert [each for each in tab.requests if not each.startswith((url, *others, "data:", f"blob:{url}"))] == []


@asynccontextmanager
async def signed_in(url: str, key: str) -> AsyncIterator[PageUser]:
    """The same, signed in."""
    async with open_page(url) as visitor:
        await visitor.sign_in(key)
        yield visitor
