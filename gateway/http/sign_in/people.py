"""People in session: who calls with a cookie, whether the provider still confirms the role, where a change is from."""

from __future__ import annotations

import hmac
import json
import re
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers

from gateway.core.credentials import csrf_token
from gateway.core.roles import SCOPES_OF, highest
from gateway.domain import sessions
from gateway.domain.sessions import Because, Grant, Person, Started
from gateway.errors import GatewayError, NotFoundError
from gateway.http.callers import PersonCaller
from gateway.http.errors import CsrfError
from gateway.http.refusals import Refused, RefusedCredentialError
from gateway.http.sign_in.cookies import SESSION, Cookies
from gateway.models.sign_ins import Reason
from gateway.oidc import roles
from gateway.oidc.options import (
    OidcOptions,
    ProviderRefusedError,
    ProviderUnavailableError,
    TokenError,
    options_of,
)
from gateway.oidc.provider import Provider, ProviderTokens
from gateway.oidc.tokens import sub_of
from gateway.settings.sign_in import SignInFields
from gateway.store import Store, Tx, View, key_sql, session_sql
from gateway.store.session_sql import SessionRecord

log = structlog.get_logger()

CSRF: Final = "X-CSRF-Token"
UNCONFIRMED_CHECKS: Final = 4
"""How many intervals of ``oidc_check_seconds`` a session stays good while the provider does not answer."""
_SECRET: Final = re.compile(r"gws_[A-Za-z0-9]{34}")
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_ENDED: Final = "This session has ended, or is not known here. Sign in again."
_AWAY: Final = (
    "The provider has not confirmed your role for too long: it does not answer. Try again when it is back, or use an "
    "API key."
)


class SignedIn(NamedTuple):
    """A person whom the provider has just named, with the role, and the provider's tokens."""

    person: Person
    grant: Grant
    tokens: ProviderTokens


