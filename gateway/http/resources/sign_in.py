"""Operations about the session of a person: what it may do, and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from gateway.core.clock import to_rfc3339
from gateway.domain import sessions
from gateway.errors import NotFoundError
from gateway.http.auth import session_secret
from gateway.http.callers import PUBLIC, Authorization, PersonCaller
from gateway.http.operation import AnyOperation, Operation, RequestContext
from gateway.http.responses import ApiResponse
from gateway.http.sign_in.cookies import SESSION
from gateway.models.fields import Empty
from gateway.models.system import OidcOption, SessionFacts, SignedOut, SignInOptions
from gateway.store import Tx, View, session_sql

if TYPE_CHECKING:  # it loads an HTTP client
    from gateway.http.sign_in.people import People

TAG: Final = "sign-in"
LOGIN: Final = "/auth/login"
_PERSON: Final = Authorization(scope="devices:read", person=True)


async def get_sign_in_options(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /auth/options``."""
    people = call.services.people
    if people is None:
        return ApiResponse(SignInOptions(oidc=None))
    name = urlsplit(people.options.issuer).hostname or ""
    return ApiResponse(SignInOptions(oidc=OidcOption(name=name, url=LOGIN.lstrip("/"))))


async def get_session(call: RequestContext, _: Empty) -> ApiResponse:
    """``GET /v1/session``."""
    person, _people = _in_session(call)
    return ApiResponse(await call.work.read(lambda view: _facts(view, person)))


async def end_session(call: RequestContext, _: Empty) -> ApiResponse:
    """``DELETE /v1/session``."""
    person, people = _in_session(call)
    secret = session_secret(call.services, Headers(call.request.headers))
    id_token = None if secret is None else await people.id_token_of(secret)

    def end(tx: Tx) -> ApiResponse:
        session = session_sql.by_id(tx, person.session_id)
        sessions.end(tx, [] if session is None else [session], "signed_out")
        return ApiResponse(SignedOut(end_session_url=None), headers={"Set-Cookie": people.cookies.removed(SESSION)})

    ended = await call.work.commit(end)
    address = await people.provider.sign_out_address(id_token)
    return ApiResponse(SignedOut(end_session_url=address), headers=ended.headers)


def _in_session(call: RequestContext) -> tuple[PersonCaller, People]:
    if not isinstance(call.caller, PersonCaller) or call.services.people is None:
        raise LookupError("the caller is no person in session")
    return call.caller, call.services.people


def _facts(view: View, person: PersonCaller) -> SessionFacts:
    session = session_sql.by_id(view, person.session_id)
    if session is None:
        raise NotFoundError("This session has ended. Sign in again.")
    return SessionFacts(
        id=session.id,
        actor=person.id,
        name=session.name,
        project_id=session.project_id,
        project_name=session.project,
        role=person.role,
        scopes=sorted(person.scopes),
        expires_at=to_rfc3339(session.expires_at),
        csrf_token=person.csrf_token,
    )


OPERATIONS: Final[tuple[AnyOperation, ...]] = (
    Operation(
        method="GET",
        path="/auth/options",
        summary="How people can sign in",
        description="For the page, before anybody has signed in: the OpenID Connect provider, if there is one.",
        tag=TAG,
        access=PUBLIC,
        takes=Empty,
        handler=get_sign_in_options,
        answers={200: SignInOptions},
    ),
    Operation(
        method="GET",
        path="/v1/session",
        summary="Get the session of the person who asks",
        description="Who signed in, what the role may do, until when, and the token that changes need. It takes the "
        "cookie of a session: an API key is refused.",
        tag=TAG,
        access=_PERSON,
        takes=Empty,
        handler=get_session,
        answers={200: SessionFacts},
    ),
    Operation(
        method="DELETE",
        path="/v1/session",
        summary="Sign out",
        description="Ends the session for every gateway of the registry, and its event streams within seconds. The "
        "cookie opens nothing after that. The answer says where the session at the provider can be ended as well.",
        tag=TAG,
        access=_PERSON,
        takes=Empty,
        handler=end_session,
        answers={200: SignedOut},
    ),
)
