"""The pictures in the documents: ``make screenshots`` takes them again, of a fleet that is the same each time.

``python -m tests.http.page.screenshots FOLDER [NAME…]`` takes those with these names, or all.
"""

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.oidc.options import OidcOptions
from gateway.runtime import log
from tests.http.page.fleet import add_history, fill, health_fields
from tests.http.page.jobs import with_jobs, working
from tests.http.page.resets import with_resets
from tests.http.sign_in.support import options
from tests.http.support import Api, Json, serving
from tests.support.page import DESKTOP, PHONE, PageUser, open_page, signed_in

MANY = 10_000
SHEET = (1000, 1240)
INSIDE = "document.querySelector('iframe')?.contentDocument"
SHOTS: dict[str, "Shot"] = {}


@dataclass(frozen=True)
class PagePose:
    """What is photographed: a browser, signed in, and what lies behind it."""

    api: Api
    visitor: PageUser
    device: Json | None


Pose = Callable[[PagePose], Awaitable[None]]


@dataclass(frozen=True)
class Shot:
    """A picture: of how many devices, on which screen, and how to get there."""

    devices: int
    pose: Pose
    screen: tuple[int, int] = DESKTOP
    dark: bool = False
    is_signed_in: bool = True


def shot(
    name: str, devices: int, *, screen: tuple[int, int] = DESKTOP, dark: bool = False, is_signed_in: bool = True
) -> Callable[[Pose], Pose]:
    """Decorator: this is how to get to that picture."""

    def keep(pose: Pose) -> Pose:
        SHOTS[name] = Shot(devices, pose, screen, dark, is_signed_in)
        return pose

    return keep


@shot("fleet", MANY)
@shot("fleet-phone-dark", 3, screen=PHONE, dark=True)
async def the_fleet(stage: PagePose) -> None:
    """Everything, with a few resets that wait."""
    await stage.visitor.sees("BP-010417", ".devices")


@shot("selection", MANY)
@shot("selection-phone-dark", 300, screen=PHONE, dark=True)
async def a_selection(stage: PagePose) -> None:
    """A page of it, and the offer to take all that match."""
    await stage.visitor.tab.run("location.hash = '#/?status=bound'")
    await stage.visitor.tab.until("document.querySelectorAll('.owner:not(.quiet)').length === 51")
    await stage.visitor.tab.run("document.getElementById('selectPage').click()")
    await stage.visitor.sees("50 devices selected", ".selection")


@shot("empty", 0)
async def no_devices(stage: PagePose) -> None:
    """The page of a new installation."""
    await stage.visitor.sees("No devices yet", ".empty")


@shot("device", 3)
@shot("device-phone-dark", 3, screen=PHONE, dark=True)
async def a_device(stage: PagePose) -> None:
    """One with a history, and a reset under way."""
    assert stage.device
    await stage.api.reset(stage.device["id"])
    await stage.visitor.opens(stage.device)
    await stage.visitor.sees("Waiting for the device", ".reset")
    await stage.visitor.tab.until("document.querySelector('.chart .line')?.getAttribute('d').length > 500")


@shot("reset-phone", 3, screen=PHONE)
async def the_question(stage: PagePose) -> None:
    """What is asked before a reset."""
    assert stage.device
    await stage.visitor.opens(stage.device)
    await stage.visitor.press_button("Reset")
    await stage.visitor.sees("Yes, wipe", "dialog")


@shot("resets", 0)
@shot("resets-phone-dark", 0, screen=PHONE, dark=True)
async def the_resets(stage: PagePose) -> None:
    """Open ones of every age, and finished ones."""
    await with_resets(stage.api)
    await stage.visitor.tab.run("location.hash = '#/resets'")
    await stage.visitor.sees("BP-010301", ".finished")


@shot("job-dialog", 812)
@shot("job-dialog-phone-dark", 300, screen=PHONE, dark=True)
async def the_question_of_a_job(stage: PagePose) -> None:
    """What a reset as a job would do, before it is created."""
    await a_selection(stage)
    await stage.visitor.press_button("Select all")
    await stage.visitor.press_button("Reset …")
    await stage.visitor.sees("are reset to factory settings", "dialog")


