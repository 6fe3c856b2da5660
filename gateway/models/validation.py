"""What is wrong with what came in, in words for the person who sent it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from gateway.core import ids
from gateway.core.redaction import redact
from gateway.errors import InvalidRequestError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_MOST_PROBLEMS: Final = 20
_FIELD_LENGTH: Final = 128
_NUMBER_MEMBERS: Final = frozenset({"int", "float", "constrained-int", "constrained-float"})
_NAMED_BY_SENDER: Final = "extra_forbidden"
_SENTENCES: Final[Mapping[str, str]] = {
    _NAMED_BY_SENDER: "unknown field. Remove it, or check its spelling.",
    "missing": "is missing. It is required.",
    "bool_type": "should be true or false.",
    "finite_number": "should be a finite number.",
    "int_parsing": "should be a whole number.",
}
_PATTERN: Final = "String should match pattern "
NO_NUL: Final = r"^[^\x00]*$"
"""What any text has to match: SQLite would cut it at a NUL."""
TAG: Final = r"^[A-Za-z0-9_.:-]{1,64}$"
"""What a tag of a device has to match (contract, section 8)."""
_IDS: Final = (ids.DEVICE, ids.END_USER, ids.EVENT)
_PATTERNS: Final[Mapping[str, str]] = {
    NO_NUL: "should not contain a NUL character.",
    TAG: "should be 1 to 64 of the letters A-Z and a-z, digits and '_.:-', without a comma or a blank.",
    **{f"^{prefix}{ids.BODY}$": f"should be '{prefix}' and 1 to 64 letters and digits." for prefix in _IDS},
}
_PREFIXES: Final = ("Value error, ", "Input ", "String ", "List ")


def invalid(
    error: ValidationError, *, whole: str, within: str | None = None, known: Iterable[str] = ()
) -> InvalidRequestError:
    """Return the error that names each wrong field, dotted.

    ``whole`` names the input where no field of it is to blame. ``within`` is the field that holds all of it. ``known``
    are valid names, to suggest one for an unknown name.
    """
    details = error.errors(include_url=False, include_context=False, include_input=False)
    # Of a number the union of integer and float complains twice: the last complaint names both.
    problems = {_field(each, within): _sentence(each, known) for each in details[:_MOST_PROBLEMS]}
    field, sentence = next(iter(problems.items()))
    return InvalidRequestError(
        f"{field or whole}: {sentence}",
        details={"field": field, "problems": [{"field": name, "message": text} for name, text in problems.items()]},
    )


def _field(problem: ErrorDetails, within: str | None) -> str | None:
    """Its dotted name; that of an unknown field is the sender's, so a secret perhaps, or 60,000 characters."""
    path = [str(part) for part in problem["loc"]]
    if path and path[-1] in _NUMBER_MEMBERS and problem["type"] != _NAMED_BY_SENDER:
        del path[-1]  # no field, but the member of the union that complains
    return redact(".".join(part for part in (within, *path) if part))[:_FIELD_LENGTH] or None


def _sentence(problem: ErrorDetails, known: Iterable[str]) -> str:
    sentence = _SENTENCES.get(problem["type"])
    if problem["type"] == _NAMED_BY_SENDER and len(problem["loc"]) == 1:
        near = difflib.get_close_matches(str(problem["loc"][0])[:_FIELD_LENGTH], list(known), n=1)
        return f"unknown field. Did you mean '{near[0]}'?" if near else _SENTENCES[_NAMED_BY_SENDER]
    if sentence is not None:
        return sentence
    pattern = problem["msg"].removeprefix(_PATTERN).strip("'")
    if pattern in _PATTERNS:
        return _PATTERNS[pattern]
    text = _without_subject(problem["msg"])
    return f"{text}." if text.startswith("should") else f"is not valid: {text}."


def _without_subject(text: str) -> str:
    """What pydantic says, without what it calls the thing: the field is named before."""
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    return text.replace("Invalid JSON: ", "should be JSON, and cannot be read: ").replace(
        " after validation, not", ", has"
    )
