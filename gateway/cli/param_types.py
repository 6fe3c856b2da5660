"""Types of option values: durations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import click

from gateway.core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, system_clock, to_rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNIT_MS: Final[Mapping[str, int]] = {"s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
_DURATION: Final = re.compile(r"(0)|([0-9]{1,9})([smhdw])")
_LONGEST_MS: Final = 100 * 365 * _UNIT_MS["d"]


class Duration(click.ParamType[int]):
    """``90s``, ``45m``, ``24h``, ``30d``, ``2w``, and ``0``; as milliseconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it."""
        if isinstance(value, int):
            return value
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"'{value}' should be a number with a unit: 90s, 45m, 24h, 30d or 2w", param, ctx)
        milliseconds = 0 if found[1] else int(found[2]) * _UNIT_MS[found[3]]
        if milliseconds > _LONGEST_MS:
            self.fail(f"'{value}' should be 100 years at most", param, ctx)
        return milliseconds


class Expiry(Duration):
    """A duration, or ``never``, which is ``NEVER``."""

    name = "expiry"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse it."""
        return NEVER if value == "never" else super().convert(value, param, ctx)


class Moment(click.ParamType[str]):
    """An instant by RFC 3339, or how long ago it was, such as ``30d``; as RFC 3339."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Parse a duration. Another text is passed on: the API says what is wrong with it."""
        text = str(value)
        if _DURATION.fullmatch(text) is None:
            return text
        return to_rfc3339(system_clock() - DURATION.convert(text, param, ctx))


class Later(click.ParamType[str]):
    """An instant by RFC 3339, or a time from now on, such as ``in 2h`` or ``2h``; as RFC 3339."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Parse a duration. Another text is passed on: the API says what is wrong with it."""
        text = str(value).strip()
        distance = text.removeprefix("in ").strip()
        if _DURATION.fullmatch(distance) is None:
            return text
        return to_rfc3339(system_clock() + DURATION.convert(distance, param, ctx))


NEVER: Final = -1
DURATION: Final = Duration()
EXPIRY: Final = Expiry()
MOMENT: Final = Moment()
LATER: Final = Later()
