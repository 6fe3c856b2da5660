"""Short forms of ids in indexes.

The id of a project has 31 characters, and that of a signing key 43. An index of devices or tokens would repeat it in
each entry. So these indexes hold a few of its random characters instead. Two ids hardly ever have the same ones. So
a query compares the short form, which the index serves, and the whole id as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.store.dialect import SqlDialect

_SHORT: Final = {"project_id": "substr({}, 26)", "grant_kid": "substr({}, 1, 8)"}
"""The last six characters of a ULID are random, and so are all of a thumbprint."""


def short(column: str, value: str) -> str:
    """Return the short form of a value that is an id as this column has it."""
    return _SHORT[column.rpartition(".")[2]].format(value)


def like(column: str, value: str = "?") -> str:
    """Return the condition that a column has the short form of an id. Some rows may have another id."""
    return f"{short(column, column)} = {short(column, value)}"


def same(dialect: SqlDialect, column: str, value: str) -> str:
    """Return the condition that a column has an id; the index of its short form serves it.

    ``value`` occurs twice, such as ``?1``. SQLite is kept from the index of serial numbers, which has the whole id.
    """
    return f"{like(column, value)} AND {dialect.unindexed(column)} = {value}"
