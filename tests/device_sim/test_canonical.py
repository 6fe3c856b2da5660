"""Canonical JSON as firmware would write it, against the RFC's own samples and a library of others."""

from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from device_sim.canonical import canonical, params_digest

_NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
_VALUES = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(_VALUES)
def test_canonical_json_equals_that_of_another_library(value: Any) -> None:
    """Byte for byte, whatever JSON can hold."""
    assert canonical(value).encode() == rfc8785.dumps(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [  # RFC 8785, appendix B, and around the limits of ECMAScript's plain form
        (0.0, "0"),
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (-5e-324, "-5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740992.0, "9007199254740992"),
        (295147905179352830000.0, "295147905179352830000"),
        (1e21, "1e+21"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (999999999999999700000.0, "999999999999999700000"),
        (1e-6, "0.000001"),
        (9.999999999999997e-7, "9.999999999999997e-7"),
        (333333333.3333332, "333333333.3333332"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (100, "100"),
    ],
)
def test_numbers_are_written_as_in_ecmascript(value: float, text: str) -> None:
    """The shortest form that reads back, without an exponent from 1e-6 up to 1e21."""
    assert canonical(value) == text


def test_names_are_sorted_by_their_utf_16_units() -> None:
    """RFC 8785, 3.2.3: so the emoji comes before the Hebrew letter, whose code point is smaller."""
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    order = "".join(
        rfc8785.dumps(name).decode() + ":0,"
        for name in ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    )
    assert canonical(dict.fromkeys(names, 0)) == "{" + order[:-1] + "}"


@pytest.mark.parametrize(
    "value", [2**53, -(2**53), float("nan"), float("inf"), "\ud800", {"\udc00": 1}, object(), {1: 2}]
)
def test_values_without_a_canonical_form_are_refused(value: Any) -> None:
    """It is refused, and nothing else happens."""
    with pytest.raises((ValueError, AttributeError)):
        params_digest({"value": value})
