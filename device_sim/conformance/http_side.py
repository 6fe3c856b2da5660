"""HTTP side of the kit: heartbeat, acknowledgement and token refresh of a device, and the bind of a companion app."""

from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Literal, TypeAlias

from device_sim.conformance.http_server import Request, Response, error
from device_sim.conformance.issuer import Issuer, SigningKey, new_token
from device_sim.conformance.log import Log
from device_sim.wire import mqtt_password

Address: TypeAlias = Mapping[str, Any]
Refresh: TypeAlias = Literal["grant", "lose", "limit", "revoked"] | Address
"""How a token refresh is answered. An address is granted in the place of the right one."""
RETRY_AFTER_SECONDS = 1
HEARTBEAT, REFRESH = "/v1/devices/me/heartbeat", "/v1/devices/me/token/refresh"
ACK_START, ACK_END = "/v1/devices/me/commands/", "/ack"


class HttpSide:
    """Answers of the gateway over HTTP. `refreshes` says how the next token refreshes are answered; then `grant`."""

    def __init__(
        self,
        issuer: Issuer,
        log: Log,
        bind_answer: Callable[[], dict[str, Any]],
        address: Callable[[], Address],
        is_revoked: Callable[[], bool],
    ) -> None:
        self.refreshes: deque[Refresh] = deque()
        self.may_bind = False
        self._issuer = issuer
        self._log = log
        self._bind_answer = bind_answer
        self._address = address
        self._is_revoked = is_revoked
        self._granted: dict[str, str] = {}
        self._decoy = SigningKey()

    def handle(self, request: Request) -> Response | None:  # a table: one line per call
        """Answer one request; None closes the connection without an answer."""
        self._log.add("http", 0, request)
        if request.path == "/v1/devices" and request.method == "POST":
            return Response(HTTPStatus.CREATED, {"id": self._issuer.device_id, "status": "unbound"})
        if request.path == f"/v1/devices/{self._issuer.device_id}/bind":
            return self._bind()
        if request.path == "/.well-known/jwks.json":
            return Response(HTTPStatus.OK, {"keys": [self._decoy.jwk]})
        if not request.path.startswith("/v1/devices/me/"):
            return error(HTTPStatus.NOT_FOUND, "not_found", "the kit knows no such path")
        if self._is_revoked() or not self._is_known(request):
            return error(HTTPStatus.UNAUTHORIZED, "unauthorized", "this is not the token of the newest bind")
        return self._of_the_device(request)

    @property
    def decoy(self) -> SigningKey:
        """Return the key that is offered as jwks.json, and that no device may obey."""
        return self._decoy

    def _is_known(self, request: Request) -> bool:
        """Return whether the token is the newest, or an older one that repeats its own refresh."""
        repeats = request.path == REFRESH and request.headers.get("idempotency-key") in self._granted
        binding = self._issuer.binding
        return request.bearer == binding.token or (repeats and request.bearer in binding.former)

    def _of_the_device(self, request: Request) -> Response | None:
        if request.path == REFRESH:
            return self._refresh(request)
        if request.path == HEARTBEAT:
            return _heartbeat(request)
        if request.path.startswith(ACK_START) and request.path.endswith(ACK_END):
            return Response(HTTPStatus.OK, {"status": "ok"})
        return error(HTTPStatus.NOT_FOUND, "not_found", "a device has no such call")

    def _bind(self) -> Response:
        if not self.may_bind:
            return error(HTTPStatus.CONFLICT, "reset_pending", "the kit wants no bind at this step")
        self.may_bind = False
        return Response(HTTPStatus.OK, self._bind_answer())

    def _refresh(self, request: Request) -> Response | None:
        answer = self.refreshes.popleft() if self.refreshes else "grant"
        match answer:
            case "lose":
                return None
            case "limit":
                wait = str(RETRY_AFTER_SECONDS)
                return error(HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_exceeded", "wait", Retry_After=wait)
            case "revoked":
                return error(HTTPStatus.UNAUTHORIZED, "unauthorized", "the token was revoked")
            case "grant":
                return self._grant(request, self._address())
            case address:
                return self._grant(request, address)

    def _grant(self, request: Request, address: Address) -> Response:
        binding = self._issuer.binding
        key = request.headers.get("idempotency-key", "")
        token = self._granted.get(key)
        if token is None:
            token = new_token()
            binding.refresh(token)
        if key:
            self._granted[key] = token
        body = {
            "device_token": token,
            "mqtt": {**address, "password": mqtt_password(token)},
            "binding_generation": binding.generation,
        }
        return Response(HTTPStatus.OK, body)


def _heartbeat(request: Request) -> Response:
    """Answer a heartbeat. One with last_command gets 503, since its 2xx would end what C36 observes over MQTT."""
    if isinstance(request.body, dict) and "last_command" in request.body:
        return error(HTTPStatus.SERVICE_UNAVAILABLE, "service_unavailable", "report it over MQTT", Retry_After="1")
    return Response(HTTPStatus.OK, {"status": "ok", "commands": []})
