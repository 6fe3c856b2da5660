"""Escape of untrusted text for a terminal: control and invisible characters of brokers, gateways and flash files."""

import unicodedata

_NOT_SHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"
"""Joiners that shape the character before them, in emoji, Persian and Indic scripts."""
_EMPTY = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u2800\u3164\uffa0")
"""Letters, marks and a symbol that are invisible."""


def escaped(text: str) -> str:
    """Return the text with Python escapes for characters that are invisible or change the text direction."""
    return "".join(_escape(ord(each)) if _is_hidden(each) else each for each in text)


def _is_hidden(character: str) -> bool:
    if character in _JOINERS:
        return False
    return unicodedata.category(character) in _NOT_SHOWN or character in _EMPTY


def _escape(code: int) -> str:
    if code < 0x100:  # noqa: PLR2004  # two hexadecimal digits
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004  # four
