"""Settings of sign-in with OpenID Connect, and what they need of each other (contract, section 9)."""

from __future__ import annotations

from gateway.settings.groups import SIGN_IN, setting
from gateway.settings.role_rules import (
    Claim,
    MaybeClientId,
    MaybePublicUrl,
    MaybeUrl,
    OidcScopes,
    RoleRules,
    is_loopback_url,
)
from gateway.settings.running import RunningFields
from gateway.settings.types import File, Hours, Seconds


class SignInFields(RunningFields):
    """All settings, with those of people who sign in."""

    oidc_issuer: MaybeUrl = setting(
        SIGN_IN,
        None,
        "Issuer of the OpenID Connect provider that people sign in at, exactly as the provider writes it ('gateway "
        "docs sign-in'); none: the page takes API keys alone.",
    )
    oidc_client_id: MaybeClientId = setting(SIGN_IN, None, "Client id of the gateway at that provider.")
    oidc_client_secret_file: File = setting(
        SIGN_IN,
        None,
        "File with the client secret that belongs to it. All gateways of one registry need the same one.",
    )
    oidc_roles: RoleRules = setting(
        SIGN_IN,
        (),
        "Who may do what: a value of the claim, a project (id or name), and viewer, operator or admin. The first entry "
        "that fits decides the project; of several for that project the highest role counts.",
    )
    oidc_role_claim: Claim = setting(
        SIGN_IN, "groups", "Claim whose values oidc_roles names: a text or a list; dots lead into objects."
    )
    oidc_scopes: OidcScopes = setting(
        SIGN_IN,
        "openid profile email",
        "Scopes to ask the provider for. Add offline_access where the provider gives refresh tokens for that alone.",
    )
    oidc_check_seconds: Seconds = setting(
        SIGN_IN,
        300.0,
        "How often the provider is asked whether a person in session still has the role. A role that was taken away "
        "opens nothing after that time at the latest.",
        ge=10,
        le=86_400,
    )
    oidc_ca_file: File = setting(
        SIGN_IN,
        None,
        "PEM file of the authority that signed the provider's certificate; none: the system's authorities.",
    )
    session_hours: Hours = setting(SIGN_IN, 12.0, "Hours after which a person has to sign in again.", ge=0.01, le=744)
    public_url: MaybePublicUrl = setting(
        SIGN_IN,
        None,
        "Address of the page as browsers write it. The provider sends people back there, so it must be known exactly "
        "and cannot be taken from a request; none: the address of http, if that is on loopback.",
    )

    @property
    def page_url(self) -> str | None:
        """Return where browsers reach the page, without a slash at its end; None where that is not known."""
        if self.public_url is not None or not self.http.is_loopback or self.http.port == 0:
            return self.public_url
        scheme, port = ("http", 80) if self.http_cert_file is None else ("https", 443)
        return f"{scheme}://{self.http}".removesuffix(f":{port}")


def contradictions(settings: SignInFields) -> dict[str, tuple[object, str]]:
    """Return the conflicts of the sign-in's settings."""
    issuer, client, secret = settings.oidc_issuer, settings.oidc_client_id, settings.oidc_client_secret_file
    is_on = issuer or client or secret
    page = settings.page_url
    return {
        "oidc_issuer": (
            (is_on and not issuer) or (issuer and not _is_safe(issuer)),
            "should be an https:// URL: only a provider on this machine may use http://"
            if issuer
            else "is needed as well: the provider's issuer, beside oidc_client_id and oidc_client_secret_file",
        ),
        "oidc_client_id": (is_on and not client, "is needed as well: the client id that the provider gave"),
        "oidc_client_secret_file": (is_on and not secret, "is needed as well: a file with the client secret"),
        "oidc_roles": (
            bool(is_on) != bool(settings.oidc_roles),
            "needs at least one VALUE=PROJECT:ROLE, or no person may do anything"
            if is_on
            else "needs oidc_issuer, oidc_client_id and oidc_client_secret_file as well",
        ),
        "oidc_scopes": ("openid" not in settings.oidc_scopes.split(), "should have the scope openid among them"),
        "http_page": (is_on and not settings.http_page, "should be true: people sign in on the page"),
        "public_url": (
            is_on and (page is None or not _is_safe(page)),
            "is needed as well, as https://NAME: browsers come back there from the provider, and http is not a "
            "loopback address with a fixed port"
            if page is None
            else "should be an https:// URL: the cookie of a session must not cross a network in the clear",
        ),
    }


def _is_safe(url: str) -> bool:
    return url.startswith("https://") or is_loopback_url(url)
