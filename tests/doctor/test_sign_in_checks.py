"""The doctor looks at the provider: whether it answers, is the right one, and what is set wrong."""

from pathlib import Path
from typing import Any

import pytest

from gateway.doctor import sign_in_checks
from gateway.doctor.findings import Level
from gateway.oidc.http_client import ProviderAnswer
from gateway.settings.loading import load
from gateway.store import Context, key_sql, open_database, transact
from tests.support.oidc_provider import OidcProvider, client_of, provider_process
from tests.support.ports import closed_port


async def findings(data_dir: Path, issuer: str, **given: Any) -> dict[str, tuple[Level, str]]:
    """Level and words of each finding, by name."""
    secret = data_dir / "secret"
    secret.write_text("hush\n")
    told = {
        "data_dir": str(data_dir),
        "oidc_issuer": issuer,
        "oidc_client_id": "gateway",
        "oidc_client_secret_file": str(secret),
        "oidc_roles": "staff=one:viewer",
    }
    settings = load({**told, **given}, {}).settings
    return {each.name: (each.level, each.says) async for each in sign_in_checks.provider(settings)}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A registry with a project."""
    connection = open_database(tmp_path)
    transact(connection, Context(), lambda tx: key_sql.create_project(tx, "one"))
    connection.close()
    return tmp_path


async def test_a_good_provider_is_found_good(data_dir: Path) -> None:
    """It answers, with the right issuer, keys and time; the project of the role is there."""
    with provider_process() as issuer:
        found = await findings(data_dir, issuer)
        assert {name for name, (level, _) in found.items() if level is Level.OK} == {
            *("roles", "provider", "clocks", "PKCE", "back channel")
        }
        assert found["provider"][1] == f"{issuer} answers, with 1 key"
        wrong = await findings(data_dir, f"{issuer}/")
        assert wrong["provider"][0] is Level.ERROR
        assert "letter by letter" in wrong["provider"][1]
        async with client_of(issuer) as http:
            await OidcProvider(issuer, http).behave(metadata={"code_challenge_methods_supported": ["plain"]})
        assert (await findings(data_dir, issuer))["PKCE"][0] is Level.WARNING


async def test_what_is_wrong_is_named(data_dir: Path) -> None:
    """A provider that is away, a project that is not there, a secret that cannot be read."""
    with closed_port() as port:
        found = await findings(data_dir, f"http://127.0.0.1:{port}", oidc_roles="staff=two:viewer")
    assert found["provider"][0] is Level.ERROR
    assert "cannot be reached" in found["provider"][1]
    assert found["roles"][0] is Level.ERROR
    found = await findings(data_dir, "http://127.0.0.1:9", oidc_client_secret_file=str(data_dir / "nothing"))
    assert "oidc_client_secret_file" in found["set up"][1]


async def test_without_a_provider_nothing_is_said(data_dir: Path) -> None:
    """Where people do not sign in."""
    settings = load({"data_dir": str(data_dir)}, {}).settings
    assert [each async for each in sign_in_checks.provider(settings)] == []


def test_clocks_that_are_apart_are_an_error() -> None:
    """Beyond the minute that tokens allow."""
    wrong = sign_in_checks._clock(ProviderAnswer(200, {}, "Tue, 10 Nov 2020 12:00:00 GMT"))  # noqa: SLF001
    assert wrong.level is Level.ERROR
    assert sign_in_checks._clock(ProviderAnswer(200, {}, None)).level is Level.OK  # noqa: SLF001
