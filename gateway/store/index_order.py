"""Devices of a project in the order of their registration, as the indexes that begin with the project have them.

SQLite reads such an index where the project is compared for equality. PostgreSQL may read the primary key instead, in
the hope that many of its rows are of the project. Beside a large project that was filled later it reads all of that.
So it gets rows of two values to compare and to sort by, which the primary key does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.models.fields import MAX_NUMBER
from gateway.store import short_ids
from gateway.store.dialect import POSTGRESQL

if TYPE_CHECKING:
    from gateway.store.dialect import SqlDialect


@dataclass(frozen=True)
class OfProject:
    """Conditions and order for the devices of a project. Some may be of another: the whole id decides.

    ``column`` narrows them to those with a value, which the index has after the project. ``table`` is the name of
    ``devices`` in the query, with a dot behind it, or nothing.
    """

    dialect: SqlDialect
    project_id: str
    table: str = "d."
    column: str | None = None
    value: str | None = None

    def within(self, first: int = 0, last: int = MAX_NUMBER) -> tuple[list[str], list[Any]]:
        """Return the conditions for the devices from one row number to another, and their values."""
        columns, marks = self._columns(), [short_ids.short("project_id", "?"), *["?"] * (self.column is not None)]
        values = [self.project_id, *[self.value] * (self.column is not None)]
        if self.dialect is POSTGRESQL:
            row, bound = ", ".join([*columns, f"{self.table}pk"]), ", ".join([*marks, "?"])
            return [f"({row}) >= ({bound})", f"({row}) <= ({bound})"], [*values, first, *values, last]
        bounds = {f"{self.table}pk >= ?": first} if first else {}
        bounds |= {f"{self.table}pk <= ?": last} if last < MAX_NUMBER else {}
        fixed = [f"{column} = {mark}" for column, mark in zip(columns, marks, strict=True)]
        return [*fixed, *bounds], [*values, *bounds.values()]

    def order(self, direction: str = "ASC") -> str:
        """Return the order by row numbers."""
        leading = self._columns() if self.dialect is POSTGRESQL else []
        return ", ".join(f"{column} {direction}" for column in (*leading, f"{self.table}pk"))

    def _columns(self) -> list[str]:
        project = short_ids.short("project_id", f"{self.table}project_id")
        return [project] if self.column is None else [project, f"{self.table}{self.column}"]