@shot("jobs", 0)
@shot("jobs-phone-dark", 0, screen=PHONE, dark=True)
async def the_jobs(stage: PagePose) -> None:
    """One that is scheduled, one that is done, one that is paused."""
    async with working(stage.api):
        await with_jobs(stage.api, 30)
        await stage.visitor.tab.run("location.hash = '#/jobs'")
        await stage.visitor.sees("Returned in October", ".jobs")


@shot("job", 0)
@shot("job-phone-dark", 0, screen=PHONE, dark=True)
async def a_job(stage: PagePose) -> None:
    """One that is under way, with outcomes of every sort."""
    async with working(stage.api):
        job = await with_jobs(stage.api, 30)
        await stage.visitor.tab.run(f"location.hash = '#/jobs/{job['id']}'")
        await stage.visitor.sees("failed", ".targets")
        await stage.visitor.tab.until("document.querySelector('.chart .line')?.getAttribute('d').length > 100")


@shot("certificate", 0, screen=SHEET)
async def the_certificate(stage: PagePose) -> None:
    """That of a device which was wiped."""
    made = await with_resets(stage.api)
    await stage.visitor.tab.run(f"location.hash = '#/devices/{made['id']}/resets/{made['command']['id']}'")
    await stage.visitor.tab.until(f"({INSIDE})?.body?.innerText.includes('Verification'.toUpperCase())")
    await stage.visitor.tab.until("document.querySelector('iframe').offsetHeight > 900")


@shot("sign-in", 0, is_signed_in=False)
@shot("sign-in-phone-dark", 0, screen=PHONE, dark=True, is_signed_in=False)
async def the_sign_in(stage: PagePose) -> None:
    """At a provider, or with a key."""
    await stage.visitor.tab.goto(f"{stage.visitor.url}/")
    await stage.visitor.sees("Sign in with login.example.com", ".signin")


async def take(name: str, folder: Path) -> None:
    """One picture, of a gateway and in a separate browser."""
    taken = SHOTS[name]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        async with photograph(taken, Path(place)) as stage:
            await stage.visitor.tab.screen(*taken.screen, dark=taken.dark)
            await taken.pose(stage)
            await stage.visitor.tab.picture(folder / f"{name}.png")


@asynccontextmanager
async def photograph(taken: Shot, place: Path) -> AsyncIterator[PagePose]:
    """A gateway with these devices, the last of which has lived for a week, and a browser at its page."""
    async with serving(
        place / "data", project="Hospital North", oidc=None if taken.is_signed_in else at_provider
    ) as api:
        await api.store.write(lambda tx: fill(tx, api.project_id, max(0, taken.devices - 1)))
        device = await _with_history(api) if taken.devices else None
        async with signed_in(api.url, api.key) if taken.is_signed_in else open_page(api.url) as visitor:
            yield PagePose(api, visitor, device)


async def at_provider(page_url: str) -> OidcOptions:
    """Sign-in at a provider that is never asked."""
    return options(page_url, issuer="https://login.example.com")


async def _with_history(api: Api) -> Json:
    bound = await api.bound("BP-010417", end_user_id="eu_4711")
    await api.back_end.patch(
        f"/v1/devices/{bound['id']}", json={"name": "Ward 3, bed 2", "tags": ["ward-3", "recall-12"]}
    )
    await api.store.write(lambda tx: add_history(tx, bound["id"], days=7))
    device = api.as_(bound["device_token"])
    for command in ("start_recording", "reboot"):
        asked = (await api.back_end.post(f"/v1/devices/{bound['id']}/commands", json={"type": command})).json()
        for status in ("delivered", "executed"):
            await device.post(f"/v1/devices/me/commands/{asked['id']}/ack", json={"status": status})
    told = {**health_fields(api.clock()), "device_state": "recording", "connection_type": ["wifi"]}
    await device.post("/v1/devices/me/heartbeat", json=told)
    return bound


async def main() -> None:
    """Take what is asked for."""
    log.configure("warning")
    folder, *names = sys.argv[1:]
    for name in names or SHOTS:
        await take(name, Path(folder))
        print(name)  # noqa: T201 - for the person who asked for it


if __name__ == "__main__":
    asyncio.run(main())
