"""Discovery: the provider's metadata, checked before anything in it is used (OpenID Connect Discovery 1.0)."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from gateway.oidc.http_client import ProviderHttp
from gateway.oidc.options import ProviderUnavailableError
from gateway.settings.role_rules import is_loopback_url

WELL_KNOWN: Final = "/.well-known/openid-configuration"
_OK: Final = 200
_BASIC: Final = "client_secret_basic"
_POST: Final = "client_secret_post"


class Metadata(NamedTuple):
    """What the gateway uses of the provider's metadata."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    end_session_endpoint: str | None
    names_issuer_in_answers: bool
    """Whether the answer to an authorization request has the parameter ``iss`` (RFC 9207)."""
    takes_secret_by_post: bool
    """Whether the client's secret goes into the form; else into the header (the default)."""


def address_of(issuer: str) -> str:
    """Return where the metadata of this issuer is."""
    return issuer.rstrip("/") + WELL_KNOWN


async def fetch(http: ProviderHttp, issuer: str) -> Metadata:
    """Fetch the metadata of this issuer.

    Raises:
        ProviderUnavailableError: it cannot be had, or is not good.
    """
    answer = await http.get(address_of(issuer))
    if answer.status != _OK:
        raise ProviderUnavailableError(
            f"The provider answers {answer.status} at {address_of(issuer)}. Check oidc_issuer."
        )
    return metadata_of(answer.body, issuer)


def metadata_of(body: dict[str, Any], issuer: str) -> Metadata:
    """Return the metadata of this issuer.

    Raises:
        ProviderUnavailableError: it is another issuer's, or lacks something, or names an address that is not safe.
    """
    if body.get("issuer") != issuer:
        raise ProviderUnavailableError(
            f"The metadata at {address_of(issuer)} is that of the issuer {str(body.get('issuer'))[:200]!r}. Set "
            "oidc_issuer to the provider's issuer, letter by letter."
        )
    methods = body.get("token_endpoint_auth_methods_supported")
    by_post = isinstance(methods, list) and _POST in methods and _BASIC not in methods
    return Metadata(
        issuer,
        _required(body, "authorization_endpoint"),
        _required(body, "token_endpoint"),
        _required(body, "jwks_uri"),
        _endpoint(body, "userinfo_endpoint"),
        _endpoint(body, "end_session_endpoint"),
        body.get("authorization_response_iss_parameter_supported") is True,
        by_post,
    )


def _endpoint(body: dict[str, Any], name: str) -> str | None:
    return None if body.get(name) is None else _required(body, name)


def _required(body: dict[str, Any], name: str) -> str:
    url = body.get(name)
    if not isinstance(url, str) or not (url.startswith("https://") or is_plain_loopback(url)):
        raise ProviderUnavailableError(
            f"The provider's metadata names no usable {name}: it should be an https:// URL. Correct it at the provider."
        )
    return url


def is_plain_loopback(url: str) -> bool:
    """Return whether it is an ``http://`` URL of the machine itself."""
    try:
        return url.startswith("http://") and is_loopback_url(url)
    except ValueError:
        return False
