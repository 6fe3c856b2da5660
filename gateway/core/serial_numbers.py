"""Serial numbers: what a person reads as one and the same is one and the same.

``é`` can be one character or two (Unicode, UAX #15), and both look alike on a label. So a serial number is kept in
normal form C, without blanks around it. It is never of the form of a device's id: a command that takes either would
mean another device by it.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from gateway.core import ids
from gateway.core.visible_text import visible_not_blank

LONGEST: Final = 128


def normalised(text: str) -> str:
    """Return the text in normal form C, without blanks around it."""
    return unicodedata.normalize("NFC", text.strip())


def serial_number(text: str) -> str:
    """Return a new serial number as it is kept.

    Raises:
        ValueError: it cannot be seen as it is, is too long in normal form, or looks like a device's id.
    """
    kept = normalised(visible_not_blank(text))
    if ids.is_id(ids.DEVICE, kept):
        raise ValueError("should not look like the id of a device. Take one that does not begin with dev_")
    if len(kept) > LONGEST:
        raise ValueError(f"should have at most {LONGEST} characters in Unicode's normal form C. Shorten it")
    return kept


def forms(text: str) -> tuple[str, ...]:
    """Return what a device may be kept under that somebody calls so: in normal form, or as it came from before."""
    return tuple(dict.fromkeys((text, normalised(text))))
