"""Real parts for the simulator's tests: a Mosquitto, a gateway's front door over HTTP, and a signer of grants."""

import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import random
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import jwt
import rfc8785
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from device_sim.binding import Binding, Endpoint
from device_sim.wire import rfc3339
from tests.support.ports import free_port

DEVICE_ID = "dev_01JCSIM000000000000000001"
TOKEN = "dtok_abcdefghijklmnopqrstuvwxyz0123456789ABCDEF"
COMMAND_ID = "cmd_01JCSIM000000000000000001"
NOW = 1_793_534_400_000  # 2026-11-01T12:00:00Z
GUARD_SECONDS = 60
ROUNDS = 8
API_KEY = "sk_test_simulator"


def seeded(seed: int | str = 1) -> random.Random:
    """Randomness that comes again."""
    return random.Random(seed)  # noqa: S311  # a test has to be repeatable


class Signer:
    """Signs grants with a fixed Ed25519 key, as a gateway does."""

    def __init__(self, seed: bytes = bytes(range(32)), kid: str = "k1") -> None:
        self.kid = kid
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._seq = itertools.count(1)

    @property
    def jwk(self) -> dict[str, str]:
        """The public half, as a bind answers it."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "alg": "EdDSA", "x": _base64(raw)}

    def grant(self, **claims: Any) -> str:
        """A JWT over exactly these claims."""
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self.kid})

    def command(
        self,
        command_type: str = "factory_reset",
        *,
        command_id: str = COMMAND_ID,
        device_id: str = DEVICE_ID,
        generation: int = 3,
        expires_at: int | None = None,
        params: dict[str, Any] | None = None,
        claims: dict[str, Any] | None = None,
        fields: dict[str, Any] | None = None,
    ) -> bytes:
        """A command's payload, later than all before; `claims` and `fields` overwrite, None in `claims` removes."""
        said = {
            "iss": "gw_test",
            "aud": device_id,
            "jti": command_id,
            "cmd": command_type,
            "gen": generation,
            "iat": NOW // 1000,
            "exp": None if expires_at is None else expires_at // 1000,
            "par": digest_of(params or {}),
            "seq": next(self._seq),
            **(claims or {}),
        }
        body = {
            "id": command_id,
            "type": command_type,
            "params": params or {},
            "binding_generation": generation,
            "created_at": rfc3339(NOW),
            "expires_at": None if expires_at is None else rfc3339(expires_at),
            "grant_token": self.grant(**{name: value for name, value in said.items() if value is not None}),
            **(fields or {}),
        }
        return json.dumps(body).encode()


def digest_of(params: dict[str, Any]) -> str:
    """The claim `par`, by a library of others."""
    return _base64(hashlib.sha256(rfc8785.dumps(params)).digest())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def make_binding(signer: Signer, *, generation: int = 3, token: str = TOKEN, port: int = 1883) -> Binding:
    """What a bind answers for `DEVICE_ID`."""
    return Binding(DEVICE_ID, generation, token, signer.jwk, Endpoint("127.0.0.1", port), "eu_1")


# --- Mosquitto --------------------------------------------------------------------------------------------------------


@dataclass
class Broker:
    """A Mosquitto of the test's own."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def client(self, name: str = "") -> aiomqtt.Client:
        """A client that may do everything."""
        return aiomqtt.Client("127.0.0.1", self.port, identifier=name or None, username="gateway", password="gateway")


@contextlib.asynccontextmanager
async def mosquitto(folder: Path, *, port: int | None = None, extra: str = "") -> AsyncIterator[Broker]:
    """Run a Mosquitto on a free port until the block ends; its log is printed when the block fails."""
    broker = await _started(folder, port, extra)
    try:
        yield broker
    except BaseException:
        print(broker.log.read_text())  # noqa: T201  # the broker's log belongs to the failure
        raise
    finally:
        stop(broker.process)


async def _started(folder: Path, port: int | None, extra: str) -> Broker:
    log = ""
    for _ in range(ROUNDS):
        broker = _launch(folder, port or free_port(), extra)
        if await _listens(broker):
            return broker
        stop(broker.process)
        log = broker.log.read_text()
    raise AssertionError(f"Mosquitto did not start: {log}")


def _launch(folder: Path, port: int, extra: str) -> Broker:
    config, log = folder / f"mosquitto-{port}.conf", folder / f"mosquitto-{port}.log"
    access = extra or "allow_anonymous true"
    config.write_text(f"listener {port} 127.0.0.1\nuser root\npersistence false\nlog_type all\n{access}\n")
    with log.open("ab") as output:
        process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", config], stdout=output, stderr=output)
    return Broker(port, process, log)


async def _listens(broker: Broker) -> bool:
    async with asyncio.timeout(GUARD_SECONDS):
        while broker.process.poll() is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", broker.port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            writer.close()
            await writer.wait_closed()
            return True
    return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that the test started."""
    process.terminate()
    process.wait(GUARD_SECONDS)


