"""Typed records: what a query of the registry returns.

A record is a named tuple with a field for each column of its query, in the order of the query. It holds what the
database holds: times are milliseconds since the epoch, documents are JSON text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

R = TypeVar("R", bound=NamedTuple)

FIRST_BROKER: Final = 1
"""The number of the first broker of each registry."""


class DeviceKey(Protocol):
    """What events need of a device; every record of a device has it."""

    @property
    def pk(self) -> int:
        """The row number."""

    @property
    def id(self) -> str:
        """The id."""

    @property
    def project_id(self) -> str:
        """The id of its project."""


class DeviceName(NamedTuple):
    """A device by row number, id and project."""

    pk: int
    id: str
    project_id: str


def columns(kind: type[NamedTuple], table: str, **others: str) -> str:
    """Return what a query selects for this kind of record: columns of one table (its alias), and other expressions."""
    return ", ".join(f"{others[name]} AS {name}" if name in others else f"{table}.{name}" for name in kind._fields)


def make_records(kind: type[R], names: Sequence[str], rows: Iterable[Iterable[Any]]) -> list[R]:
    """Return a record for each row of a query whose columns have these names.

    Raises:
        TypeError: the query has other columns than the record, or another order.
    """
    if tuple(names) != kind._fields:
        raise TypeError(f"{kind.__name__} has the fields {kind._fields}, its query has the columns {tuple(names)}")
    return [kind._make(row) for row in rows]
