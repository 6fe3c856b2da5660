"""The page of a certificate in Chromium: on paper, for everybody, and whatever stands in the claims."""

import json
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path

import pytest

from gateway.http.certificate_page import render
from gateway.http.certificate_page.qr_code import verification_text
from tests.http.certificate_page.claims import KID, SHA256, Json, executed, largest, of_each_kind
from tests.support.chromium import Page, browser
from tests.support.page import PHONE
from tests.support.paper import SIZES, printed

AXE = (files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"&amp;"
TURNED = "eu\u202ednop\u202c"


def page_of(claims: Json) -> bytes:
    """The page of a certificate with these claims."""
    return render(claims, kid=KID, sha256=SHA256)


@pytest.fixture
async def tab() -> AsyncIterator[Page]:
    """A browser that has nothing to complain about."""
    async with browser() as page:
        yield page
        assert page.complaints == []


async def shown(tab: Page, folder: Path, claims: Json) -> None:
    """Show the page as a file, as it is when it was sent by mail."""
    file = folder / "certificate.html"
    file.write_bytes(page_of(claims))
    await tab.goto(file.as_uri())


async def violations(tab: Page) -> list[str]:
    """What axe finds, whatever its impact."""
    await tab.run(f"{AXE};0")
    found: Json = json.loads(await tab.run("axe.run(document, {}).then((found) => JSON.stringify(found))"))
    assert len(found["passes"]) > 10
    return [f"{each['id']}: {node['html']}" for each in found["violations"] for node in each["nodes"]]


async def test_every_certificate_fits_one_sheet_and_its_code_can_be_read(tab: Page, tmp_path: Path) -> None:
    """Each outcome, addenda and the largest one; the code is read from the printed pixels.

    Letter is shorter than A4, so the largest one is printed on both.
    """
    for headline, claims in {**of_each_kind(), "WWW": largest()}.items():
        await shown(tab, tmp_path, claims)
        for paper in SIZES if claims == largest() else ["A4"]:
            sheet = await printed(tab, paper)
            assert (headline, paper, sheet.pages) == (headline, paper, 1)
            assert headline in sheet.text
            assert sheet.codes == [
                verification_text(certificate_id=claims["jti"], sha256=SHA256, issuer=claims["iss"], kid=KID)
            ]


async def test_the_page_passes_the_accessibility_check(tab: Page, tmp_path: Path) -> None:
    """Every rule of axe, on a desktop and on a phone, in both themes; and nothing is wider than the phone."""
    for claims in (*of_each_kind().values(), largest()):
        await shown(tab, tmp_path, claims)
        assert (claims["outcome"], await violations(tab)) == (claims["outcome"], [])
    await tab.screen(*PHONE, dark=True)
    assert await tab.run("document.documentElement.scrollWidth <= innerWidth")
    assert await violations(tab) == []


async def test_text_of_others_stays_text(tab: Page, tmp_path: Path) -> None:
    """Markup in every claim is shown literally, nothing is loaded, and a direction is written out."""
    device = {"serial_number": HOSTILE, "model": HOSTILE, "firmware_version": TURNED}
    request = {"at": "2026-11-29T08:16:00.000Z", "actor": HOSTILE, "reason": TURNED, "request_id": HOSTILE}
    request["actor_name"] = HOSTILE
    claims = executed(
        device=device, request=request, wiped=[HOSTILE], kept=[TURNED], jti=HOSTILE, iss=HOSTILE, sub=HOSTILE,
        technique={HOSTILE: HOSTILE}, outcome=HOSTILE, number=HOSTILE, project_id=HOSTILE,
        receipt={"alg": HOSTILE}, grant={"kid": HOSTILE, "jti": HOSTILE}, end_user={"hash": HOSTILE}, previous=HOSTILE,
    )  # fmt: skip
    await shown(tab, tmp_path, claims)
    assert await tab.run("document.querySelectorAll('script, img').length") == 0
    text = await tab.run("document.body.innerText")
    assert text.count(HOSTILE) > 8
    assert "eu\\u202ednop\\u202c" in text
    assert "\u202e" not in text


def test_the_page_says_what_it_cannot_prove() -> None:
    """Always that a receipt is no evidence from hardware; of a reset without a wipe, that it shows none."""
    for claims in of_each_kind().values():
        page = page_of(claims).decode()
        assert "no evidence from the device&#x27;s hardware" in page
        is_wiped = "executed" in (claims["outcome"], claims.get("late", {}).get("status"))
        assert ("It does not show that the device was wiped" in page) is not is_wiped


@pytest.mark.parametrize(
    ("wish", "reported", "words"),
    [
        ("keep", None, "The request was to keep recordings"),
        ("keep", {"wiped": 0, "kept": 3}, "The request was to keep recordings"),
        ("wipe", None, "The device did not report what it did with recordings"),
        ("wipe", {"wiped": 3, "kept": 0}, None),
    ],
)
def test_the_page_says_what_is_left_open_about_recordings(wish: str, reported: Json | None, words: str | None) -> None:
    """They may be kept on purpose, or by firmware that does not know the wish."""
    claims = executed(recordings=reported)
    claims["request"]["recordings"] = wish
    page = page_of(claims).decode()
    for each in ("The request was to keep recordings", "The device did not report what it did with recordings"):
        assert (each in page) is (each == words)


def test_who_asked_is_named_with_the_id() -> None:
    """The name beside the id; the id alone where an earlier version signed no name."""
    claims = executed()
    actor = claims["request"]["actor"]
    assert f"<bdi>Returns desk</bdi> <code>{actor}</code>" in page_of(claims).decode()
    del claims["request"]["actor_name"]
    page = page_of(claims).decode()
    assert f"<code>{actor}</code>" in page
    assert "Returns desk" not in page


def test_a_certificate_with_little_in_it_is_shown() -> None:
    """One of an earlier version or of an unknown outcome: what is missing is said to be not known."""
    page = page_of({"jti": "cert_1", "iss": "gw_1", "outcome": "evaporated"}).decode()
    assert "Outcome not known to this version" in page
    assert page.count("not known") > 8
