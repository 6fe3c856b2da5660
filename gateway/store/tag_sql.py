"""Index of devices by their tags: a row for each tag of each device that is not deleted.

The row of a device holds its tags as text, sorted and joined by commas. What is shown comes from there, so that showing
a device needs no second table. Code that writes that text, or deletes or restores a device, must update the index here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.store.transaction import Tx, View

COUNTED: Final = 5_000
"""Devices of a tag that are counted to find the rarest; tags of more devices are equally frequent."""
_SEPARATOR: Final = ","
CONDITION: Final = "EXISTS (SELECT 1 FROM device_tags x WHERE x.project_id = ? AND x.tag = ? AND x.device_pk = d.pk)"
"""The device ``d`` has a tag; the values are its project and the tag."""


@dataclass(frozen=True)
class Tagged:
    """The devices that have all of some tags, as a part of a query: ``t.device_pk`` is the device.

    ``source`` are the tables, ``clauses`` and ``values`` what they must meet.
    """

    source: str
    clauses: list[str]
    values: list[Any]


def split(text: str) -> list[str]:
    """Return the tags of a device from the text in its row."""
    return text.split(_SEPARATOR) if text else []


def joined(tags: Iterable[str]) -> str:
    """Return tags as the row of a device holds them."""
    return _SEPARATOR.join(sorted(set(tags)))


def store(tx: Tx, pk: int, before: str, after: str) -> None:
    """Store the tags of a device that is not deleted. Both are texts as its row holds them."""
    old, new = set(split(before)), set(split(after))
    tx.run("UPDATE devices SET tags = ? WHERE pk = ?", after, pk)
    _remove(tx, pk, old - new)
    _add(tx, pk, new - old)


def follow_deletion(tx: Tx, pk: int, *, deleted: bool) -> None:
    """Take a deleted device out of the index, or put a restored one back."""
    tags = split(tx.value("SELECT tags FROM devices WHERE pk = ?", pk))
    _remove(tx, pk, tags)
    if not deleted:
        _add(tx, pk, tags)


def _remove(tx: Tx, pk: int, tags: Iterable[str]) -> None:
    project_id = "(SELECT project_id FROM devices WHERE pk = ?)"
    statement = f"DELETE FROM device_tags WHERE project_id = {project_id} AND tag = ? AND device_pk = ?"  # noqa: S608 - constants
    tx.run_many(statement, [(pk, tag, pk) for tag in sorted(tags)])


def _add(tx: Tx, pk: int, tags: Iterable[str]) -> None:
    statement = (
        "INSERT INTO device_tags (project_id, tag, device_pk) SELECT project_id, ?, pk FROM devices WHERE pk = ?"
    )
    tx.run_many(statement, [(tag, pk) for tag in sorted(tags)])


def rarest_first(view: View, project_id: str, tags: Iterable[str], most: int = COUNTED) -> list[str]:
    """Return these tags, each once, that of the fewest devices first; at most ``most`` of each are counted."""
    wanted = list(dict.fromkeys(tags))
    if len(wanted) > 1:
        wanted.sort(key=lambda tag: count(view, tagged(project_id, [tag]), most))
    return wanted


def count(view: View, devices: Tagged, most: int) -> int:
    """Return how many devices these are, at most ``most``."""
    found = f"SELECT 1 FROM {devices.source} WHERE {' AND '.join(devices.clauses)} LIMIT ?"  # noqa: S608 - our own clauses
    number: int = view.value(f"SELECT count(*) FROM ({found}) AS found", *devices.values, most)  # noqa: S608 - the same
    return number


def some(view: View, devices: Tagged, most: int) -> list[int]:
    """Return the row numbers of these devices, at most ``most``."""
    found = f"SELECT t.device_pk FROM {devices.source} WHERE {' AND '.join(devices.clauses)} LIMIT ?"  # noqa: S608 - our own clauses
    return [row[0] for row in view.all(found, *devices.values, most)]


def tagged(project_id: str, tags: Sequence[str], newest: int | None = None) -> Tagged:
    """Return the devices with all of these tags; at least one is given, the rarest first.

    They are found in the order of their row numbers, by the first tag. ``newest`` limits how many of that tag count.
    The tables are joined in the order in which they are written: SQLite keeps to that in a CROSS JOIN.
    """
    first, values = "device_tags t", [project_id, tags[0]]
    clauses = ["t.project_id = ?", "t.tag = ?"]
    if newest is not None:
        chosen = "SELECT device_pk FROM device_tags WHERE project_id = ? AND tag = ? ORDER BY device_pk DESC LIMIT"
        first, clauses = f"({chosen} {newest}) t", []
    others = [f"t{number}" for number in range(1, len(tags))]
    for other, tag in zip(others, tags[1:], strict=True):
        clauses += [f"{other}.project_id = ?", f"{other}.tag = ?", f"{other}.device_pk = t.device_pk"]
        values += [project_id, tag]
    return Tagged(" CROSS JOIN ".join([first, *(f"device_tags {other}" for other in others)]), clauses, values)
