"""``KEY=VALUE`` on the command line: a value that parses as JSON is that, every other one is text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

EXPLAINED: Final = """VALUE is read as JSON (20, true, null, ["wifi"]) and taken as text where it is not JSON. Text that
looks like JSON goes into quotes: 'room="3.12"'."""


class KeyValue(click.ParamType[tuple[str, Any]]):
    """One ``KEY=VALUE``, as a pair."""

    name = "key=value"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Parse it."""
        if isinstance(value, tuple):
            return value
        key, sign, text = str(value).partition("=")
        if not sign or not key:
            self.fail(f"'{value}' should be KEY=VALUE", param, ctx)
        try:
            return key, json.loads(text)
        except (ValueError, RecursionError):
            return key, text


KEY_VALUE: Final = KeyValue()


def nested(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return ``a.b=1`` and ``a.c=2`` as ``{"a": {"b": 1, "c": 2}}``.

    Raises:
        click.UsageError: a name is given a value and members at once.
    """
    whole: dict[str, Any] = {}
    for path, value in pairs:
        *above, last = path.split(".")
        place = whole
        for name in above:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise click.UsageError(f"{path}: {name} has a value already. Give it a value or members, not both.")
        if isinstance(place.get(last), dict) and place[last]:
            raise click.UsageError(f"{path} has members already. Give it a value or members, not both.")
        place[last] = value
    return whole
