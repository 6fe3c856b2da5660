"""The fixtures of the HTTP tests."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.http.support import Api, Caller, body, serving
from tests.support.oidc_provider import provider_process


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """An API with the default settings."""
    async with serving(tmp_path) as running:
        yield running


@pytest.fixture
async def caller(api: Api) -> AsyncIterator[Caller]:
    """A bound device with an open command; whatever the test does, no row has changed after it."""
    bound = await api.bound()
    asked = {"type": "start_recording"}
    command = body(await api.back_end.post(f"/v1/devices/{bound['id']}/commands", json=asked), 201)
    caller = Caller(api, bound, command)
    await api.settled()
    before = api.dump()
    yield caller
    assert api.dump() == before


@pytest.fixture(scope="session")
def issuer() -> Iterator[str]:
    """A provider for all tests of this process; each test registers a separate client."""
    with provider_process() as running:
        yield running
