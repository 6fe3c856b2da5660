"""The rule for names holds for all of Unicode; what is printed is escaped and isolated."""

import random
import unicodedata

from gateway.core.visible_text import escaped, is_visible, isolated

SEED = 32


def test_control_and_bidi_characters_are_refused() -> None:
    """By Unicode's own tables, and not by our list: categories Cc, Zl and Zp, and the explicit directions."""
    explicit = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    for code in (*range(0xD800), *range(0xE000, 0x110000)):
        character = chr(code)
        bad = unicodedata.category(character) in ("Cc", "Zl", "Zp") or unicodedata.bidirectional(character) in explicit
        assert not (bad and is_visible(f"ب{character}")), f"U+{code:04X}"


def test_escaped_text_is_visible() -> None:
    """Whatever stands in an older name: the terminal gets nothing that moves, hides or turns."""
    rng = random.Random(SEED)  # noqa: S311 - a test
    for _ in range(500):
        text = "".join(chr(rng.choice((rng.randrange(0x80), rng.randrange(0x2000, 0x2070)))) for _ in range(20))
        assert is_visible(escaped(text).replace("\u200c", "").replace("\u200d", "")), f"seed {SEED}: {text!r}"
    assert escaped("a\x1b\u202eb\U000e0041") == "a\\x1b\\u202eb\\U000e0041"


def test_only_text_from_right_to_left_is_isolated() -> None:
    """A program that reads a table finds every other name as it is."""
    assert isolated("Bett 2 🛏") == "Bett 2 🛏"
    assert isolated("חדר 2") == "\u2068חדר 2\u2069"
