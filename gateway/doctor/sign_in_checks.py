"""Checks of the sign-in: the provider answers, is the one that was set, and has the same time; the projects exist."""

from __future__ import annotations

from contextlib import closing
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from gateway.core.clock import SECOND_MS, from_datetime, system_clock
from gateway.core.text import count
from gateway.doctor.findings import Area, Finding
from gateway.errors import GatewayError, NotFoundError, UnavailableError
from gateway.oidc import discovery
from gateway.oidc.http_client import ProviderAnswer, ProviderHttp
from gateway.oidc.options import OidcOptions, ProviderUnavailableError, options_of
from gateway.oidc.tokens import LEEWAY_SECONDS
from gateway.store import View, key_sql, open_reader
from gateway.store.errors import DATABASE_ERRORS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.settings.loading import Settings

SIGN_IN: Final = Area("sign-in")
_DOCS: Final = "See 'gateway docs sign-in'."


async def provider(settings: Settings) -> AsyncIterator[Finding]:
    """Check the provider, if people sign in at one."""
    try:
        options = options_of(settings)
    except UnavailableError as error:
        yield SIGN_IN.error("set up", error.message, _DOCS)
        return
    if options is None:
        return
    for finding in _roles(settings, options):
        yield finding
    async for finding in _answers(options):
        yield finding


async def _answers(options: OidcOptions) -> AsyncIterator[Finding]:
    http = ProviderHttp(options.ca_file)
    try:
        answer = await http.get(discovery.address_of(options.issuer))
        metadata = discovery.metadata_of(answer.body, options.issuer)
        keys = (await http.get(metadata.jwks_uri)).body.get("keys")
    except ProviderUnavailableError as error:
        yield SIGN_IN.error("provider", error.message, f"No person can sign in until it answers. {_DOCS}")
        return
    if not isinstance(keys, list) or not keys:
        yield SIGN_IN.error("provider", f"it has no keys at {metadata.jwks_uri}", "Correct that at the provider.")
        return
    yield SIGN_IN.ok("provider", f"{options.issuer} answers, with {count(len(keys), 'key')}")
    yield _clock(answer)
    yield _pkce(answer)
    yield _back_channel(answer, options)


def _clock(answer: ProviderAnswer) -> Finding:
    """Compare the clocks: a token is refused when it seems to be from the future."""
    try:
        theirs = from_datetime(parsedate_to_datetime(answer.date or ""))
    except ValueError:
        return SIGN_IN.ok("clocks", "the provider does not say its time")
    apart = abs(theirs - system_clock()) // SECOND_MS
    if apart > LEEWAY_SECONDS:
        return SIGN_IN.error(
            "clocks",
            f"the clocks of provider and gateway are {apart} s apart: ID tokens are refused",
            "Set both by NTP.",
        )
    return SIGN_IN.ok("clocks", f"provider and gateway agree within {LEEWAY_SECONDS} s")


def _pkce(answer: ProviderAnswer) -> Finding:
    methods = answer.body.get("code_challenge_methods_supported")
    if isinstance(methods, list) and "S256" not in methods:
        return SIGN_IN.warning(
            "PKCE", "the provider does not announce S256", "Switch PKCE with S256 on for this client at the provider."
        )
    return SIGN_IN.ok("PKCE", "S256 is announced" if methods else "the provider does not say what it supports")


def _back_channel(answer: ProviderAnswer, options: OidcOptions) -> Finding:
    if answer.body.get("backchannel_logout_supported") is True:
        address = f"{options.page_url}/auth/backchannel"
        return SIGN_IN.ok("back channel", f"announced: register {address} there, if that is not done")
    return SIGN_IN.ok("back channel", f"not announced: sessions end within {options.check_ms // SECOND_MS} s instead")


def _roles(settings: Settings, options: OidcOptions) -> Iterator[Finding]:
    """Check that the projects of the roles exist."""
    unknown = []
    try:
        with closing(open_reader(settings.registry)) as connection:
            for rule in options.rules:
                try:
                    key_sql.require_project(View(connection), rule.project)
                except NotFoundError:
                    unknown.append(str(rule))
    except (GatewayError, *DATABASE_ERRORS):
        return  # that the registry cannot be read is reported with the registry
    if unknown:
        yield SIGN_IN.error(
            "roles",
            "there is no such project, so these give no role",
            "Correct oidc_roles, or make the project: gateway projects create NAME.",
            *unknown,
        )
    else:
        yield SIGN_IN.ok("roles", "every project of oidc_roles exists")
