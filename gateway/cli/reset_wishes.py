"""Options of a factory reset: its reason, and what is done with the recordings."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.cli.api import Json

FunctionT = TypeVar("FunctionT", bound="Callable[..., object]")


def reset_options(function: FunctionT) -> FunctionT:
    """Add ``--reason`` and ``--recordings``."""
    for option in (
        click.option(
            "--recordings",
            type=click.Choice(["keep", "wipe"]),
            help="What the device does with its recordings.  [default: keep]",
        ),
        click.option(
            "--reason", metavar="TEXT", help="Why, for audit trail and certificate, at most 200 characters; no names."
        ),
    ):
        function = option(function)
    return function


def wishes(reason: str | None, recordings: str | None) -> Json:
    """Return the fields of the request that were given."""
    given = {"reason": reason, "recordings": recordings}
    return {name: value for name, value in given.items() if value is not None}
