"""Serial numbers in normal form: two that look alike are the same one.

``é`` can be one character or two (Unicode, UAX #15), and both look alike on a label. A serial number is therefore kept
in normal form C, without surrounding blanks. It never has the form of a device's id, since commands take either.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from gateway.core import ids
from gateway.core.visible_text import visible_not_blank

LONGEST: Final = 128


def normalised(text: str) -> str:
    """Return the text in normal form C, without surrounding blanks."""
    return unicodedata.normalize("NFC", text.strip())


def serial_number(text: str) -> str:
    """Return a new serial number in the form in which the registry keeps it.

    Raises:
        ValueError: it has invisible characters, is too long in normal form, or looks like a device's id.
    """
    kept = normalised(visible_not_blank(text))
    if ids.is_id(ids.DEVICE, kept):
        raise ValueError("should not look like the id of a device. Take one that does not begin with dev_")
    if len(kept) > LONGEST:
        raise ValueError(f"should have at most {LONGEST} characters in Unicode's normal form C. Shorten it")
    return kept


def forms(text: str) -> tuple[str, ...]:
    """Return the forms in which the registry may hold this serial number: in normal form, and as it was given."""
    return tuple(dict.fromkeys((text, normalised(text))))
