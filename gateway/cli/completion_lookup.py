"""What the gateway has, for shells that complete an argument."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from gateway.cli import expected_in
from gateway.cli.api import PAGE, Json, Place, at
from gateway.settings.loading import load

if TYPE_CHECKING:
    from collections.abc import Sequence


def newest(ctx: click.Context, listed: str) -> Sequence[Json]:
    """Return the newest of a list of the API, such as ``devices``; none where no gateway or registry answers."""
    try:
        given = ctx.params
        loaded = load({"data_dir": given.get("data_dir")}, os.environ, given.get("config"))
        place = Place(loaded.settings, given.get("url"), given.get("project"), given.get("ca_file"))
        found: list[Json] = place.run(lambda api: api.get(at(listed), limit=PAGE))["data"]
    except Exception as error:
        if expected_in(error) is None and not isinstance(error, click.ClickException):
            raise
        return ()
    return found
