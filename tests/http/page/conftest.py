"""What several tests of the page share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.http.sign_in.support import Site, site


@pytest.fixture
async def place(tmp_path: Path, issuer: str) -> AsyncIterator[Site]:
    """A gateway and a real provider, with three people."""
    async with site(tmp_path, issuer) as running:
        for sub, group in (("ann", "operators"), ("vic", "viewers"), ("eve", "others")):
            await running.provider.person(sub, name=f"{sub.title()} Example", groups=[group])
        yield running
