"""Authentication and authorisation of requests (contract, section 1)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Scope

from gateway.core.clock import MINUTE_MS
from gateway.core.credentials import hash_secret, same_hash
from gateway.domain import devices
from gateway.errors import InsufficientScopeError, NotFoundError, UnauthorizedError
from gateway.http.callers import ApiKeyCaller, Authorization, Caller, DeviceCaller, PersonCaller
from gateway.http.refusals import Refused, RefusedCredentialError
from gateway.http.services import Services
from gateway.models.states import TokenState
from gateway.store import View, key_sql, session_sql, token_sql
from gateway.tls.certificates import common_name

ME: Final = "me"
PEER: Final = "gateway.peer_certificate"
"""Key of a request's scope for the client certificate, if there is one."""

_BEARER: Final = re.compile(r"bearer +(?P<secret>[A-Za-z0-9_]{8,128})", re.IGNORECASE)
_KEY_PREFIXES: Final = ("sk_live_", "sk_test_", "rk_live_", "rk_test_")
_NOTED_EVERY_MS: Final = MINUTE_MS
_HOW: Final = "Send 'Authorization: Bearer KEY' with an API key ('gateway keys create' makes one) or a device token."
_REVOKED: Final = (
    "The credential is not known here, or was revoked or replaced. Use another: 'gateway keys create' makes an API "
    "key, and binding the device anew a device token."
)
_EXPIRED: Final = (
    "This API key has expired. Give it more time where the gateway runs ('gateway keys expire KEY --in 30d'), or use "
    "another key: 'gateway keys create' makes one."
)
_RESET_ONLY: Final = (
    "The device is to be reset: this token opens nothing but POST /v1/devices/me/heartbeat, which hands over the "
    "factory reset, the acknowledgement of that, and POST /v1/devices/me/token/refresh."
)


async def authenticate(services: Services, headers: Headers) -> Caller:
    """Return the caller whose credential the ``Authorization`` header holds, or else the cookie of a session.

    Raises:
        UnauthorizedError: there is no credential, more than one, or one that is not good.
    """
    session = session_secret(services, headers)
    if session is not None and services.people is not None:
        return await services.people.authenticate(session)
    secret = credential(headers)
    now = services.store.context.clock()
    caller = await services.store.read_small(_LookUp(hash_secret(secret), secret, now))
    if isinstance(caller, Refused):
        raise RefusedCredentialError(_EXPIRED if caller.reason == "expired" else _REVOKED, caller)
    return caller


def session_secret(services: Services, headers: Headers) -> str | None:
    """Return the secret of the session that the request's cookie names; None where there is an ``Authorization``."""
    if services.people is None or "authorization" in headers:
        return None
    return services.people.secret_of(headers)


def is_credential_shown(services: Services, headers: Headers) -> bool:
    """Return whether the request carries a credential, good or not."""
    return "authorization" in headers or session_secret(services, headers) is not None


def replay_secret(services: Services, headers: Headers) -> str:
    """Return the secret under which answers of idempotent requests are sealed for this caller."""
    return session_secret(services, headers) or credential(headers)


def require_certificate(scope: Scope, caller: Caller) -> None:
    """Check that a device shows, besides its token, the certificate with its id.

    Raises:
        UnauthorizedError: it showed no certificate, or another's.
    """
    if isinstance(caller, DeviceCaller) and common_name(scope.get(PEER)) != caller.id:
        raise RefusedCredentialError(
            "This gateway asks devices for a certificate besides their token, with the device's id as its CN. Connect "
            "with that certificate.",
            Refused("certificate"),
        )


def credential(headers: Headers) -> str:
    """Return the secret that the ``Authorization`` header holds.

    Raises:
        UnauthorizedError: there is no secret, or more than one.
    """
    given = headers.getlist("authorization")
    if not given:
        raise RefusedCredentialError(f"No credential was sent. {_HOW}", Refused("missing"))
    bearer = _BEARER.fullmatch(given[0].strip())
    if bearer is None or len(given) > 1:
        raise RefusedCredentialError(
            f"The Authorization header is not one that is understood here. {_HOW}", Refused("malformed")
        )
    return bearer["secret"]


@dataclass(frozen=True)
class _LookUp:
    """The look-up of a credential. Two of the same credential are equal, so one of them serves both."""

    hash: bytes
    secret: str = field(compare=False, repr=False)
    now: int = field(compare=False)

    def __call__(self, view: View) -> Caller | Refused:
        if self.secret.startswith(_KEY_PREFIXES):
            return _api_key(view, self.secret, self.now)
        return _device_token(view, self.secret)


def _api_key(view: View, secret: str, now: int) -> ApiKeyCaller | Refused:
    row = key_sql.by_secret(view, secret, now)
    if row is None:
        return _refused_key(key_sql.of_closed_secret(view, secret), secret, now)
    return ApiKeyCaller(row.id, row.project_id, frozenset(json.loads(row.scopes)), row.last_used_at, row.name)


