"""Lists as CSV of any length: a header line, then part by part, so that a file takes the memory of one part."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from gateway.core import csv_text
from gateway.http import negotiation
from gateway.http.responses import Stream

P = TypeVar("P")

ROWS: Final = 200
"""Rows that a CSV reads at a time."""


class CsvPart(NamedTuple, Generic[P]):
    """Some lines of a CSV; ``place`` is where the next ones begin, None at the end."""

    lines: bytes
    place: P | None


def part(rows: Iterable[Iterable[Any]], place: P | None) -> CsvPart[P]:
    """Return these rows as lines. A reader's thread does that, so that other requests do not wait for it."""
    return CsvPart("".join(map(csv_text.line, rows)).encode(), place)


def stream(
    name: str, columns: Sequence[str], first: CsvPart[P], read_on: Callable[[P], Awaitable[CsvPart[P]]]
) -> Stream:
    """Return a file of this name (without its ending) that begins with a part which is read already."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.csv"', **negotiation.VARY}
    return Stream(_parts(columns, first, read_on), csv_text.MEDIA_TYPE, headers, is_finite=True)


async def _parts(
    columns: Sequence[str], now: CsvPart[P], read_on: Callable[[P], Awaitable[CsvPart[P]]]
) -> AsyncGenerator[bytes, None]:
    yield csv_text.line(columns).encode()
    while True:
        yield now.lines
        if now.place is None:
            return
        now = await read_on(now.place)