class People:
    """Sessions of people, as the API sees them."""

    def __init__(self, store: Store, options: OidcOptions, provider: Provider | None = None) -> None:
        self.options = options
        self.provider = provider or Provider(options, store.context.clock)
        self.cookies = Cookies(secure=options.is_secure)
        self.store = store
        parts = urlsplit(options.page_url)
        self.host = parts.netloc
        """Host and port of the page, as the header ``Host`` names them."""
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self.now = store.context.clock

    def secret_of(self, headers: Headers) -> str | None:
        """Return the secret of the session that the cookie holds, or None where there is no such cookie.

        Raises:
            RefusedCredentialError: there are several.
        """
        found = [value for value in self.cookies.found(headers, SESSION) if _SECRET.fullmatch(value)]
        if len(found) > 1:
            raise RefusedCredentialError(
                "There are two cookies of a session. Delete the cookies of this site.", Refused("malformed")
            )
        return found[0] if found else None

    async def authenticate(self, secret: str) -> PersonCaller:
        """Return the person with this session. Ask the provider first where the role was not confirmed for a while.

        Raises:
            RefusedCredentialError: the session has ended, or the role is gone.
        """
        now = self.store.context.clock()
        session = await self.store.read_small(lambda view: session_sql.by_secret(view, secret))
        if session is None:
            raise RefusedCredentialError(_ENDED, Refused("unknown"))
        if not session.is_good(now):
            reason: Reason = "expired" if session.ended_at is None or session.ended_because == "expired" else "revoked"
            raise RefusedCredentialError(_ENDED, Refused(reason, project_id=session.project_id))
        if not 0 <= now - session.checked_at < self.options.check_ms:
            session = await self._checked(session, secret, now)
        return _caller(session, secret)

    def require_same_site(self, method: str, headers: Headers, caller: PersonCaller) -> None:
        """Check that a change comes from the page itself: by the token, and by what the browser says of its origin.

        Raises:
            CsrfError: it does not.
        """
        if method in _SAFE:
            return
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        given = headers.get(CSRF, "").encode("utf-8", "replace")
        if site not in (None, "same-origin") or origin not in (None, self._origin):
            raise CsrfError("This change was sent by a page of another site. Nothing was done.")
        if not hmac.compare_digest(given, caller.csrf_token.encode()):
            raise CsrfError(
                f"A change with the cookie of a session needs the header {CSRF}, with the value that GET /v1/session "
                "gives. Nothing was done."
            )

    async def start(self, signed_in: SignedIn, *, state: str, replaced: str | None, address: str | None) -> Started:
        """Begin a session; ``replaced`` is the secret of the one that the browser had before.

        Raises:
            UnauthorizedError: this state has begun a session before.
        """

        def start(tx: Tx) -> Started:
            tx.client_address = address
            before = None if replaced is None else session_sql.by_secret(tx, replaced)
            if before is not None:
                sessions.end(tx, [before], "replaced")
            kept = json.dumps(signed_in.tokens._asdict())
            return sessions.start(
                tx, signed_in.person, signed_in.grant, self.options.session_ms, tokens=kept, state=state
            )

        return await self.store.write(start)

    async def vouched(self, tokens: ProviderTokens, claims: dict[str, Any]) -> SignedIn | None:
        """Return the person of these claims with the role, or None where the claims give no role.

        Raises:
            TokenError: the claims name no person.
            ProviderRefusedError, ProviderUnavailableError: the provider does not say who this is.
        """
        sub = sub_of(claims)
        claims = await self._with_role_claim(claims, tokens, sub)
        grant = await self.store.read(lambda view: self._grant(view, claims))
        if grant is None:
            return None
        sid = claims.get("sid")
        person = Person(sub, roles.display_name(claims, sub), sid if isinstance(sid, str) and sid else None)
        return SignedIn(person, grant, tokens)

    async def id_token_of(self, secret: str) -> str | None:
        """Return the ID token of a session, for the end of the session at the provider."""
        session = await self.store.read_small(lambda view: session_sql.by_secret(view, secret))
        return None if session is None else _tokens(session, secret).id_token

    async def _with_role_claim(self, claims: dict[str, Any], tokens: ProviderTokens, sub: str) -> dict[str, Any]:
        """Return the claims; with those of the userinfo endpoint where the role's claim is not among them."""
        if roles.has_claim(claims, self.options.role_claim) or tokens.access_token is None:
            return claims
        return {**(await self.provider.user_info(tokens.access_token, sub) or {}), **claims}

    def _grant(self, view: View, claims: dict[str, Any]) -> Grant | None:
        """Return the project of the first rule that fits, and the highest role of those for that project."""
        found: list[Grant] = []
        for rule in roles.matching(self.options.rules, claims, self.options.role_claim):
            try:
                found.append(Grant(key_sql.require_project(view, rule.project).id, rule.role))
            except NotFoundError:
                log.warning("sign_in.unknown_project", project=rule.project, message="oidc_roles names it")
        if not found:
            return None
        project_id = found[0].project_id
        return Grant(project_id, highest(each.role for each in found if each.project_id == project_id))

    async def _checked(self, session: SessionRecord, secret: str, now: int) -> SessionRecord:
        """Ask the provider whether the person still has the role. Of several requests at a time one asks."""
        mine = await self.store.write(lambda tx: session_sql.claim_check(tx, session.id, session.checked_at))
        try:
            if mine:
                return await self._confirmed(session, secret)
        except ProviderUnavailableError as error:
            log.warning("sign_in.role_not_checked", session_id=session.id, reason=error.message)
        except (ProviderRefusedError, TokenError) as error:
            await self._end(session, "provider_refused", error)
        if now - session.confirmed_at > UNCONFIRMED_CHECKS * self.options.check_ms:
            raise RefusedCredentialError(_AWAY, Refused("provider", project_id=session.project_id))
        return session

    async def _confirmed(self, session: SessionRecord, secret: str) -> SessionRecord:
        tokens, claims = await self._asked_again(session, _tokens(session, secret))
        signed_in = await self.vouched(tokens, {**claims, "sub": session.sub})
        if signed_in is None or signed_in.grant.project_id != session.project_id:
            await self._end(session, "role_gone")
            raise RefusedCredentialError(_ENDED, Refused("role", project_id=session.project_id))
        role, kept = signed_in.grant.role, json.dumps(tokens._asdict())
        await self.store.write(
            lambda tx: session_sql.confirm(tx, session.id, role, sessions.sealed_tokens(tx, secret, kept))
        )
        return session._replace(role=role)

    async def _asked_again(
        self, session: SessionRecord, tokens: ProviderTokens
    ) -> tuple[ProviderTokens, dict[str, Any]]:
        """Return fresh tokens, and the claims that came with them: by the refresh token, or none without one."""
        if tokens.refresh_token is None:
            if tokens.access_token is None:
                raise ProviderRefusedError("The provider gave no token to ask again with.")
            return tokens, {}
        fresh = await self.provider.refresh(tokens.refresh_token)
        claims: dict[str, Any] = {}
        if fresh.id_token is not None:
            claims = await self.provider.id_claims(fresh.id_token, nonce=None)
            if sub_of(claims) != session.sub:
                raise TokenError("The refreshed ID token is about another person.")
        return (
            ProviderTokens(
                fresh.id_token or tokens.id_token,
                fresh.access_token or tokens.access_token,
                fresh.refresh_token or tokens.refresh_token,
            ),
            claims,
        )

    async def _end(self, session: SessionRecord, because: Because, error: GatewayError | None = None) -> None:
        """End a session that the provider does not bear out any more.

        Raises:
            RefusedCredentialError: always, where there was an error.
        """
        await self.store.write(lambda tx: sessions.end(tx, [session], because, "gateway"))
        if error is not None:
            log.info("sign_in.provider_refused", session_id=session.id, reason=error.message)
            raise RefusedCredentialError(_ENDED, Refused("provider", project_id=session.project_id)) from error


def people_of(store: Store, settings: SignInFields) -> People | None:
    """Return who signs in with these settings, or None where OpenID Connect is not set up.

    Raises:
        UnavailableError: the extra is not installed, or the file of the secret cannot be read.
    """
    options = options_of(settings)
    return None if options is None else People(store, options)


def _caller(session: SessionRecord, secret: str) -> PersonCaller:
    return PersonCaller(
        session.id,
        session.sub,
        session.name,
        session.project_id,
        session.role,
        frozenset(SCOPES_OF[session.role]),
        session.last_used_at,
        csrf_token(secret),
    )


def _tokens(session: SessionRecord, secret: str) -> ProviderTokens:
    kept = sessions.tokens_of(session, secret)
    return ProviderTokens(None, None, None) if kept is None else ProviderTokens(**json.loads(kept))
