"""HTTP/1.1 client for the three calls of a device: heartbeat, acknowledgement, token refresh."""

import asyncio

import net

ANSWER_SECONDS = 20
LONGEST_ANSWER = 16384


class Answer:
    """Status, body, and the seconds of `Retry-After` or None."""

    def __init__(self, status, body, retry_after):
        self.status, self.body, self.retry_after = status, body, retry_after


class Gateway:
    """HTTP listener of the gateway at `url`, such as `https://gateway.example.com:8443`."""

    def __init__(self, url, trusted):
        scheme, _, rest = url.partition("://")
        if scheme not in ("http", "https"):
            raise ValueError("api_url has to begin with http:// or https://")
        self.tls, self.trusted = scheme == "https", trusted
        host, _, port = rest.rstrip("/").partition(":")
        self.host, self.port = host, int(port or (443 if self.tls else 80))

    async def heartbeat(self, token, payload):
        """Send a heartbeat. The answer has the open commands."""
        return await self._post("/v1/devices/me/heartbeat", token, payload)

    async def acknowledge(self, token, command_id, payload):
        """Acknowledge a command."""
        return await self._post(f"/v1/devices/me/commands/{command_id}/ack", token, payload)

    async def refresh_token(self, token, key):
        """Ask for another token of the binding. Repeated with the same key, the answer is the same."""
        return await self._post("/v1/devices/me/token/refresh", token, b"{}", key)

    async def _post(self, path, token, payload, key=None):
        """Send one request, and return its answer. Raises OSError if no whole answer arrives."""
        reader, writer = await net.connect(self.host, self.port, self.tls, self.trusted)
        try:
            return await asyncio.wait_for(self._ask(reader, writer, path, token, payload, key), ANSWER_SECONDS)
        except (EOFError, IndexError, ValueError, asyncio.TimeoutError) as error:  # IndexError: closed without a word
            raise OSError(f"no answer of the gateway over HTTP: {error!r}")
        finally:
            net.close(writer)

    async def _ask(self, reader, writer, path, token, payload, key):
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "Authorization: Bearer " + token,
            "Content-Type: application/json",
            f"Content-Length: {len(payload)}",
            "Connection: close",
        ]
        if key:
            lines.append("Idempotency-Key: " + key)
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)
        await writer.drain()
        status = int((await reader.readline()).split(b" ", 2)[1])
        headers = await self._headers(reader)
        length = int(headers[b"content-length"]) if b"content-length" in headers else -1
        if not 0 <= length <= LONGEST_ANSWER:
            raise ValueError(f"no length, or more than {LONGEST_ANSWER} bytes")
        body = await reader.readexactly(length) if length else b""
        return Answer(status, body, int(headers[b"retry-after"]) if b"retry-after" in headers else None)

    async def _headers(self, reader):
        found = {}
        for _ in range(64):
            line = (await reader.readline()).strip()
            if not line:
                return found
            name, _, value = line.partition(b":")
            found[name.lower()] = value.strip()
        raise ValueError("too many headers")
