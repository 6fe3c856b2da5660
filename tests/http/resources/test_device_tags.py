"""Tags over HTTP: what is refused, and the filter in lists and counts."""

from typing import Any

import pytest

from tests.http.support import Api, Json, body, error

PATH = "/v1/devices"


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"tags": ["a,b"]}, "tags.0", "without a comma"),
        ({"tags": ["ok", "x" * 65]}, "tags.1", "should be 1 to 64"),
        ({"tags": [""]}, "tags.0", "should be 1 to 64"),
        ({"add_tags": ["a b"]}, "add_tags.0", "should be 1 to 64"),
        ({"remove_tags": ["ä"]}, "remove_tags.0", "should be 1 to 64"),
        ({"tags": ["a\n"]}, "tags.0", "should be 1 to 64"),
        ({"tags": [f"t{number}" for number in range(33)]}, "tags", "at most 32 tags, has 33"),
        ({"tags": "a"}, "tags", "array"),
        ({"tags": None}, "tags", "array"),
        ({"tags": [1]}, "tags.0", "string"),
        ({"tags": ["a"], "add_tags": ["b"]}, "tags", "Send one or the other"),
        ({"tag": ["a"]}, "tag", "Did you mean 'tags'?"),
    ],
)
async def test_wrong_tags_are_refused(api: Api, change: Json, field: str, says: str) -> None:
    """400 names the field and the remedy; the device is as it was."""
    device = await api.registered("BP-1")
    refused = error(await api.back_end.patch(f"{PATH}/{device['id']}", json=change), 400, "invalid_request")
    assert refused["details"]["field"] == field
    assert says in refused["message"]
    assert body(await api.back_end.get(f"{PATH}/{device['id']}"), 200) == device


async def test_lists_and_counts_take_tags(api: Api) -> None:
    """All must match; beside other filters, in pages, with a total; a text finds tags too."""
    for number in range(6):
        device = await api.registered(f"BP-{number}", name=f"Ward {number}")
        wanted = {"tags": ["all", *(["odd"] if number % 2 else [])]}
        changed = body(await api.back_end.patch(f"{PATH}/{device['id']}", json=wanted), 200)
        assert changed["tags"] == wanted["tags"]

    async def found(**query: Any) -> list[str]:
        page = body(await api.back_end.get(PATH, params={"total": True, **query}), 200)
        assert page["total"] == len(page["data"])
        return [each["serial_number"] for each in page["data"]]

    assert await found(tag="odd") == ["BP-5", "BP-3", "BP-1"]
    assert await found(tag=["odd", "all"], sort="name") == ["BP-1", "BP-3", "BP-5"]
    assert await found(tag=["odd", "none"]) == []
    assert await found(tag="odd", search="ward 3") == ["BP-3"]
    assert await found(search="odd", tag="none") == []
    assert await found(search="ODD") == ["BP-5", "BP-3", "BP-1"]
    first = body(await api.back_end.get(PATH, params={"tag": "odd", "limit": 2}), 200)
    rest = body(await api.back_end.get(PATH, params={"tag": "odd", "cursor": first["next_cursor"]}), 200)
    assert [each["serial_number"] for each in rest["data"]] == ["BP-1"]
    counted = body(await api.back_end.get(f"{PATH}/stats", params={"tag": ["odd", "all"]}), 200)
    assert (counted["total_count"], counted["never_seen_count"]) == (3, 3)
    other = api.as_(await api.another_key(project="two"))
    assert body(await other.get(PATH, params={"tag": "odd"}), 200)["data"] == []
    assert body(await other.get(f"{PATH}/stats", params={"tag": "odd"}), 200)["total_count"] == 0


@pytest.mark.parametrize("path", [PATH, f"{PATH}/stats"])
async def test_a_wrong_filter_is_refused(api: Api, path: str) -> None:
    """A tag that no device can have, and more tags than a device can have; others may still come once only."""
    for wrong, field in ({"tag": "a,b"}, "tag.0"), ({"tag": ["a", ""]}, "tag.1"), ({"tag": ["a"] * 33}, "tag"):
        refused = error(await api.back_end.get(path, params=wrong), 400, "invalid_request")
        assert refused["details"]["field"] == field
    twice = error(await api.back_end.get(PATH, params={"model": ["a", "b"]}), 400, "invalid_request")
    assert "Send each once" in twice["message"]
