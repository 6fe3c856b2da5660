"""Registration of schema steps: the decorator and the list that it fills."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlite_utils import Database

    Step = Callable[[Database], None]

STEPS: Final[list[Step]] = []
"""Every schema step, in the order in which a registry applies them."""


def step(function: Step) -> Step:
    """Register a function as the next schema step; the registry remembers the step by the function's name."""
    STEPS.append(function)
    return function


def execute_each(db: Database, *statements: str) -> None:
    """Execute these statements, in order."""
    for statement in statements:
        db.execute(statement)
