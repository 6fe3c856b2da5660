"""Choice of the media type of an answer by the header ``Accept`` (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from gateway.errors import GatewayError

ACCEPT: Final = "Accept"
VARY: Final = {"Vary": ACCEPT}
"""Header of an answer whose media type was chosen: a cache keeps one for each ``Accept``."""
_MOST_RANGES: Final = 50


class NotAcceptableError(GatewayError):
    """The caller accepts none of the media types that the answer may have."""

    code = "not_acceptable"

    def __init__(self, offered: Sequence[str]) -> None:
        super().__init__(
            f"{ACCEPT}: names no media type that is offered here. Send one of {', '.join(offered)}, or leave it out.",
            details={"field": ACCEPT, "offered": list(offered)},
        )


def choose(accept: str | None, offered: Sequence[str]) -> str:
    """Return the offered media type that the caller likes best; the first of them where it likes several equally.

    Raises:
        NotAcceptableError: it accepts none of them.
    """
    if not accept or not accept.strip():
        return offered[0]
    ranges = list(_ranges(accept))
    best = max(offered, key=lambda each: _quality(each, ranges))
    if _quality(best, ranges) <= 0:
        raise NotAcceptableError(offered)
    return best


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Return the quality of the most specific range that fits; 0 without one."""
    wanted = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    for each in wanted:
        fitting = [quality for name, quality in ranges if name == each]
        if fitting:
            return max(fitting)
    return 0.0


def _ranges(accept: str) -> Iterator[tuple[str, float]]:
    """Yield each range with its quality. A quality that is no number from 0 to 1 counts as 0."""
    for each in accept.split(",")[:_MOST_RANGES]:
        name, _, parameters = each.partition(";")
        yield name.strip().lower(), _q(parameters)


def _q(parameters: str) -> float:
    for each in parameters.split(";"):
        name, _, value = each.partition("=")
        if name.strip().lower() == "q":
            return _number(value.strip())
    return 1.0


def _number(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0
