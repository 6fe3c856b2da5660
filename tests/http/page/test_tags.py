"""Tags on the page: in the list, as a filter, on a device and on a selection; and the list as a CSV file."""

import csv
import io
from pathlib import Path

from tests.http.page.test_actions import closed, enter
from tests.http.page.test_resets import saves_to
from tests.http.support import Api, Json, body
from tests.support.page import signed_in
from tests.support.wait import eventually


async def tagged(api: Api, serial: str, *tags: str, **fields: object) -> Json:
    """A device with these tags."""
    device = await api.registered(serial, **fields)
    return body(await api.back_end.patch(f"/v1/devices/{device['id']}", json={"tags": tags}), 200)


async def tags_of(api: Api, device: Json) -> list[str]:
    """The tags that the gateway has."""
    found: list[str] = body(await api.back_end.get(f"/v1/devices/{device['id']}"), 200)["tags"]
    return found


async def test_tags_are_shown_and_filter_the_list(api: Api) -> None:
    """In a row as text, on the device as links; several in the address, all of which must match."""
    await tagged(api, "BP-1", "ward-3", "recall")
    device = await tagged(api, "BP-2", "ward-3")
    await tagged(api, "BP-3")
    async with signed_in(api.url, api.key) as visitor:
        await visitor.lists("BP-3", "BP-2", "BP-1")
        await visitor.sees("ward-3", ".devices")
        await visitor.tab.run("location.hash = '#/?tag=ward-3&tag=recall'")
        await visitor.lists("BP-1")
        assert await visitor.tab.run("document.getElementById('filter_tag').value") == "ward-3 recall"
        await visitor.tab.run("document.querySelector('.filters details').open = true")
        await visitor.tab.run("document.getElementById('filter_tag').select()")
        await visitor.tab.type("ward-3")
        await visitor.lists("BP-2", "BP-1")
        assert await visitor.tab.run("location.hash") == "#/?tag=ward-3"
        await visitor.opens(device)
        await visitor.tab.run("document.querySelector('.title .tags a').click()")
        await visitor.lists("BP-2", "BP-1")


async def test_the_tags_of_a_device_are_edited(api: Api) -> None:
    """Only what was changed is sent, so a tag that is set meanwhile stays; a wrong one is refused in words."""
    device = await tagged(api, "BP-1", "old", "ward-3")
    async with signed_in(api.url, api.key) as visitor:
        await visitor.opens(device)
        await visitor.press_button("Tags …")
        await enter(visitor, "#tags", "ward-3 <img>")
        await visitor.press_button("Save")
        await visitor.sees("add_tags", "dialog form > .error")
        body(await api.back_end.patch(f"/v1/devices/{device['id']}", json={"add_tags": ["meanwhile"]}), 200)
        await enter(visitor, "#tags", "ward-3, recall:12")
        await visitor.press_button("Save")
        await closed(visitor)
        await visitor.sees("recall:12", ".title .tags")
        assert await tags_of(api, device) == ["meanwhile", "recall:12", "ward-3"]


async def test_a_selection_is_tagged(api: Api) -> None:
    """Added to each and removed from each; one that has too many tags is left as it is, and that is said."""
    full = await tagged(api, "BP-1", *(f"t{number}" for number in range(32)))
    others = [await tagged(api, f"BP-{number}", "old") for number in (2, 3)]
    async with signed_in(api.url, api.key) as visitor:
        await visitor.lists("BP-3", "BP-2", "BP-1")
        await visitor.tab.run("document.getElementById('selectPage').click()")
        await visitor.press_button("Tag …")
        await visitor.press_button("Change the tags")
        await visitor.sees("No tag is given", "dialog form > .error")
        await enter(visitor, "#tagsAdd", "new <img>")
        await visitor.press_button("Change the tags")
        await visitor.sees("“<img>” is no tag", "dialog form > .error")
        await enter(visitor, "#tagsAdd", "new")
        await enter(visitor, "#tagsRemove", "old")
        await visitor.press_button("Change the tags")
        await visitor.sees("1 of 3 devices were not changed", "dialog form > .error")
        await visitor.tab.press("Escape")
        await closed(visitor)
        assert [await tags_of(api, each) for each in others] == [["new"], ["new"]]
        assert len(await tags_of(api, full)) == 32
        await visitor.tab.until("document.querySelectorAll('.devices .tags li').length === 34")


async def test_the_list_is_exported_as_csv(api: Api, tmp_path: Path) -> None:
    """All that the filters find, in the order of the list, by a file that a spreadsheet runs nothing of."""
    for number in range(3):
        await tagged(api, f"BP-{number}", "recall", name=f"=1+{number}")
    await tagged(api, "BP-other")
    async with signed_in(api.url, api.key) as visitor:
        await saves_to(visitor, tmp_path)
        await visitor.tab.run("location.hash = '#/?tag=recall&sort=serial_number&order=desc'")
        await visitor.lists("=1+2", "=1+1", "=1+0")
        await visitor.press_button("Export as CSV")
        file = tmp_path / "devices.csv"

        async def is_there() -> bool:
            return file.exists()

        await eventually(is_there, "the file")
        rows = list(csv.DictReader(io.StringIO(file.read_bytes().decode("utf-8-sig"))))
        assert [each["serial_number"] for each in rows] == ["BP-2", "BP-1", "BP-0"]
        assert [each["name"][0] for each in rows] == ["'"] * 3
