"""A real Chromium without a window, steered over its DevTools protocol (https://chromedevtools.github.io)."""

import asyncio
import atexit
import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

Json = dict[str, Any]

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
GUARD_SECONDS = 60.0
_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "/": (191, "/"), "Escape": (27, "")}
"""Windows' number of a key, and the text that it makes."""
_OPTIONS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-device-scale-factor=1",
    # Each window would load two pages for its address bar, which nobody sees: half of the CPU time of a tab.
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup",
)


@dataclass
class Page:
    """One tab: what it asked for over the network, what it complained about, and what can be done in it."""

    socket: ClientConnection
    url: str = ""
    """Where the browser is steered."""
    context: str = ""
    """The browser context: a profile that lives in memory."""
    session: str = ""
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)
    _answers: dict[int, asyncio.Future[Json]] = field(default_factory=dict)
    _loaded: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        """Take what the browser says, until the connection ends."""
        async for message in self.socket:
            said = json.loads(message)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            else:
                self._note(said["method"], said["params"])

    def _note(self, method: str, facts: Json) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.requests.append(facts["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(facts["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(facts["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(facts["args"]))

    async def call(self, method: str, **parameters: Any) -> Json:
        """Call a method of the protocol."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters, "sessionId": self.session or None}
        await self.socket.send(json.dumps({key: value for key, value in message.items() if value is not None}))
        async with asyncio.timeout(GUARD_SECONDS):
            said = await answer
        assert "error" not in said, said
        result: Json = said["result"]
        return result

    async def attach(self) -> None:
        """Open a tab, and hear what happens in it."""
        target = await self.call("Target.createTarget", url="about:blank", browserContextId=self.context)
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.call(f"{domain}.enable")

    async def click(self, what: str, *, control: bool = False) -> None:
        """Click what fits this selector with the mouse; with the control key a link opens in a new tab."""
        box = await self.run(
            f"(() => {{ const box = document.querySelector({json.dumps(what)}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            modifiers = 2 if control else 0
            place = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1, "modifiers": modifiers}
            await self.call("Input.dispatchMouseEvent", type=kind, **place)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Page"]:
        """Attach to the other tab, as soon as there is one."""
        async with connect(self.url, max_size=None, proxy=None) as socket:
            page = Page(socket, self.url, self.context)
            heard = asyncio.create_task(page.listen())
            await page.attach_to_other()
            yield page
            heard.cancel()

    async def attach_to_other(self) -> None:
        """Attach to the newest tab that shows a page of the web and is not attached yet."""
        async with asyncio.timeout(GUARD_SECONDS):
            while True:
                targets = (await self.call("Target.getTargets"))["targetInfos"]
                mine = [each for each in targets if each["browserContextId"] == self.context]
                found = [each for each in mine if each["type"] == "page" and not each["attached"]]
                found = [each for each in found if each["url"].startswith("http")]
                if found:
                    break
                await asyncio.sleep(0.05)
        attached = await self.call("Target.attachToTarget", targetId=found[0]["targetId"], flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.call(f"{domain}.enable")

    async def close(self) -> None:
        """Close the context with its tabs; nothing that it stored is left."""
        self.session = ""
        await self.call("Target.disposeBrowserContext", browserContextId=self.context)

    async def goto(self, url: str) -> None:
        """Load an address, to the end."""
        self._loaded.clear()
        begun = await self.call("Page.navigate", url=url)
        if "loaderId" in begun:  # else only the part after # has changed
            async with asyncio.timeout(GUARD_SECONDS):
                await self._loaded.wait()

    async def run(self, script: str) -> Any:
        """The value of an expression of JavaScript in the page; a promise is awaited."""
        said = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until an expression is true, looked at with each change of the page."""
        await self.run(
            f"new Promise((done) => {{ const look = () => ({condition}) && done(true); "
            "new MutationObserver(look).observe(document, "
            "{subtree: true, childList: true, attributes: true, characterData: true}); look(); })"
        )

    async def press(self, key: str) -> None:
        """Press a key, as by hand."""
        number, text = _KEYS[key]
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=number, text=text)

    async def tab_to(self, what: str) -> None:
        """Press Tab until what has the focus fits this selector; 50 times at most."""
        for _ in range(50):
            await self.press("Tab")
            if await self.run(f"document.activeElement.matches({json.dumps(what)})"):
                return
        raise AssertionError(f"the keyboard does not get to {what}")

    async def type(self, text: str) -> None:
        """Type text into what has the focus."""
        await self.call("Input.insertText", text=text)

    async def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """Be a screen of this size, and of this theme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[theme])

    async def picture(self, path: Path) -> None:
        """Write what is seen to a file, for people."""
        taken = await self.call("Page.captureScreenshot")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(taken["data"]))


@asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """A tab in a separate browser context: it shares no cookie, no storage and no cache with another."""
    url = _running()
    async with connect(url, max_size=None, proxy=None) as socket:
        page = Page(socket, url)
        heard = asyncio.create_task(page.listen())
        page.context = (await page.call("Target.createBrowserContext"))["browserContextId"]
        await page.attach()
        yield page
        await page.close()
        heard.cancel()


@cache
def _running() -> str:
    """Start Chromium once per process, for all tests in it: a start takes two seconds of CPU. Return its address."""
    assert PROGRAM, "Chromium is missing. Install it, for example: sudo apt-get install chromium"
    folder = Path(tempfile.mkdtemp(prefix="chromium-"))
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, *_OPTIONS, *root, f"--user-data-dir={folder}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    atexit.register(_stop, process, folder)
    return _address(process, folder / "log")


def _stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    process.kill()
    process.wait()
    shutil.rmtree(folder, ignore_errors=True)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Wait until Chromium has written where it can be steered."""
    end = time.monotonic() + GUARD_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if found := re.search(r"DevTools listening on (\S+)\n", log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"Chromium cannot be steered; it wrote:\n{log.read_text(errors='replace')}")
