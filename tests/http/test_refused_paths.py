"""Paths and queries that are refused: each a clear error of the contract, never a 500, never a changed row."""

import httpx
import pytest

from tests.http.support import GUARDED, REQUIRED, WITH_BODY, WITH_QUERY, Api, Caller, body, error, trying

WRONG_QUERIES: tuple[tuple[bytes, str | None], ...] = (
    (b"no_such=1", "no_such"),
    (b"limit=1&limit=2", None),
    (b"%ff=1", None),
    (b"a=%ff", None),
    (b"a=1;b=2", "a"),
    (b"&".join(b"a%d=1" % n for n in range(60)), None),
    (b"a=%00", "a"),
    (b"=1", None),
)
NO_IDS = (
    "dev_nobody",
    "me",
    "%F0%9F%98%80",
    "'%20OR%201=1--",
    "+",
    "%23",
    "x" * 4_000,
    "%25",
    "{device_id}",
)
HIDING = ("%00", "%0a", "dev_1%0d%0aX-Evil:%201", "%ff%fe", "%ed%a0%80", "%2f")


async def test_an_invalid_query_is_refused(caller: Caller) -> None:
    """400: an unknown parameter, one that is there twice, one that is not UTF-8."""
    for operation in WITH_QUERY:
        for query, field in WRONG_QUERIES:
            with trying(operation.id, query):
                path = caller.url(operation).encode() + b"?" + query
                answer = await caller.client(operation).get(httpx.URL(caller.api.url).copy_with(raw_path=path))
                assert error(answer, 400, "invalid_request")["details"].get("field") == field


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/v1/devices", "limit=0", "limit"),
        ("/v1/devices", "limit=1001", "limit"),
        ("/v1/devices", "limit=x", "limit"),
        ("/v1/devices", "limit=", "limit"),
        ("/v1/devices", "offset=-1", "offset"),
        ("/v1/devices", "offset=10001", "offset"),
        ("/v1/devices", "offset=99999999999999999999", "offset"),
        ("/v1/devices", "status=lost", "status"),
        ("/v1/devices", "connection=maybe", "connection"),
        ("/v1/devices", "serial_number=a%00b", "serial_number"),
        ("/v1/devices/{device_id}/commands", "limit=101", "limit"),
        ("/v1/devices/{device_id}/commands", "status=open", "status"),
        ("/v1/devices/{device_id}/commands", "cursor=junk", "cursor"),
        ("/v1/devices/{device_id}/commands", "cursor=dev_1", "cursor"),
        ("/v1/devices/{device_id}/events", "limit=101", "limit"),
        ("/v1/devices/{device_id}/events", "cursor=evt_nobody", "cursor"),
    ],
)
async def test_a_parameter_out_of_range_is_refused(caller: Caller, path: str, query: str, field: str) -> None:
    """400 ``invalid_request`` that names the parameter."""
    answer = await caller.api.back_end.get(f"{path.format(**caller.path)}?{query}")
    assert error(answer, 400, "invalid_request")["details"]["field"] == field


async def test_a_query_on_a_post_is_refused(caller: Caller) -> None:
    """400, since it would be ignored."""
    for operation in WITH_BODY:
        with trying(operation.id):
            answer = error(await caller.call(operation, params={"end_user_id": "eu_1"}), 400, "invalid_request")
            assert answer["details"]["field"] == "end_user_id"


async def test_unknown_ids_are_refused(caller: Caller) -> None:
    """404 for whatever stands where an id should, on every operation that has one; 400 for what hides something."""
    for operation in GUARDED:
        for name in ("device_id", "command_id"):
            if f"{{{name}}}" not in operation.path or operation.access.scope is None:
                continue
            for hostile in (*NO_IDS, *HIDING):
                path = caller.url(operation, **{name: hostile}).encode()
                url = httpx.URL(caller.api.url).copy_with(raw_path=path)
                with trying(operation.id, name, hostile):
                    content = REQUIRED.get(operation.id)
                    answer = await caller.api.back_end.request(operation.method, url, json=content)
                    error(answer, *((400, "invalid_request") if hostile in HIDING else (404, "not_found")))


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/devices/", "/v1//devices", "/v1/Devices", "/v1/devices%20", "/v1/nowhere", "/v1/a/b/c"]
)
async def test_an_unknown_path_is_refused(caller: Caller, path: str) -> None:
    """Beneath ``/v1`` 401 without a credential, else 404; no redirect for a slash, and to the letter."""
    url = caller.api.url + path
    for method in ("GET", "POST", "OPTIONS"):
        error(await caller.api.as_(None).request(method, url), 401, "unauthorized")
        error(await caller.api.back_end.request(method, url), 404, "not_found")
        error(await caller.device.request(method, url), 404, "not_found")


@pytest.mark.parametrize(
    "path", ["/page", "/nowhere", "/health/", "/ready%20", "/v2/devices", "/v10", "/../etc/passwd"]
)
async def test_an_unknown_path_outside_the_api_is_refused(caller: Caller, path: str) -> None:
    """404, with and without a credential."""
    url = httpx.URL(caller.api.url).copy_with(raw_path=path.encode())
    for client in (caller.api.as_(None), caller.api.back_end):
        error(await client.get(url), 404, "not_found")


async def test_an_unknown_method_is_refused(caller: Caller) -> None:
    """405 ``method_not_allowed`` with ``Allow``; beneath ``/v1`` 401 without a credential."""
    paths = {operation.path: caller.url(operation) for operation in GUARDED}
    for template, path in paths.items():
        methods = {operation.method for operation in GUARDED if operation.path == template}
        allowed = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "HEAD"} - allowed:
            with trying(method, template):
                answer = await caller.api.back_end.request(method, path)
                assert answer.status_code == 405
                assert set(answer.headers["allow"].split(", ")) == allowed
                if method != "HEAD":
                    error(answer, 405, "method_not_allowed")
                    error(await caller.api.as_(None).request(method, path), 401, "unauthorized")
    answer = await caller.api.as_(None).post("/health")
    error(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_options_lists_the_methods(api: Api) -> None:
    """204 with ``Allow`` and no body, for anybody: no secret is in it."""
    answer = await api.as_(None).options("/v1/devices")
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "GET, HEAD, OPTIONS, POST", b"")


async def test_head_is_get_without_the_body(api: Api) -> None:
    """The same status and headers, on good and on bad requests."""
    device = await api.registered()
    for path, status in ((f"/v1/devices/{device['id']}", 200), ("/v1/devices/dev_x", 404), ("/health", 200)):
        head, get = await api.back_end.head(path), await api.back_end.get(path)
        assert (head.status_code, get.status_code, head.content) == (status, status, b"")
        assert head.headers["content-length"] == get.headers["content-length"]
    body(await api.back_end.get("/v1/devices"), 200)
