"""Settings of the sign-in: what each should be, what they need of each other, and the address of the page."""

import pytest

from gateway.settings.loading import load
from gateway.settings.role_rules import RoleRule
from tests.settings.support import problems, toml

GOOD: dict[str, object] = {
    "oidc_issuer": "https://login.example.com/realms/fleet",
    "oidc_client_id": "gateway",
    "oidc_client_secret_file": "secret",
    "oidc_roles": "fleet-admins=one:admin",
}
BEYOND: dict[str, object] = {"http": "0.0.0.0:8443", "http_cert_file": "c", "http_key_file": "k"}


def test_roles_are_read_from_text_and_from_a_list() -> None:
    """A value may have = and : and, in a list, commas."""
    assert load({**GOOD, "oidc_roles": "a=one:viewer,b=c=two:admin"}, {}).settings.oidc_roles == (
        RoleRule("a", "one", "viewer"),
        RoleRule("b=c", "two", "admin"),
    )
    file = toml('oidc_roles = ["CN=fleet,DC=example=one:operator"]')
    settings = load({k: v for k, v in GOOD.items() if k != "oidc_roles"}, {}, file).settings
    assert settings.oidc_roles == (RoleRule("CN=fleet,DC=example", "one", "operator"),)
    assert settings.session_hours == 12


@pytest.mark.parametrize(
    ("options", "name", "words"),
    [
        ({"oidc_issuer": "login.example.com"}, "oidc_issuer", "should be an https:// URL"),
        ({"oidc_issuer": "https://ann:hush@login.example.com"}, "oidc_issuer", "without user"),
        ({"oidc_issuer": "http://login.example.com"}, "oidc_issuer", "only a provider on this machine"),
        ({"oidc_issuer": "none"}, "oidc_issuer", "is needed as well"),
        ({"oidc_client_id": "none"}, "oidc_client_id", "is needed as well"),
        ({"oidc_client_secret_file": "none"}, "oidc_client_secret_file", "is needed as well"),
        ({"oidc_roles": ""}, "oidc_roles", "needs at least one"),
        ({"oidc_roles": "fleet=one:boss"}, "oidc_roles", "viewer, operator, admin"),
        ({"oidc_roles": "fleet"}, "oidc_roles", "'fleet' is not"),
        ({"oidc_scopes": "profile"}, "oidc_scopes", "openid"),
        ({"oidc_role_claim": "a b"}, "oidc_role_claim", "the name of a claim"),
        ({"session_hours": "0"}, "session_hours", "from 0.01 to 744"),
        ({"oidc_check_seconds": "1"}, "oidc_check_seconds", "from 10 to 86400"),
        ({"public_url": "http://fleet.example.com"}, "public_url", "should be an https:// URL"),
        ({"public_url": "https://fleet.example.com/?a=b"}, "public_url", "without user, query"),
        ({"http": "127.0.0.1:0"}, "public_url", "is needed as well"),
        (BEYOND, "public_url", "is needed as well"),
        ({"http_page": "false"}, "http_page", "should be true"),
    ],
)
def test_a_wrong_setting_is_refused(options: dict[str, object], name: str, words: str) -> None:
    """With the setting to change and what it should be."""
    (problem,) = problems({**GOOD, **options})
    assert problem.startswith(f"{name}: ")
    assert words in problem


def test_roles_alone_are_refused() -> None:
    """They would have no effect."""
    (problem,) = problems({"oidc_roles": "a=one:admin"})
    assert problem.startswith("oidc_roles: ")
    assert "needs oidc_issuer" in problem


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"http": "localhost:80"}, "http://localhost"),
        ({"http": "[::1]:8080"}, "http://[::1]:8080"),
        ({"public_url": "https://Fleet.Example.com:443/gateway/"}, "https://fleet.example.com/gateway"),
        ({**BEYOND, "public_url": "https://fleet.example.com:8443"}, "https://fleet.example.com:8443"),
    ],
)
def test_the_page_has_an_address(options: dict[str, object], address: str) -> None:
    """That of the setting as browsers write it, or of the listener on loopback."""
    assert load({**GOOD, **options}, {}).settings.page_url == address


def test_a_provider_on_this_machine_needs_no_tls() -> None:
    """As in tests of an installation."""
    for issuer in ("http://127.0.0.1:8081", "http://localhost:8081/realms/fleet", "http://[::1]:8081"):
        assert load({**GOOD, "oidc_issuer": issuer}, {}).settings.oidc_issuer == issuer
