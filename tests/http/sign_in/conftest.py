"""The fixtures of the tests of the sign-in."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.oidc.options import OidcOptions
from tests.http.sign_in.support import Site, options, site
from tests.http.support import Api, serving


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    """A gateway that people sign in at, whose provider is never asked."""

    async def oidc(page_url: str) -> OidcOptions:
        return options(page_url)

    async with serving(tmp_path, oidc=oidc) as running:
        yield running


@pytest.fixture
async def place(tmp_path: Path, issuer: str) -> AsyncIterator[Site]:
    """A gateway and a real provider."""
    async with site(tmp_path, issuer) as running:
        yield running
