"""The tree of paths: which endpoint serves what, and what a parameter stands for."""

from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from gateway.http.routing import Paths

TEMPLATES = (
    "/",
    "/v1/devices",
    "/v1/devices/stats",
    "/v1/devices/{device_id}",
    "/v1/devices/{device_id}/reset",
    "/v1/devices/bulk/reset",
    "/v1/devices/{device_id}/commands/pending",
    "/v1/devices/{device_id}/commands/{command_id}/ack",
    "/v1/{other}/things",
)


class RecordedRoute:
    """Notes which template was served, with which parameters."""

    def __init__(self) -> None:
        self.by: tuple[str, dict[str, str]] | None = None

    def endpoint(self, template: str) -> Any:
        """An application for this template."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            del receive, send
            self.by = template, scope["path_params"]

        return serve

    async def get(self, path: str) -> tuple[str, dict[str, str]] | None:
        """Who serves this path."""
        unknown = self.endpoint("unknown")
        paths = Paths([(template, self.endpoint(template)) for template in TEMPLATES], unknown)
        await paths({"type": "http", "path": path}, _never, _never)
        return self.by


async def _never(*_: Any) -> Any:
    raise AssertionError("nothing is read or answered here")


@pytest.mark.parametrize(
    ("path", "template", "parameters"),
    [
        ("/", "/", {}),
        ("/v1/devices", "/v1/devices", {}),
        ("/v1/devices/stats", "/v1/devices/stats", {}),
        ("/v1/devices/dev_1", "/v1/devices/{device_id}", {"device_id": "dev_1"}),
        ("/v1/devices/bulk/reset", "/v1/devices/bulk/reset", {}),
        ("/v1/devices/bulk", "/v1/devices/{device_id}", {"device_id": "bulk"}),
        ("/v1/devices/stats/reset", "/v1/devices/{device_id}/reset", {"device_id": "stats"}),
        ("/v1/devices/things", "/v1/devices/{device_id}", {"device_id": "things"}),
        ("/v1/rooms/things", "/v1/{other}/things", {"other": "rooms"}),
        (
            "/v1/devices/d/commands/c/ack",
            "/v1/devices/{device_id}/commands/{command_id}/ack",
            {"device_id": "d", "command_id": "c"},
        ),
        ("/v1/devices/{device_id}", "/v1/devices/{device_id}", {"device_id": "{device_id}"}),
        ("/v1/devices/a\n", "/v1/devices/{device_id}", {"device_id": "a\n"}),
    ],
)
async def test_a_path_finds_its_route(path: str, template: str, parameters: dict[str, str]) -> None:
    """What is written in a template goes before a parameter, which stands for any segment."""
    assert await RecordedRoute().get(path) == (template, parameters)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "//",
        "/v1",
        "/v1/",
        "/v1/devices/",
        "/v1//devices",
        "/v1/devices//reset",
        "/v1/devices/d/reset/",
        "/v1/a/b/c",
    ],
)
async def test_unknown_paths_have_no_route(path: str) -> None:
    """To the letter: no slash more or less, and no parameter is empty."""
    assert await RecordedRoute().get(path) == ("unknown", {})
