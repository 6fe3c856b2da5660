"""Fixtures of the tests of the embedded broker."""

from collections.abc import AsyncIterator

import pytest

from gateway.broker.embedded.server import EmbeddedBroker
from tests.broker.embedded.support import authenticate


@pytest.fixture
async def broker() -> AsyncIterator[EmbeddedBroker]:
    """An embedded broker on a free port."""
    async with EmbeddedBroker(authenticate=authenticate) as running:
        yield running
