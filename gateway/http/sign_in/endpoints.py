"""Paths of the sign-in that browsers and the provider call: ``/auth/login``, ``/auth/callback``, ``/auth/backchannel``.

Every way back leads to the page itself: the address is the setting's, and a request chooses only the part after ``#``.
So no link to this gateway can send a person elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, urlencode

import structlog
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.core.clock import SECOND_MS
from gateway.domain import sessions
from gateway.errors import GatewayError, InvalidRequestError, UnauthorizedError
from gateway.http import body
from gateway.http.endpoint import EndpointParts, count_refusal
from gateway.http.errors import MethodNotAllowedError
from gateway.http.middleware import request_info
from gateway.http.refusals import Refused, RefusedCredentialError
from gateway.http.sign_in.cookies import SESSION, SIGN_IN, SIGN_IN_SECONDS
from gateway.http.sign_in.pending import PendingSignIn
from gateway.http.sign_in.people import People, SignedIn
from gateway.models.sign_ins import Reason
from gateway.oidc.options import ProviderRefusedError, ProviderUnavailableError, TokenError

log = structlog.get_logger()

LOGIN: Final = "/auth/login"
CALLBACK: Final = "/auth/callback"
BACK_CHANNEL: Final = "/auth/backchannel"
_LONGEST: Final = 4_096
_FORM_BYTES: Final = 65_536
_SEE_OTHER: Final = 303


class SignInFailedError(GatewayError):
    """A sign-in that ends without a session; ``code`` is what the page gets to explain it."""

    def __init__(self, code: str, message: str, reason: Reason | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        """Why it counts as a refused sign-in; None where nobody did anything wrong."""


def endpoints(parts: EndpointParts, people: People) -> list[tuple[str, ASGIApp]]:
    """Return the paths of the sign-in."""
    return [
        (LOGIN, _Path(LOGIN, "GET", Login(people))),
        (CALLBACK, _Path(CALLBACK, "GET", Callback(parts, people))),
        (BACK_CHANNEL, _Path(BACK_CHANNEL, "POST", BackChannel(parts, people))),
    ]


class _Path:
    """One path with one method; an ASGI application."""

    def __init__(self, path: str, method: str, handler: Login | Callback | BackChannel) -> None:
        self._path = path
        self._method = method
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request_info(scope).template = self._path
        allow = f"{self._method}, OPTIONS"
        if scope["method"] == "OPTIONS":
            response = Response(status_code=204, headers={"Allow": allow})
        elif scope["method"] != self._method:
            raise MethodNotAllowedError(allow)
        else:
            response = await self._handler.answer(scope, receive)
        await response(scope, receive, send)


class Login:
    """Begins a sign-in: sends the browser to the provider, with a cookie that binds the sign-in to it."""

    def __init__(self, people: People) -> None:
        self._people = people

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """Return the way to the provider, or back to the page where the provider is away."""
        del receive
        view = _query(scope).get("view", "/")
        if not self._is_on_page(scope):  # the cookie would belong to another name of this gateway
            return _redirect(f"{self._people.options.page_url}{LOGIN}?{urlencode({'view': view})}")
        pending = PendingSignIn.begin(view, self._now())
        try:
            metadata = await self._people.provider.metadata()
        except ProviderUnavailableError as error:
            log.warning("sign_in.provider_away", reason=error.message)
            return _back(self._people, "provider_unavailable")
        address = self._people.provider.sign_in_address(
            metadata, state=pending.state, nonce=pending.nonce, verifier=pending.verifier
        )
        sealed = pending.sealed(self._people.options.client_secret)
        return _redirect(address, self._people.cookies.kept(SIGN_IN, sealed, SIGN_IN_SECONDS))

    def _is_on_page(self, scope: Scope) -> bool:
        return Headers(scope=scope).get("host", "").lower() == self._people.host or self._people.options.is_secure

    def _now(self) -> int:
        return self._people.now() // SECOND_MS


class Callback:
    """Ends a sign-in: checks what the browser brings back, and begins a session."""

    def __init__(self, parts: EndpointParts, people: People) -> None:
        self._parts = parts
        self._people = people

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """Return the way to the page, with the cookie of a session or with the reason of the failure."""
        del receive
        headers, info = Headers(scope=scope), request_info(scope)
        try:
            pending = self._pending(headers)
            signed_in = await self._signed_in(_query(scope), pending)
            started = await self._people.start(
                signed_in, state=pending.state, replaced=self._replaced(headers), address=info.client_address
            )
        except SignInFailedError as error:
            return self._failed(scope, error)
        except UnauthorizedError as error:
            return self._failed(scope, SignInFailedError("used", error.message, "provider"))
        log.info("sign_in.started", session_id=started.session.id, role=started.session.role)
        cookies, seconds = self._people.cookies, self._people.options.session_ms // SECOND_MS
        return _back(
            self._people,
            None,
            cookies.kept(SESSION, started.secret, seconds),
            cookies.removed(SIGN_IN),
            view=pending.view,
        )

    def _pending(self, headers: Headers) -> PendingSignIn:
        found = self._people.cookies.found(headers, SIGN_IN)
        now, secret = self._people.now() // SECOND_MS, self._people.options.client_secret
        pending = PendingSignIn.opened(found[0], secret, now) if len(found) == 1 else None
        if pending is None:
            raise SignInFailedError("state", "This browser began no sign-in within the last minutes.", "provider")
        return pending

    async def _signed_in(self, query: Mapping[str, str], pending: PendingSignIn) -> SignedIn:
        """Return the person whom the provider names.

        Raises:
            SignInFailedError: something does not fit.
        """
        if not pending.has_state(query.get("state", "")):
            raise SignInFailedError("state", "The answer belongs to another sign-in (state).", "provider")
        try:
            await self._require_issuer(query)
            if "error" in query or not query.get("code"):
                denied = query.get("error") == "access_denied"
                raise SignInFailedError(
                    "denied" if denied else "provider", f"The provider says {query.get('error')!r}."
                )
            tokens = await self._people.provider.exchange(query["code"], pending.verifier)
            if tokens.id_token is None:
                raise SignInFailedError("token", "The provider gave no ID token.", "provider")
            claims = await self._people.provider.id_claims(tokens.id_token, nonce=pending.nonce)
            signed_in = await self._people.vouched(tokens, claims)
        except ProviderUnavailableError as error:
            raise SignInFailedError("provider_unavailable", error.message) from error
        except ProviderRefusedError as error:
            raise SignInFailedError("code", error.message, "provider") from error
        except TokenError as error:
            raise SignInFailedError("token", error.message, "provider") from error
        if signed_in is None:
            raise SignInFailedError("no_role", "No value of the claim gives a role (oidc_roles).", "role")
        return signed_in

    async def _require_issuer(self, query: Mapping[str, str]) -> None:
        """Check who answers (RFC 9207): a code of another provider must not be sent to this one."""
        metadata, given = await self._people.provider.metadata(), query.get("iss")
        if given is None and not metadata.names_issuer_in_answers:
            return
        if given != metadata.issuer:
            raise SignInFailedError("issuer", "The answer is from another issuer (iss).", "provider")

    def _replaced(self, headers: Headers) -> str | None:
        try:
            return self._people.secret_of(headers)
        except RefusedCredentialError:
            return None

    def _failed(self, scope: Scope, error: SignInFailedError) -> Response:
        log.warning("sign_in.failed", code=error.code, reason=error.message)
        if error.reason is not None:
            refused = RefusedCredentialError(error.message, Refused(error.reason))
            count_refusal(self._parts, scope, request_info(scope), refused)
        return _back(self._people, error.code, self._people.cookies.removed(SIGN_IN))


class BackChannel:
    """Takes the provider's message that a person signed out there (OpenID Connect Back-Channel Logout)."""

    def __init__(self, parts: EndpointParts, people: People) -> None:
        self._parts = parts
        self._people = people

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """End the sessions that the message names."""
        form = (await body.read_all(receive, _FORM_BYTES)).decode("ascii", "replace")
        try:
            ended = await self._end(parse_qs(form, max_num_fields=20).get("logout_token", []))
        except (TokenError, ValueError) as error:
            raise self._refused(
                scope, error if isinstance(error, TokenError) else TokenError("That is no form.")
            ) from error
        log.info("sign_in.signed_out_at_provider", sessions=ended)
        return Response(b"", headers={"Cache-Control": "no-store"})

    async def _end(self, given: list[str]) -> int:
        """End what the one logout token of a form names; return how many sessions that were.

        Raises:
            TokenError: it is not good, or was used before.
        """
        if len(given) != 1:
            raise TokenError("The form has no logout_token, or several.")
        token = await self._people.provider.logout_token(given[0])
        ended = await self._people.store.write(
            lambda tx: sessions.end_at_provider(
                tx, sub=token.sub, sid=token.sid, token_id=token.token_id, token_until=token.until * SECOND_MS
            )
        )
        if ended is None:
            raise TokenError("This logout token was used before.")
        return ended

    def _refused(self, scope: Scope, error: TokenError) -> InvalidRequestError:
        log.warning("sign_in.logout_token_refused", reason=error.message)
        refused = RefusedCredentialError(error.message, Refused("provider"))
        count_refusal(self._parts, scope, request_info(scope), refused)
        return InvalidRequestError(f"{error.message} Nothing was done.")


def _query(scope: Scope) -> dict[str, str]:
    """Return the parameters that are there once; those that come twice are left out, so that no reader picks one."""
    text = scope["query_string"][:_LONGEST].decode("ascii", "replace")
    try:
        found = parse_qs(text, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return {}
    return {name: values[0] for name, values in found.items() if len(values) == 1}


def _back(people: People, code: str | None, *cookies: str, view: str = "/") -> Response:
    """Return the way to the page: to a view of it, or with the code of what went wrong."""
    fragment = view if code is None else f"/sign-in/{code}"
    return _redirect(f"{people.options.page_url}/#{fragment}", *cookies)


def _redirect(address: str, *cookies: str) -> Response:
    headers: dict[str, Any] = {"Location": address, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    response = Response(b"", status_code=_SEE_OTHER, headers=headers)
    for cookie in cookies:
        response.headers.append("Set-Cookie", cookie)
    return response
