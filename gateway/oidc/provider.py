"""The provider: its metadata and keys, kept for a while, and what the gateway asks of it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote, quote_plus, urlencode

import structlog

from gateway.core.clock import HOUR_MS, MINUTE_MS, SECOND_MS, Clock
from gateway.oidc import discovery, tokens
from gateway.oidc.discovery import Metadata
from gateway.oidc.http_client import ProviderAnswer, ProviderHttp
from gateway.oidc.options import OidcOptions, ProviderRefusedError, ProviderUnavailableError, TokenError
from gateway.oidc.tokens import Expected, LogoutToken

log = structlog.get_logger()

METADATA_MS: Final = HOUR_MS
KEYS_MS: Final = 10 * MINUTE_MS
"""How long keys are used before they are fetched again: a key that the provider withdrew is good that long."""
KEYS_AGAIN_MS: Final = 10 * SECOND_MS
"""Least time between two fetches for an unknown key: a flood of forged tokens does not reach the provider."""
_OK: Final = 200


class ProviderTokens(NamedTuple):
    """Tokens of one answer of the provider; those that it did not give are None."""

    id_token: str | None
    access_token: str | None
    refresh_token: str | None


class Provider:
    """Asks the provider, and checks all that it answers."""

    def __init__(self, options: OidcOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._http = ProviderHttp(options.ca_file)
        self._metadata: tuple[int, Metadata] | None = None
        self._keys: tuple[int, list[dict[str, Any]]] | None = None
        self._fetching = asyncio.Lock()

    async def metadata(self) -> Metadata:
        """Return the provider's metadata, at most an hour old while the provider answers.

        Raises:
            ProviderUnavailableError: it cannot be had, or is not good.
        """
        async with self._fetching:
            now = self._clock()
            if self._metadata is not None and 0 <= now - self._metadata[0] < METADATA_MS:
                return self._metadata[1]
            try:
                fresh = await discovery.fetch(self._http, self._options.issuer)
            except ProviderUnavailableError as error:
                if self._metadata is None:
                    raise
                log.warning("sign_in.metadata_not_fetched", reason=error.message)
                return self._metadata[1]
            self._metadata = (now, fresh)
            return fresh

    def sign_in_address(self, metadata: Metadata, *, state: str, nonce: str, verifier: str) -> str:
        """Return where the browser goes to sign in."""
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self._options.client_id,
                "redirect_uri": self._options.redirect_uri,
                "scope": self._options.scopes,
                "state": state,
                "nonce": nonce,
                "code_challenge": challenge_of(verifier),
                "code_challenge_method": "S256",
            }
        )
        return _with_query(metadata.authorization_endpoint, query)

    async def exchange(self, code: str, verifier: str) -> ProviderTokens:
        """Return the tokens for a code, which can be used once.

        Raises:
            ProviderRefusedError: the provider does not take the code.
            ProviderUnavailableError: it does not answer.
        """
        return await self._grant(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": self._options.redirect_uri,
                "code_verifier": verifier,
            }
        )

    async def refresh(self, refresh_token: str) -> ProviderTokens:
        """Return new tokens for a refresh token.

        Raises:
            ProviderRefusedError: the provider does not vouch for the person any more.
            ProviderUnavailableError: it does not answer.
        """
        return await self._grant({"grant_type": "refresh_token", "refresh_token": refresh_token})

    async def user_info(self, access_token: str, sub: str) -> dict[str, Any] | None:
        """Return what the provider says about a person, or None where it has no such endpoint.

        Raises:
            ProviderRefusedError: the access token is not good any more.
            TokenError: the answer is about another person.
            ProviderUnavailableError: it does not answer.
        """
        endpoint = (await self.metadata()).userinfo_endpoint
        if endpoint is None:
            return None
        answer = await self._http.get(endpoint, {"Authorization": f"Bearer {access_token}"})
        if answer.status != _OK:
            raise ProviderRefusedError(f"The provider answers {answer.status} to the question who this is.")
        if answer.body.get("sub") != sub:
            raise TokenError("The provider's answer is about another person.")
        return answer.body

    async def id_claims(self, id_token: str, *, nonce: str | None) -> dict[str, Any]:
        """Return the claims of an ID token whose signature and claims are good.

        Raises:
            TokenError: they are not.
            ProviderUnavailableError: the provider's keys cannot be had.
        """
        _, claims = await self._verified(id_token)
        tokens.check_id_token(claims, self._expected(), nonce=nonce)
        return claims

    async def logout_token(self, token: str) -> LogoutToken:
        """Return whom a logout token signs out.

        Raises:
            TokenError: it is not good.
            ProviderUnavailableError: the provider's keys cannot be had.
        """
        head, claims = await self._verified(token)
        return tokens.check_logout_token(head, claims, self._expected())

    async def sign_out_address(self, id_token: str | None) -> str | None:
        """Return where the browser ends the session at the provider too, or None where that is not possible."""
        try:
            endpoint = (await self.metadata()).end_session_endpoint
        except ProviderUnavailableError:
            return None
        if endpoint is None:
            return None
        hint = {} if id_token is None else {"id_token_hint": id_token}
        back = {"client_id": self._options.client_id, "post_logout_redirect_uri": f"{self._options.page_url}/"}
        return _with_query(endpoint, urlencode({**hint, **back}))

    async def _grant(self, form: dict[str, str]) -> ProviderTokens:
        metadata, options = await self.metadata(), self._options
        headers = {}
        if metadata.takes_secret_by_post:
            form = {**form, "client_id": options.client_id, "client_secret": options.client_secret}
        else:
            headers = {"Authorization": _basic(options.client_id, options.client_secret)}
        answer = await self._http.post(metadata.token_endpoint, form, headers)
        if answer.status != _OK:
            raise ProviderRefusedError(f"The provider refuses: {_reason(answer)}.")
        body = answer.body
        return ProviderTokens(_text(body, "id_token"), _text(body, "access_token"), _text(body, "refresh_token"))

    async def _verified(self, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return header and claims of a token. Fetch the keys again where those that are kept do not verify it."""
        head = tokens.head_of(token)
        kept, age = await self._kept_keys()
        try:
            return head, tokens.verified(token, _chosen(kept, head))
        except TokenError:
            if age < KEYS_AGAIN_MS:
                raise
        return head, tokens.verified(token, _chosen(await self._fetch_keys(), head))

    async def _kept_keys(self) -> tuple[list[dict[str, Any]], int]:
        """Return the provider's keys and how long ago they were fetched, in milliseconds."""
        kept, now = self._keys, self._clock()
        if kept is not None and 0 <= now - kept[0] < KEYS_MS:
            return kept[1], now - kept[0]
        return await self._fetch_keys(), 0

    async def _fetch_keys(self) -> list[dict[str, Any]]:
        asked, metadata = self._clock(), await self.metadata()
        async with self._fetching:
            if self._keys is not None and self._keys[0] >= asked:  # by another request meanwhile
                return self._keys[1]
            now = self._clock()
            answer = await self._http.get(metadata.jwks_uri)
            keys = answer.body.get("keys")
            if answer.status != _OK or not isinstance(keys, list):
                raise ProviderUnavailableError("The provider's keys cannot be fetched. Check its jwks_uri.")
            self._keys = (now, [key for key in keys if isinstance(key, dict)])
            return self._keys[1]

    def _expected(self) -> Expected:
        return Expected(self._options.issuer, self._options.client_id, self._clock() // SECOND_MS)


def challenge_of(verifier: str) -> str:
    """Return the code challenge of a verifier (RFC 7636, S256)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _chosen(keys: list[dict[str, Any]], head: Mapping[str, Any]) -> dict[str, Any]:
    """Return the key with the token's ``kid``; without a ``kid``, the only key that signs.

    Raises:
        TokenError: there is no such key.
    """
    signing = [key for key in keys if key.get("kty") != "oct" and key.get("use", "sig") == "sig"]
    kid = head.get("kid")
    fitting = signing if kid is None else [key for key in signing if key.get("kid") == kid]
    if len(fitting) != 1:
        raise TokenError("The token names no key of the provider.")
    return fitting[0]


def _basic(client_id: str, secret: str) -> str:
    """Return the header of a client with its secret (RFC 6749, section 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _reason(answer: ProviderAnswer) -> str:
    error = answer.body.get("error")
    return quote(error[:80], safe=" _-.") if isinstance(error, str) else f"HTTP {answer.status}"


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    return value if isinstance(value, str) and value else None


def _with_query(url: str, query: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{query}"
