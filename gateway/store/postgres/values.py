"""Rows and values between psycopg and the store: as SQLite gives and takes them."""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

from psycopg.adapt import Loader
from psycopg.types.numeric import IntDumper
from psycopg.types.string import StrDumper

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg
    from psycopg.abc import Buffer


class PostgresRow(tuple[Any, ...]):
    """A row: its values by name, by place, and in order."""

    __slots__ = ()
    places: dict[str, int]

    def __getitem__(self, key: Any) -> Any:
        """Return a value by its name or place."""
        return super().__getitem__(self.places[key] if isinstance(key, str) else key)

    def keys(self) -> list[str]:
        """Return the names."""
        return list(self.places)


@cache
def _row_type(columns: tuple[bytes | None, ...]) -> type[PostgresRow]:
    places = {(name or b"").decode(): place for place, name in enumerate(columns)}
    return type("Row", (PostgresRow,), {"__slots__": (), "places": places})


def row_factory(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], Any]:
    """Return what makes a row of a query with these columns.

    The names come from the result itself. ``cursor.description`` makes an object for each column of each result.
    """
    result = cursor.pgresult
    if result is None or not result.nfields:
        return tuple
    return _row_type(tuple(map(result.fname, range(result.nfields))))


def rows_of(cursor: psycopg.Cursor[Any]) -> list[Any]:
    """Return the rows of the present result; none of a statement that returns no rows."""
    result = cursor.pgresult
    return cursor.fetchall() if result is not None and result.nfields else []


def register_types(raw: psycopg.Connection[Any]) -> None:
    """Have a connection convert values as the store expects."""
    raw.adapters.register_dumper(bool, _BoolDumper)
    raw.adapters.register_dumper(Enum, _EnumDumper)
    raw.adapters.register_loader("numeric", _NumberLoader)


class _BoolDumper(IntDumper):
    """Flags are stored as 0 and 1, as SQLite has them."""

    def dump(self, obj: Any) -> Buffer | None:
        """Return 0 or 1."""
        return b"1" if obj else b"0"

    def quote(self, obj: Any) -> Buffer:
        """Return 0 or 1."""
        return b"1" if obj else b"0"


class _EnumDumper(StrDumper):
    """A member of an enum is stored as its value."""

    def dump(self, obj: Any) -> Buffer | None:
        """Return the value."""
        return super().dump(str(obj.value))


class _NumberLoader(Loader):
    """A number comes back as it was stored: whole, or with a fraction."""

    def load(self, data: Buffer) -> int | float:
        """Return an integer where the text has no point."""
        text = bytes(data).decode()
        return float(text) if "." in text or text == "NaN" else int(text)
