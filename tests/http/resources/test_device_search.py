"""Finding devices among many: by text and by condition; and what a key is told of itself."""

import pytest

from tests.http.support import Api, body, error


async def found(api: Api, **query: str) -> set[str]:
    """The serial numbers that a list with this query has."""
    answer = body(await api.back_end.get("/v1/devices", params=query), 200)
    return {each["serial_number"] for each in answer["data"]}


async def test_a_short_text_is_found_at_the_beginning(api: Api) -> None:
    """One or two characters: of the serial number, of the name or of a tag; not of ids, which all begin alike."""
    first = await api.registered("BP-1", name="Ward 3")
    await api.registered("bq-2", name="%_")
    body(await api.back_end.patch(f"/v1/devices/{first['id']}", json={"tags": ["zz", "pilot"]}), 200)
    expected = {"b": {"BP-1", "bq-2"}, "Bp": {"BP-1"}, "W": {"BP-1"}, "ZZ": {"BP-1"}, "pi": {"BP-1"}, "%": {"bq-2"}}
    expected |= {text: set() for text in ("de", "3", "p-", "il", "_", ",", "\\")}
    for text, serial_numbers in expected.items():
        assert await found(api, search=text) == serial_numbers, text
        assert await found(api, search=text, status="unbound") == serial_numbers, text


async def test_text_is_found_in_every_field(api: Api) -> None:
    """In id, serial number, name and end user, in small letters and capitals, and as it is: no wildcard."""
    first = await api.registered("BP-100%", name="Ward 3, Bed_2")
    await api.registered("BP-1000", name="Ward 3, BedX2")
    await api.bound("BP-2\\", end_user_id="eu_Wanda")
    assert await found(api, search="100") == {"BP-100%", "BP-1000"}
    assert await found(api, search="100%") == {"BP-100%"}
    assert await found(api, search="bed_2") == {"BP-100%"}
    assert await found(api, search="-2\\") == {"BP-2\\"}
    assert await found(api, search="WAND") == {"BP-2\\"}
    assert await found(api, search=first["id"][4:]) == {"BP-100%"}
    assert await found(api, search="ward", status="bound") == set()
    assert await found(api, search="elsewhere") == set()
    error(await api.back_end.get("/v1/devices", params={"search": ""}), 400, "invalid_request")


async def test_search_conditions_match_those_of_the_stats(api: Api) -> None:
    """As many as are counted: low battery, full storage, an open reset; another project's never."""
    for serial, beat in {"low": {"battery_percent": 5}, "full": {"flags": 4}, "both": {"flags": 6}, "well": {}}.items():
        token = (await api.bound(serial))["device_token"]
        body(await api.as_(token).post("/v1/devices/me/heartbeat", json=beat), 200)
    await api.reset((await api.bound("reset"))["id"])
    assert await found(api, condition="low_battery") == {"low", "both"}
    assert await found(api, condition="storage_full") == {"full", "both"}
    assert await found(api, condition="reset_pending") == {"reset"}
    stats = body(await api.back_end.get("/v1/devices/stats"), 200)
    assert [stats[f"{each}_count"] for each in ("low_battery", "storage_full", "pending_reset")] == [2, 2, 1]
    other = api.as_(await api.another_key(project="two"))
    for condition in ("low_battery", "storage_full", "reset_pending"):
        assert body(await other.get("/v1/devices", params={"condition": condition}), 200)["data"] == []


@pytest.mark.parametrize("scopes", [("devices:read",), ("devices:write", "devices:read")])
async def test_a_key_can_read_its_scopes(api: Api, scopes: tuple[str, ...]) -> None:
    """Its id, its project, its scopes; never its secret."""
    key = await api.another_key(*scopes)
    answer = await api.as_(key).get("/v1/key")
    told = body(answer, 200)
    assert told["id"].startswith("key_")
    assert (told["project_id"], told["project_name"], told["scopes"]) == (api.project_id, "one", sorted(scopes))
    assert key[:12] not in answer.text
