"""Where a running gateway can be reached: it says so in its data directory, and the command line reads it there."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gateway.addresses import Address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE_NAME: Final = "gateway.url"


@dataclass(frozen=True)
class Whereabouts:
    """The base URL of the HTTP API, and the broker that devices are told."""

    http_url: str
    broker: Address
    tls: bool

    def __str__(self) -> str:
        return f"{self.http_url}\n{'mqtts' if self.tls else 'mqtt'}://{self.broker}\n"


@contextlib.contextmanager
def published(data_dir: Path, whereabouts: Whereabouts) -> Iterator[None]:
    """Have the file there for as long as the block runs. After a ``kill -9`` it stays, and nobody answers there."""
    file, draft = data_dir / FILE_NAME, data_dir / f"{FILE_NAME}.new"
    draft.write_text(str(whereabouts), encoding="utf-8")
    draft.replace(file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()


def read(data_dir: Path) -> Whereabouts | None:
    """What the file says; ``None`` when no gateway runs, or when it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        http_url, broker = (data_dir / FILE_NAME).read_text(encoding="utf-8").split()
        parts = urlsplit(broker)
        return Whereabouts(http_url, Address.parse(parts.netloc), parts.scheme == "mqtts")
    return None
