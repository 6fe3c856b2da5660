"""Options of sign-in with OpenID Connect, and its errors."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.core.clock import HOUR_MS, SECOND_MS
from gateway.errors import GatewayError, UnavailableError
from gateway.runtime.private_files import read_secret_line
from gateway.settings.role_rules import RoleRule
from gateway.settings.sign_in import SignInFields

MISSING: Final = "oidc_issuer needs a package that is not installed (joserfc): pip install 'device-gateway[oidc]'."


@dataclass(frozen=True)
class OidcOptions:
    """Settings of the sign-in, as they are in force; times in milliseconds."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    page_url: str
    rules: tuple[RoleRule, ...]
    role_claim: str = "groups"
    scopes: str = "openid profile email"
    check_ms: int = 300_000
    session_ms: int = 12 * HOUR_MS
    ca_file: Path | None = None

    @property
    def redirect_uri(self) -> str:
        """Return the address to which the provider sends the browser back."""
        return f"{self.page_url}/auth/callback"

    @property
    def is_secure(self) -> bool:
        """Return whether cookies of a session go over HTTPS alone."""
        return self.page_url.startswith("https://")


class TokenError(GatewayError):
    """A token or an answer of the provider that is not good; the message says why, for the log."""

    code = "unauthorized"


class ProviderRefusedError(GatewayError):
    """The provider does not vouch for the person any more, or refuses a code."""

    code = "unauthorized"


class ProviderUnavailableError(UnavailableError):
    """The provider cannot be reached, or answers what cannot be used."""


def options_of(settings: SignInFields) -> OidcOptions | None:
    """Return the options of these settings, or None where people do not sign in.

    Raises:
        UnavailableError: the extra is not installed, or the file of the secret cannot be read.
    """
    issuer, client_id, file, page = (
        settings.oidc_issuer,
        settings.oidc_client_id,
        settings.oidc_client_secret_file,
        settings.page_url,
    )
    if issuer is None or client_id is None or file is None or page is None:
        return None
    if importlib.util.find_spec("joserfc") is None:
        raise UnavailableError(MISSING)
    return OidcOptions(
        issuer=issuer,
        client_id=client_id,
        client_secret=read_secret_line(file, "oidc_client_secret_file", "the client secret that the provider gave"),
        page_url=page,
        rules=settings.oidc_roles,
        role_claim=settings.oidc_role_claim,
        scopes=settings.oidc_scopes,
        check_ms=round(settings.oidc_check_seconds * SECOND_MS),
        session_ms=round(settings.session_hours * HOUR_MS),
        ca_file=settings.oidc_ca_file,
    )
