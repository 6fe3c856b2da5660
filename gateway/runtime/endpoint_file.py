"""Endpoint file of a running gateway. The gateway writes it into its data directory; the command line reads it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gateway.core.addresses import Address
from gateway.runtime.private_files import replace_text

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE_NAME: Final = "gateway.url"


@dataclass(frozen=True)
class Endpoints:
    """The base URL of the HTTP API, and the broker address that devices get.

    - ``certificate``: the file of the certificate that HTTPS shows. A reader of the data directory needs no authority.
    - ``inner``: where a managed broker accepts the gateway's own clients; ``inner_certificate``: its certificate there.
    - ``kind``: the broker in use: ``embedded``, ``mosquitto`` or ``external``.
    - ``version``: the gateway's version, with its commit where that is known.
    """

    http_url: str
    broker: Address
    tls: bool
    certificate: Path | None = None
    inner: Address | None = None
    inner_certificate: Path | None = None
    kind: str = ""
    version: str = ""

    def __str__(self) -> str:
        lines = [self.http_url, f"{'mqtts' if self.tls else 'mqtt'}://{self.broker}"]
        lines += [f"certificate {self.certificate}"] if self.certificate else []
        lines += [f"inner {self.inner}"] if self.inner else []
        lines += [f"inner_certificate {self.inner_certificate}"] if self.inner_certificate else []
        lines += [f"kind {self.kind}"] if self.kind else []
        lines += [f"version {self.version}"] if self.version else []
        return "\n".join(lines) + "\n"


@contextlib.contextmanager
def published(data_dir: Path, whereabouts: Endpoints) -> Iterator[None]:
    """Keep the file for as long as the block runs. After a ``kill -9`` it stays, but nothing answers there."""
    file = data_dir / FILE_NAME
    replace_text(file, str(whereabouts), mode=0o644)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()


def read(data_dir: Path) -> Endpoints | None:
    """Return what the file says, or None when no gateway runs or the file cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        http_url, broker, *others = (data_dir / FILE_NAME).read_text(encoding="utf-8").splitlines()
        parts, more = urlsplit(broker), dict(line.split(" ", 1) for line in others)
        return Endpoints(
            http_url,
            Address.parse(parts.netloc),
            parts.scheme == "mqtts",
            Path(more["certificate"]) if "certificate" in more else None,
            Address.parse(more["inner"]) if "inner" in more else None,
            Path(more["inner_certificate"]) if "inner_certificate" in more else None,
            more.get("kind", ""),
            more.get("version", ""),
        )
    return None