def _refused_key(row: key_sql.KeyRecord | None, secret: str, now: int) -> Refused:
    """Return why a secret is refused. Its holder learns of its expiry alone."""
    if row is None:
        return Refused("unknown")
    if row.revoked_at is not None:
        return Refused("revoked", row.id, row.project_id)
    if not same_hash(row.hash, hash_secret(secret)):
        return Refused("rotated", row.id, row.project_id)
    has_expired = row.expires_at is not None and row.expires_at < now
    return Refused("expired" if has_expired else "unknown", row.id, row.project_id)


def _device_token(view: View, secret: str) -> DeviceCaller | Refused:
    token = token_sql.by_secret(view, secret)
    if token is None:
        return Refused("unknown")
    if token.state == TokenState.REVOKED:
        return Refused("revoked")
    return DeviceCaller(
        token.device_id,
        token.project_id,
        token.id,
        TokenState(token.state),
        used_before=token.first_used_at is not None,
    )


def authorize(access: Authorization, caller: Caller, device_id: str | None) -> None:
    """Check that this caller may call; ``device_id`` is what the path names.

    Raises:
        UnauthorizedError: a ``reset_only`` token where that opens nothing.
        InsufficientScopeError: the credential is good, for something else.
        NotFoundError: a device that asks for another.
    """
    if isinstance(caller, DeviceCaller):
        _authorize_device(access, caller, device_id)
    elif isinstance(caller, PersonCaller):
        _authorize_person(access, caller)
    else:
        _authorize_key(access, caller)


def _authorize_person(access: Authorization, person: PersonCaller) -> None:
    missing = [scope for scope in access.scopes if scope not in person.scopes]
    if access.scope is None or missing:
        needed = missing[0] if missing else "device_token"
        raise InsufficientScopeError(
            f"Your role '{person.role}' does not open this: it needs {needed}. Ask the administrator of your provider "
            "for another role, and sign in again.",
            details={"required_scope": needed, "required_scopes": list(access.scopes), "role": person.role},
        )


def _authorize_key(access: Authorization, key: ApiKeyCaller) -> None:
    if access.scope is None:
        raise InsufficientScopeError(
            "This is the device's own call: it takes a device token (dtok_…), no API key.",
            details={"required": "device_token"},
        )
    missing = [scope for scope in access.scopes if scope not in key.scopes]
    if missing:
        raise InsufficientScopeError(
            f"This API key lacks the scope {' and '.join(missing)}. {_needs(access)}",
            details={"required_scope": missing[0], "required_scopes": list(access.scopes)},
        )
    if access.person:
        raise InsufficientScopeError(
            "This call is about the session of a person who signed in: it takes the cookie of that, no API key.",
            details={"required": "session"},
        )


def _needs(access: Authorization) -> str:
    """Return which key opens this."""
    options = " ".join(f"--scope {scope}" for scope in access.scopes)
    if not access.also:
        return f"Use a key that has it ('gateway keys create {options}')."
    both = " and ".join(access.scopes)
    return f"This call needs {both}: use a key that has them all ('gateway keys create {options}')."


def _authorize_device(access: Authorization, token: DeviceCaller, device_id: str | None) -> None:
    if token.state is TokenState.RESET_ONLY and not access.reset_only:
        raise UnauthorizedError(_RESET_ONLY)
    if not access.device:
        raise InsufficientScopeError(
            f"A device token does not open this: it takes an API key with the scope {access.scope}.",
            details={"required_scope": access.scope, "required_scopes": list(access.scopes)},
        )
    if device_id not in (ME, token.id):
        raise NotFoundError("A device token opens its own device alone. Use 'me', or the device's own id, in the path.")


def state_now(view: View, token: DeviceCaller) -> TokenState:
    """Return the token's state inside this transaction: it may have been revoked since the request was admitted.

    Raises:
        UnauthorizedError: it is revoked.
    """
    state = token_sql.state(view, token.token_id)
    if state is None or state == TokenState.REVOKED:
        raise UnauthorizedError(_REVOKED)
    return TokenState(state)


def refuse_reset_only() -> UnauthorizedError:
    """Return the refusal for a ``reset_only`` token where only the reset is open."""
    return UnauthorizedError(_RESET_ONLY)


async def note_first_use(services: Services, caller: Caller) -> None:
    """Record the first use of a device token before it opens anything: this revokes the tokens that it replaces."""
    if isinstance(caller, DeviceCaller) and not caller.used_before:
        await services.store.write(lambda tx: devices.use(tx, caller.token_id))


async def note_use(services: Services, caller: Caller) -> None:
    """Record, at most once a minute, that a key or a session is in use."""
    if isinstance(caller, DeviceCaller):
        return
    now = services.store.context.clock()
    if caller.last_used_at is not None and now - _NOTED_EVERY_MS < caller.last_used_at <= now:
        return
    touch = session_sql.touch if isinstance(caller, PersonCaller) else key_sql.touch
    before = now - _NOTED_EVERY_MS + 1
    await services.store.write(lambda tx: touch(tx, caller.credential_id, before), urgent=False)
