"""The HTTP client of webhooks: which addresses it connects to, and what it takes for an answer."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.webhooks.http_client import BODY_BYTES
from gateway.webhooks.sender import WebhookSender
from tests.http.support import Api, Json, body, error, serving
from tests.support.receiver import BUSY, receiving
from tests.webhooks.support import (
    GUARD_SECONDS,
    advance_clock,
    create_webhook,
    deliveries,
    delivering,
    wait_for_delivery,
    wait_for_replay,
)


@pytest.fixture(autouse=True)
async def _guard() -> AsyncIterator[None]:
    """Whatever is waited for here must happen."""
    async with asyncio.timeout(GUARD_SECONDS):
        yield


async def test_a_receiver_that_does_not_answer_is_a_failure(api: Api) -> None:
    """Is a failure when the time is over; the answer that comes after that does not count."""
    async with receiving() as receiver, delivering(api, WebhookSender(seconds=0.2, allow_loopback=True)):
        receiver.open.clear()
        webhook = await create_webhook(api, receiver.url)
        await api.registered()
        delivery = await wait_for_delivery(api, webhook, "pending")
        assert (delivery["response_status"], delivery["error"]) == (None, "There was no answer within 0.2 s.")
        receiver.open.set()
        advance_clock(api, 61)
        await wait_for_delivery(api, webhook, "delivered", attempts=2)


async def test_a_redirect_is_not_followed(api: Api) -> None:
    """It is a failure that says what to do."""
    async with receiving() as elsewhere:
        redirect = f"HTTP/1.1 308 Permanent Redirect\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n"
        async with receiving(redirect.encode()) as receiver, delivering(api):
            webhook = await create_webhook(api, receiver.url)
            await api.registered()
            delivery = await wait_for_delivery(api, webhook, "pending")
            assert delivery["response_status"] == 308
            assert "Give the webhook the URL it leads to" in delivery["error"]
            assert (len(receiver.received), elsewhere.received) == (1, [])


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n"])
async def test_an_invalid_answer_is_a_failure(api: Api, answer: bytes) -> None:
    """Is a failure with a reason."""
    async with receiving(answer) as receiver, delivering(api):
        webhook = await create_webhook(api, receiver.url)
        await api.registered()
        delivery = await wait_for_delivery(api, webhook, "pending")
        assert delivery["error"].startswith("The connection broke: ")


async def test_a_test_delivery_returns_the_answer(api: Api) -> None:
    """Signed like any event, of its own type, also while the webhook is switched off; nothing of it is kept."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    async with receiving(answer, BUSY) as receiver:
        webhook = await create_webhook(api, receiver.url, "reset.completed")
        body(await api.back_end.patch(f"/v1/webhooks/{webhook['id']}", json={"enabled": False}), 200)
        good, bad = await wait_for_replay(api, webhook), await wait_for_replay(api, webhook)
        assert (good["delivered"], good["response_status"], good["response_body"], good["error"]) == (
            True,
            200,
            "ok",
            None,
        )
        assert good["event"]["type"] == "webhook.test"
        assert good["event"]["data"] == {"webhook_id": webhook["id"], "actor": api.key_id}
        assert [each.event for each in receiver.received] == [good["event"], bad["event"]]
        assert receiver.received[0].is_signed_with(webhook["secret"])
        assert (bad["delivered"], bad["response_status"], bad["response_body"]) == (False, 500, "busy")
    nowhere = await wait_for_replay(api, webhook)
    assert (nowhere["delivered"], nowhere["response_status"], nowhere["response_body"]) == (False, None, None)
    assert nowhere["error"].startswith("Could not connect: ")
    assert await deliveries(api, webhook) == []
    written = body(await api.back_end.get("/v1/events"), 200)["data"]
    assert {each["type"] for each in written} == {"webhook.created", "webhook.updated"}


async def test_a_long_answer_is_not_read_to_its_end(api: Api) -> None:
    """What comes beyond the bound is left; what is shown of it is cut, and holds no secret."""
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + api.key.encode() + b" \0\xff" + b"x" * (BODY_BYTES + 1_000_000)
    async with receiving(endless) as receiver:
        shown = (await wait_for_replay(api, await create_webhook(api, receiver.url)))["response_body"]
        assert shown.startswith("sk_live_… \0\ufffdxxx")
        assert len(shown) == 1_024


async def test_an_endless_body_is_no_failure(api: Api) -> None:
    """The status counts; the wait for the body is short."""
    dripping = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbeginning"
    async with receiving(dripping) as receiver:
        answer = await wait_for_replay(api, await create_webhook(api, receiver.url))
        assert (answer["delivered"], answer["response_body"]) == (True, "beginning")


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.0.0.1"])
async def test_a_name_that_leads_to_this_machine_is_refused_when_connecting(api: Api, host: str) -> None:
    """It is resolved first, and its addresses are judged; with the setting it is let through."""
    async with receiving() as receiver:
        webhook = await create_webhook(api, f"https://{host}:{receiver.port}/")
        answer = await wait_for_replay(api, webhook)
        assert not answer["delivered"]
        assert "webhook_allow_private" in answer["error"]
        assert receiver.received == []
        await _set_url(api, webhook, f"http://{host}:{receiver.port}/")
        assert "should start with https://" in (await wait_for_replay(api, webhook))["error"]
        async with delivering(api, WebhookSender(allow_private=True, allow_loopback=True)):
            await api.registered()
            await receiver.got(1)


async def test_loopback_is_refused_by_default(tmp_path: Path) -> None:
    """Nothing is sent there, whatever the URL calls it; neither to one that was made while that was allowed."""
    async with serving(tmp_path, allow_loopback=False) as api, receiving() as receiver:
        port = receiver.port
        for host in ("127.0.0.1", "localhost", "127.8.8.8", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "[::]"):  # noqa: S104 - attacks
            for scheme in ("http", "https"):
                answer = await api.back_end.post("/v1/webhooks", json={"url": f"{scheme}://{host}:{port}/"})
                assert "webhook_allow_" in error(answer, 400, "invalid_request")["message"]
        webhook = await create_webhook(api, "https://example.com/")
        for host in ("127.0.0.1", "localhost", "127.1"):
            await _set_url(api, webhook, f"https://{host}:{port}/")
            told = await wait_for_replay(api, webhook)
            assert (told["delivered"], told["response_body"]) == (False, None)
            assert "webhook_allow_loopback" in told["error"]
        assert receiver.received == []


async def _set_url(api: Api, webhook: Json, url: str) -> None:
    """As if the setting had been on when it was made."""
    await api.store.write(lambda tx: tx.run("UPDATE webhooks SET url = ? WHERE id = ?", url, webhook["id"]))


async def test_an_unresolvable_name_is_a_failure(api: Api) -> None:
    """Is a failure with that reason."""
    answer = await wait_for_replay(api, await create_webhook(api, "https://no-such-host.invalid/"))
    assert answer["error"] == "Could not connect: the name no-such-host.invalid cannot be resolved."


def _certificate(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server that is 127.0.0.1, and of a client that trusts it."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


async def test_tls_is_verified(api: Api, tmp_path: Path) -> None:
    """A certificate that no trusted authority signed is a failure; one that is trusted is fine."""
    server, client = _certificate(tmp_path)
    async with receiving(tls=server) as receiver:
        webhook = await create_webhook(api, receiver.url)
        answer = await wait_for_replay(api, webhook)
        assert "certificate verify failed" in answer["error"].lower()
        async with delivering(api, WebhookSender(tls=client, allow_loopback=True)):
            await api.registered()
            await receiver.got(1)
            await wait_for_delivery(api, webhook, "delivered")
