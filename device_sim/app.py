"""Companion app: registers and binds a device over HTTP, and relays the heartbeats that the device sends over BLE."""

import asyncio
import json
import socket
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from device_sim.actions import TokenRefreshed
from device_sim.binding import Binding
from device_sim.errors import AnswerError, ApiError, UnreachableError, UntrustedError, caused_by
from device_sim.tls import tls_context
from device_sim.wire import refresh_key

TIMEOUT_SECONDS = 15.0
TOO_MANY_REQUESTS = 429
MAX_RATE_LIMIT_WAITS = 20
"""How often one call of the companion app waits for the rate limit before it gives up."""


class GatewayApi:
    """HTTP calls of a companion app, or of a device over HTTP, to a gateway at `url`.

    `key` is an API key with `devices:write`. The first call opens connections; `aclose` or the end of `async with`
    closes them. `tls` sets the certificate authorities for HTTPS; the default is those of the system.

    Every call may raise `UnreachableError`, `ApiError` (the gateway's error with the contract's code) or `AnswerError`
    (the server is not a gateway).
    """

    def __init__(self, url: str, key: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._tls = tls
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections; the next call opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def register(self, serial: str, *, model: str, name: str | None, firmware_version: str) -> dict[str, Any]:
        """Register a device by its serial number, or return the known device with that number."""
        body = {"serial_number": serial, "model": model, "name": name, "firmware_version": firmware_version}
        known = {key: each for key, each in body.items() if each is not None}
        return await self.call_when_allowed("POST", "/v1/devices", known)

    async def bind(self, device_id: str, end_user_id: str, *, supersede_reset: bool = False) -> Binding:
        """Bind a device to an end user. Only this answer contains its token."""
        body: dict[str, Any] = {"end_user_id": end_user_id}
        if supersede_reset:
            body["supersede_reset"] = True
        answer = await self.call_when_allowed("POST", f"/v1/devices/{device_id}/bind", body)
        try:
            return Binding.from_answer(answer)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise AnswerError(f"the bind answer of {self.url} lacks or spoils a field: {error}") from error

    async def relay_heartbeat(self, device_id: str, payload: bytes) -> None:
        """Relay a heartbeat that the device sent over BLE. The answer never brings commands."""
        await self.call("POST", f"/v1/devices/{device_id}/heartbeat", payload)

    async def send_heartbeat(self, token: str, payload: bytes) -> list[dict[str, Any]]:
        """Send a heartbeat over HTTP as the device, and return its open commands."""
        answer = await self.call("POST", "/v1/devices/me/heartbeat", payload, bearer=token)
        return list(answer.get("commands", ()))

    async def send_ack(self, token: str, command_id: str, payload: bytes) -> None:
        """Acknowledge a command over HTTP as the device."""
        await self.call("POST", f"/v1/devices/me/commands/{command_id}/ack", payload, bearer=token)

    async def refresh_token(self, binding: Binding) -> TokenRefreshed:
        """Request another token of the binding as the device, and return it. A repetition returns the same one."""
        token = binding.device_token
        path, key = "/v1/devices/me/token/refresh", refresh_key(token)
        answer = await self.call("POST", path, {}, bearer=token, idempotency_key=key)
        try:
            return TokenRefreshed(str(answer["device_token"]), binding.mqtt.moved(answer.get("mqtt", {})))
        except KeyError as error:
            raise AnswerError(f"the answer of {self.url} to a token refresh lacks {error}") from error
        except (TypeError, ValueError) as error:
            raise AnswerError(f"the answer of {self.url} to a token refresh names no broker: {error}") from error

    async def call_when_allowed(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make one call with the API key. After a 429 wait for the seconds of `Retry-After`, and call again.

        A 429 changed nothing at the gateway, so the call may be repeated.

        Raises:
            ApiError: also for a 429 without `Retry-After`, and for more than `MAX_RATE_LIMIT_WAITS` of them.
        """
        for _ in range(MAX_RATE_LIMIT_WAITS):
            try:
                return await self.call(method, path, body)
            except ApiError as error:
                if error.status != TOO_MANY_REQUESTS or error.retry_after is None:
                    raise
                await asyncio.sleep(error.retry_after)
        return await self.call(method, path, body)

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | bytes | None = None,
        *,
        bearer: str | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Make one call with the API key, or with `bearer` if it is given. Return the JSON object of the answer."""
        headers = {"Authorization": f"Bearer {bearer or self._key}", "Content-Type": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            answer = await self._get_client().request(method, self.url + path, content=content, headers=headers)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise _connection_error(self.url, error) from error
        return _read_answer(answer, self.url)

    def _get_client(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=TIMEOUT_SECONDS, verify=self._tls or tls_context(None))
        return self._client


def _connection_error(url: str, error: Exception) -> UnreachableError:
    tls_error = caused_by(error, ssl.SSLError)
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) and url.startswith("http://"):
        return UnreachableError(f"what is at {url} hangs up: if it speaks TLS, the URL has to begin with https://")
    if (name_error := caused_by(error, socket.gaierror)) is not None:
        host = urlsplit(url).hostname
        return UnreachableError(f"the host name {host} cannot be resolved ({name_error.strerror})")
    if tls_error is None:
        return UnreachableError(f"no gateway answers at {url} ({error})")
    if isinstance(tls_error, ssl.SSLCertVerificationError):
        return UntrustedError(
            f"the certificate of {url} is not trusted ({tls_error.verify_message.rstrip('.')})", tls_error.verify_code
        )
    return UntrustedError(f"no TLS with {url} ({tls_error.reason or tls_error})", 0)


def _read_answer(answer: httpx.Response, url: str) -> dict[str, Any]:
    try:
        body = answer.json() if answer.content else {}
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"{url} answered {answer.status_code} without JSON: is it a gateway?") from error
    if not isinstance(body, dict):
        raise AnswerError(f"{url} answered {answer.status_code} with JSON that is no object: is it a gateway?")
    if answer.is_success:
        return body
    error_body = body.get("error")
    reason = error_body if isinstance(error_body, dict) else {}
    message = str(reason.get("message", "the gateway gave no reason"))
    code = str(reason.get("code", "unknown"))
    raise ApiError(
        answer.status_code, code, message, retry_after=_parse_retry_after(answer.headers.get("Retry-After", ""))
    )


def _parse_retry_after(header: str) -> float | None:
    """Return the seconds of a `Retry-After`; None without it, and for a date, which this gateway never sends."""
    return float(header) if header.isascii() and header.isdigit() else None
