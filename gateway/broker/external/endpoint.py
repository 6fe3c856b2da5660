"""Auth endpoint: a request with the shared secret is the broker's and answered in its dialect. All others are denied.

A question is its path and its body, whatever the method, since amqtt sends a body with GET. A query is never read,
since URLs get into logs. The secret stands in ``Authorization: Bearer …``. For brokers that cannot send that
header it is the first level of the path. A malformed question, an unreadable registry and a bug are denials too.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from gateway.broker.external import amqtt, emqx, mosquitto_go_auth, rabbitmq, vernemq
from gateway.broker.external.decisions import AuthDecisions
from gateway.broker.external.dialect import AuthAnswer, Dialect
from gateway.broker.external.fields import Fields, MalformedError
from gateway.errors import GatewayError
from gateway.http.body import ClientGoneError, read_all
from gateway.http.errors import PayloadTooLargeError

log = structlog.get_logger()

DIALECTS: Final[Mapping[str, Dialect]] = {
    "emqx": emqx.DIALECT,
    "rabbitmq": rabbitmq.DIALECT,
    "vernemq": vernemq.DIALECT,
    "mosquitto-go-auth": mosquitto_go_auth.DIALECT,
    "amqtt": amqtt.DIALECT,
}
MAX_BODY_BYTES: Final = 262_144
"""VerneMQ sends the payload along, in base64. The largest payload that a broker of ours accepts has 128 KiB."""
BODY_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 4.0
"""Our time limit, below the broker's (5 s with most), so that the answer is ours."""

_NOWHERE: Final = AuthAnswer(b'{"result":"deny"}', 404)
_BEARER: Final = "Bearer "


@dataclass(frozen=True)
class AuthQuestion:
    """The question that a path asks."""

    dialect: str
    question: str
    secret: str


class AuthEndpoint:
    """The endpoint, as an ASGI application."""

    def __init__(self, judge: AuthDecisions, secret: str, refused: Callable[[str], None] = lambda _: None) -> None:
        """Make the endpoint. ``refused`` is called with the address of each request that has another secret."""
        self._refused = refused
        self._judge = judge
        self._secret = secret.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one question."""
        headers = Headers(scope=scope)
        asked = _asked(scope["path"], headers.get("authorization", ""))
        client = scope.get("client")
        answer = await self._answer(asked, headers, receive, client[0] if client else "")
        await _send(answer, send)

    async def _answer(self, asked: AuthQuestion, headers: Headers, receive: Receive, address: str) -> AuthAnswer:
        dialect = DIALECTS.get(asked.dialect)
        if not hmac.compare_digest(asked.secret.encode("utf-8", "surrogatepass"), self._secret):
            self._refused(address)
            log.warning("broker_auth.wrong_secret", dialect=asked.dialect if dialect else None, client_address=address)
            return _NOWHERE if dialect is None else dialect.deny
        question = None if dialect is None else dialect.questions.get(asked.question)
        if dialect is None or question is None:
            log.warning("broker_auth.unknown_question", dialect=asked.dialect, question=asked.question)
            return _NOWHERE if dialect is None else dialect.deny
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await read_all(receive, MAX_BODY_BYTES)
            fields = Fields.parse(body, headers.get("content-type", ""), headers.get("vernemq-hook", ""))
            async with asyncio.timeout(ANSWER_SECONDS):
                return await question(self._judge, fields)
        except (MalformedError, KeyError, PayloadTooLargeError, ClientGoneError) as error:
            log.warning(
                "broker_auth.malformed",
                dialect=asked.dialect,
                question=asked.question,
                reason=_reason(error),
            )
        except (GatewayError, TimeoutError) as error:
            log.error("broker_auth.unavailable", dialect=asked.dialect, reason=str(error) or "timed out")  # noqa: TRY400 - no bug of ours
        except Exception:
            log.exception("broker_auth.failed", dialect=asked.dialect, question=asked.question)
        return dialect.deny


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:200]


def _asked(path: str, authorization: str) -> AuthQuestion:
    first, _, rest = path.removeprefix("/").partition("/")
    if first in DIALECTS:
        shown = authorization.removeprefix(_BEARER) if authorization.startswith(_BEARER) else ""
        return AuthQuestion(first, rest, shown)
    dialect, _, question = rest.partition("/")
    return AuthQuestion(dialect, question, first)


async def _send(answer: AuthAnswer, send: Send) -> None:
    headers = {
        "content-type": answer.media_type,
        "content-length": str(len(answer.content)),
        "cache-control": "no-store",
    }
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    await send({"type": "http.response.body", "body": answer.content})
