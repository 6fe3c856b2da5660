"""Validation of names that people read: no control, bidirectional or invisible characters, no surrounding blanks.

A name with U+202E reverses the sentence around it: "Reset X, bound to Y?" then reads as another question. A name with
an invisible character looks like another device's name. Both are refused where a name is set. Older names are escaped
where they are printed (:func:`escaped`).
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_CLASS: Final = (
    "\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f"
    "\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u2800\\u3164\\ufeff\\uffa0\\ufff0-\\ufffb"
    "\U00013430-\U00013438\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Unicode's controls, line and paragraph separators, bidirectional controls and default-ignorable characters."""
_JOINERS: Final = "\\u200c\\u200d\\ufe00-\\ufe0f"
"""Joiners shape the character before them in emoji, Persian and Indic scripts. After ASCII they are invisible."""
_REFUSED: Final = re.compile(f"[{_CLASS}]|(?:^|(?<=[\\u0000-\\u007f]))[{_JOINERS}]")
_ESCAPED: Final = re.compile(f"[{_CLASS}\\ud800-\\udfff]")
_LAYOUT: Final = "\n\t"
_RIGHT_TO_LEFT: Final = frozenset({"R", "AL", "AN"})
_CONTROL_NAMES: Final = {"\0": "NULL", "\t": "TAB", "\n": "LINE FEED", "\r": "CARRIAGE RETURN", "\x1b": "ESCAPE"}
_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"


def visible(text: str) -> str:
    """Return the text without surrounding blanks.

    Raises:
        ValueError: a character is invisible or changes the order of the text; the message names it.
    """
    found = _REFUSED.search(text)
    if found is not None:
        raise ValueError(
            f"should not contain {_named(found.group())} (position {found.start() + 1}), which cannot be seen or "
            "changes how the text around it reads. Remove it"
        )
    return text.strip()


def visible_not_blank(text: str) -> str:
    """Return the text as :func:`visible` does, and refuse an empty one."""
    kept = visible(text)
    if not kept:
        raise ValueError("should have a character that can be seen")
    return kept


def is_visible(text: str) -> bool:
    """Return whether :func:`visible` accepts the text."""
    return _REFUSED.search(text) is None


def _named(character: str) -> str:
    name = unicodedata.name(character, "") or _CONTROL_NAMES.get(character, "control character")
    return f"U+{ord(character):04X} {name}"


def escaped(text: str) -> str:
    """Return the text with such characters as Python escapes, for a terminal."""
    return _ESCAPED.sub(lambda found: _escape(ord(found.group())), text)


def escaped_lines(text: str) -> str:
    """Return the text as :func:`escaped` does, but keep line feeds and tabs: for our own text that quotes others."""
    return _ESCAPED.sub(lambda found: found.group() if found.group() in _LAYOUT else _escape(ord(found.group())), text)


def _escape(code: int) -> str:
    if code < 0x100:  # noqa: PLR2004 - two hexadecimal digits
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004 - four


def isolated(text: str) -> str:
    """Return the text so that its direction cannot change that of its neighbours (Unicode TR 9, section 2.4.2).

    Only text with right-to-left characters gets the two marks. Other text is printed as it is.
    """
    if text.isascii() or not any(unicodedata.bidirectional(each) in _RIGHT_TO_LEFT for each in text):
        return text
    return f"{_ISOLATE}{text}{_POP_ISOLATE}"
