"""TLS 1.2 without CBC: what the listeners take, and what the gateway and the simulator take as clients."""

import asyncio
import ssl
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from device_sim.tls import tls_context
from gateway.http.server.server import HttpServer
from gateway.tls.certificates import Files, ServerCertificate, client_context
from tests.support.certificates import HOST, make_authority, restrict_to_cbc, server_pair, trusting_context
from tests.support.tls_server import tls_server


async def nothing(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Never called: no connection gets that far."""
    await send({"type": "http.response.start", "status": 204})


async def handshake(port: int, context: ssl.SSLContext) -> str:
    """The suite that both sides agreed on."""
    _, writer = await asyncio.open_connection(HOST, port, ssl=context)
    suite: str = writer.get_extra_info("cipher")[0]
    writer.transport.abort()
    return suite


async def test_a_listener_accepts_tls_1_2_without_cbc(tmp_path: Path) -> None:
    """A handshake with CBC suites alone fails; one with TLS 1.2 and AES-GCM or ChaCha20 does not."""
    pair = server_pair(authority := make_authority(tmp_path))
    certificate = ServerCertificate("http", Files(pair.certificate, pair.key))
    async with HttpServer(nothing, HOST, 0, certificate=certificate) as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await handshake(server.address.port, restrict_to_cbc(trusting_context(authority)))
        for suite in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"):
            client = trusting_context(authority)
            client.maximum_version = ssl.TLSVersion.TLSv1_2
            client.set_ciphers(suite)
            assert await handshake(server.address.port, client) == suite


async def test_refusals_of_the_server_have_hsts(tmp_path: Path) -> None:
    """``Strict-Transport-Security`` is in an answer that no application gave, too."""
    pair = server_pair(authority := make_authority(tmp_path))
    certificate = ServerCertificate("http", Files(pair.certificate, pair.key), hsts_seconds=7)
    async with HttpServer(nothing, HOST, 0, certificate=certificate) as server:
        reader, writer = await asyncio.open_connection(HOST, server.address.port, ssl=trusting_context(authority))
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        answer = await reader.read()
        writer.transport.abort()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nstrict-transport-security: max-age=7\r\n" in answer


async def test_clients_accept_tls_1_2_without_cbc(tmp_path: Path) -> None:
    """A server with CBC suites alone is refused by the gateway and by the simulator, and taken by others."""
    pair = server_pair(authority := make_authority(tmp_path))
    trusted = authority.files.certificate
    with tls_server(pair, cbc=True) as port:
        assert "GCM" not in await handshake(port, trusting_context(authority))
        for context in (
            client_context(trusted),
            client_context(None, pinned=pair.certificate),
            tls_context(str(trusted)),
        ):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await handshake(port, context)
