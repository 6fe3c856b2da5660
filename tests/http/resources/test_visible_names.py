"""Names that cannot be seen, or that turn the words around them: refused where they are set, over HTTP."""

import unicodedata

import pytest

from tests.http.support import Api, Json, body, error

WRONG = {
    "\u202e": "U+202E RIGHT-TO-LEFT OVERRIDE",
    "\u2066": "U+2066 LEFT-TO-RIGHT ISOLATE",
    "\u200f": "U+200F RIGHT-TO-LEFT MARK",
    "\u200b": "U+200B ZERO WIDTH SPACE",
    "\u200d": "U+200D ZERO WIDTH JOINER",
    "\ufeff": "U+FEFF ZERO WIDTH NO-BREAK SPACE",
    "\u00ad": "U+00AD SOFT HYPHEN",
    "\u3164": "U+3164 HANGUL FILLER",
    "\U000e0041": "U+E0041 TAG LATIN CAPITAL LETTER A",
    "\n": "U+000A LINE FEED",
    "\u2028": "U+2028 LINE SEPARATOR",
    "\x1b": "U+001B ESCAPE",
    "\x85": "U+0085 control character",
}
GOOD = ("Ward 3, bed 2", "Bett ② 🛏", "חדר 2", "سرير ٢", "می‌خواهم", "👩‍⚕️ desk", "क्‍ष", "病室　三", "e\u0301")


@pytest.mark.parametrize("character", WRONG, ids=lambda each: f"U+{ord(each):04X}")
async def test_invisible_characters_are_refused(api: Api, character: str) -> None:
    """In the name, the serial number and the version, at registration and at a change; the character is named."""
    device = await api.registered("BP-1", name="Bed 1")
    path = f"/v1/devices/{device['id']}"
    wrong = f"Bed{character} 2"
    attempts: list[tuple[str, str, str, Json]] = [
        ("POST", "/v1/devices", "serial_number", {"serial_number": wrong}),
        ("POST", "/v1/devices", "name", {"serial_number": "BP-2", "name": wrong}),
        ("POST", "/v1/devices", "firmware_version", {"serial_number": "BP-2", "firmware_version": wrong}),
        ("PATCH", path, "name", {"name": wrong}),
        ("PATCH", path, "firmware_version", {"firmware_version": wrong}),
    ]
    for method, where, field, change in attempts:
        refused = error(await api.back_end.request(method, where, json=change), 400, "invalid_request")
        assert refused["message"].startswith(f"{field}: should not contain {WRONG[character]} (position 4)")
        assert refused["details"]["field"] == field
    assert body(await api.back_end.get("/v1/devices"), 200)["data"] == [device]


@pytest.mark.parametrize("name", GOOD)
async def test_names_may_use_every_script(api: Api, name: str) -> None:
    """Joiners of emoji, Persian and Indic scripts, right-to-left text: kept to the letter."""
    device = await api.registered(name, name=name)
    assert (device["serial_number"], device["name"]) == (unicodedata.normalize("NFC", name), name)


async def test_blanks_around_a_name_are_trimmed(api: Api) -> None:
    """So " BP-1" registers no second device; what is nothing but blanks is no serial number."""
    device = await api.registered("  BP-1\u3000", name=" Bed 1 ", firmware_version=" 1.0 ")
    assert [device[each] for each in ("serial_number", "name", "firmware_version")] == ["BP-1", "Bed 1", "1.0"]
    again = await api.back_end.post("/v1/devices", json={"serial_number": " BP-1"})
    assert body(again, 200)["id"] == device["id"]
    refused = error(await api.back_end.post("/v1/devices", json={"serial_number": "  "}), 400, "invalid_request")
    assert refused["details"]["field"] == "serial_number"


async def test_serial_numbers_are_compared_in_normal_form(api: Api) -> None:
    """One character or two, it is one device, found in either form; what is too long as it is kept is refused."""
    device = await api.registered("Büro-1")
    apart = unicodedata.normalize("NFD", "Büro-1")
    assert apart != "Büro-1"
    again = body(await api.back_end.post("/v1/devices", json={"serial_number": f"{apart} "}), 200)
    assert (again["id"], again["serial_number"]) == (device["id"], "Büro-1")
    for form in ("Büro-1", apart):
        listed = body(await api.back_end.get("/v1/devices", params={"serial_number": form}), 200)["data"]
        assert [each["id"] for each in listed] == [device["id"]]
    longer = "\u0958" * 128  # a character that normal form C writes as two
    refused = error(await api.back_end.post("/v1/devices", json={"serial_number": longer}), 400, "invalid_request")
    assert refused["details"]["field"] == "serial_number"


async def test_a_serial_number_may_not_look_like_an_id(api: Api) -> None:
    """Neither that of a device that there is nor one that may come; what only begins so is one."""
    device = await api.registered("BP-1")
    for taken in (device["id"], "dev_01M841CNWQZHQNKKY3SWJGTV4W", "dev_1", f" {device['id']} "):
        refused = error(await api.back_end.post("/v1/devices", json={"serial_number": taken}), 400, "invalid_request")
        assert refused["details"]["field"] == "serial_number"
        assert "should not look like the id of a device" in refused["message"]
    for good in ("dev_", "dev_1-2", "DEV_1", "key_1"):
        body(await api.back_end.post("/v1/devices", json={"serial_number": good}), 201)
