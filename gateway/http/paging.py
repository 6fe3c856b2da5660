"""Pages of lists: as many rows as were requested, within the maximum size of an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from pydantic import BaseModel

from gateway.errors import InvalidRequestError

M = TypeVar("M", bound=BaseModel)
R = TypeVar("R")

MAX_ANSWER_BYTES: Final = 1_048_576
"""Maximum size of a body, except a page of devices."""
_FRAME_BYTES: Final = 4_096
"""Room for what surrounds the rows: brackets, ``has_more``, ``next_cursor``."""


def fitting(
    rows: Sequence[R], limit: int, to_model: Callable[[R], M], most_bytes: int = MAX_ANSWER_BYTES
) -> tuple[list[M], bool]:
    """Return the models of a page, and whether there is more.

    One row more than ``limit`` shows that there is another page. A page that would be too long ends earlier. The next
    begins where it ended, since it goes by a cursor.
    """
    shown: list[M] = []
    room = most_bytes - _FRAME_BYTES
    for row in rows[:limit]:
        model = to_model(row)
        room -= len(model.model_dump_json().encode()) + 1
        if room < 0:
            break
        shown.append(model)
    return shown, len(rows) > len(shown)


def require_forwards(since: datetime | None, until: datetime | None, item: str) -> None:
    """Check a period; ``item`` is what would lie within it.

    Raises:
        InvalidRequestError: it ends before it begins.
    """
    if since is not None and until is not None and since > until:
        raise InvalidRequestError(
            f"until: is before 'since', so no {item} can lie between them. Swap them, or leave one out.",
            details={"field": "until"},
        )
