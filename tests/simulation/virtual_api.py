"""Calls to the gateway's own HTTP application, without a socket: the call may be lost, and so may the answer."""

import asyncio
import json
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from starlette.types import ASGIApp

from device_sim.app import GatewayApi
from device_sim.errors import ApiError, UnreachableError
from tests.simulation.gateway_host import GatewayInstance
from tests.simulation.gateway_process import KilledError

TIMEOUT_SECONDS = 15.0
_GOOD = 300


class VirtualApi(GatewayApi):
    """What companion apps, back ends and devices call. ``lost_answers`` is how many of the next answers get lost."""

    def __init__(self, answering: Callable[[], GatewayInstance | None], key: str, latency: Callable[[], float]) -> None:
        super().__init__("http://gateway", key)
        self._answering = answering
        self._latency = latency
        self.lost_answers = 0
        self.unsynced: set[str] = set()
        """Tokens of which the answer says that not all brokers know them yet."""

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        bearer: str | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Make one call; see :class:`GatewayApi`."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        status, answer = await self.exchange(
            method, path, content, bearer or self._key, idempotency_key=idempotency_key
        )
        if status < _GOOD:
            return answer
        raise ApiError(status, answer["error"]["code"], answer["error"]["message"])

    async def exchange(
        self, method: str, path: str, content: bytes, bearer: str, *, idempotency_key: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer; ``idempotency_key`` is an Idempotency-Key.

        Raises:
            UnreachableError: no gateway took it, or no answer came; it may have been done all the same.
        """
        await asyncio.sleep(self._latency())
        instance = self._answering()
        if instance is None:
            raise UnreachableError("connection refused")
        call_task = instance.spawn(call_app(instance.app, method, path, content, bearer, idempotency_key))
        await asyncio.wait((call_task,), timeout=TIMEOUT_SECONDS)
        await asyncio.sleep(self._latency())
        if (
            not call_task.done()
            or call_task.cancelled()
            or isinstance(call_task.exception(), KilledError)
            or instance.process.is_dead
        ):
            raise UnreachableError("the connection broke before an answer came")
        if self.lost_answers:
            self.lost_answers -= 1
            raise UnreachableError("the answer was lost")
        status, headers, answer = call_task.result()
        if (b"x-broker-synced", b"false") in headers:
            self.unsynced.add(answer["device_token"])
        return status, answer


async def call_app(
    app: ASGIApp, method: str, path: str, content: bytes, bearer: str, idempotency_key: str | None
) -> tuple[int, list[tuple[bytes, bytes]], dict[str, Any]]:
    """One request as an ASGI server hands it on."""
    headers = [(b"authorization", f"Bearer {bearer}".encode()), (b"content-type", b"application/json")]
    headers += [(b"content-length", str(len(content)).encode())]
    if idempotency_key is not None:
        headers.append((b"idempotency-key", idempotency_key.encode()))
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http", "headers": headers,
        "client": ("app", 1), "server": ("gateway", 80),
    }  # fmt: skip
    parts: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        parts.append(message)

    await app(scope, receive, send)
    body = b"".join(part.get("body", b"") for part in parts)
    return parts[0]["status"], list(parts[0]["headers"]), json.loads(body or b"{}")