# --- the gateway's front door -----------------------------------------------------------------------------------------


@dataclass
class StubGateway:
    """Speaks the contract's register, bind, heartbeat and acknowledgement; what was sent to it lies in the lists."""

    url: str = ""
    mqtt_port: int = 1883
    prefix: str = ""
    signer: Signer = field(default_factory=Signer)
    refuse_bind: tuple[int, str] | None = None
    limit_binds: int = 0
    bound: dict[str, int] = field(default_factory=dict)
    relayed: list[dict[str, Any]] = field(default_factory=list)
    own: list[dict[str, Any]] = field(default_factory=list)
    acks: list[dict[str, Any]] = field(default_factory=list)
    commands: list[dict[str, Any]] = field(default_factory=list)
    token_refused: bool = False
    refuse_acks: int = 0
    tls: bool = False
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def token(self, device_id: str) -> str:
        """The token of a device's present generation."""
        return f"dtok_{device_id.removeprefix('dev_')}{self.bound[device_id]:030d}"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until requests make the condition true."""
        while not condition():
            self.heard.clear()
            await self.heard.wait()


Handler = Callable[[StubGateway, Request], Awaitable[Response]]


@contextlib.asynccontextmanager
async def stub_gateway(*, mqtt_port: int = 1883, prefix: str = "") -> AsyncIterator[StubGateway]:
    """Serve a `StubGateway` on a free port."""
    gateway = StubGateway(mqtt_port=mqtt_port, prefix=prefix)
    server = uvicorn.Server(uvicorn.Config(_app(gateway), port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(GUARD_SECONDS):
        while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
            await asyncio.sleep(0.005)
    gateway.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield gateway
    finally:
        server.should_exit = True
        await serving


def _app(gateway: StubGateway) -> Starlette:
    def post(path: str, handler: Handler) -> Route:
        async def endpoint(request: Request) -> Response:
            answer = await handler(gateway, request)
            gateway.heard.set()
            return answer

        return Route(path, endpoint, methods=["POST"])

    return Starlette(
        routes=[
            post("/v1/devices", _register),
            post("/v1/devices/{id}/bind", _bind),
            post("/v1/devices/{id}/heartbeat", _heartbeat),
            post("/v1/devices/me/commands/{cmd}/ack", _ack),
        ]
    )


def _error(status: int, code: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": f"refused as {code}", "details": {}}}, status)


def _bearer(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


async def _register(_: StubGateway, request: Request) -> Response:
    if _bearer(request) != API_KEY:
        return _error(401, "unauthorized")
    body = await request.json()
    device_id = f"dev_{seeded(body['serial_number']).getrandbits(100):026d}"
    return JSONResponse({"id": device_id, **body, "status": "unbound", "binding_generation": 0}, 201)


async def _bind(gateway: StubGateway, request: Request) -> Response:
    if gateway.limit_binds > 0:
        gateway.limit_binds -= 1
        limited = _error(429, "rate_limit_exceeded")
        limited.headers["Retry-After"] = "1"
        return limited
    if gateway.refuse_bind is not None:
        return _error(*gateway.refuse_bind)
    device_id, body = request.path_params["id"], await request.json()
    gateway.bound[device_id] = gateway.bound.get(device_id, 0) + 1
    return JSONResponse(
        {
            "id": device_id,
            "binding_generation": gateway.bound[device_id],
            "end_user_id": body["end_user_id"],
            "device_token": gateway.token(device_id),
            "grant_key": gateway.signer.jwk,
            "mqtt": {
                "host": "127.0.0.1",
                "port": gateway.mqtt_port,
                "tls": gateway.tls,
                "username": device_id,
                "client_id": device_id,
                "topics": {"heartbeat": f"{gateway.prefix}devices/{device_id}/heartbeat"},
            },
        }
    )


async def _heartbeat(gateway: StubGateway, request: Request) -> Response:
    if request.path_params["id"] != "me":
        gateway.relayed.append(await request.json())
        return JSONResponse({"status": "ok"})
    if gateway.token_refused:
        return _error(401, "unauthorized")
    gateway.own.append({**await request.json(), "bearer": _bearer(request)})
    return JSONResponse({"status": "ok", "commands": gateway.commands})


async def _ack(gateway: StubGateway, request: Request) -> Response:
    if gateway.refuse_acks > 0:
        gateway.refuse_acks -= 1
        return _error(503, "service_unavailable")
    gateway.acks.append({**await request.json(), "path_id": request.path_params["cmd"], "bearer": _bearer(request)})
    return JSONResponse({"status": "ok"})
