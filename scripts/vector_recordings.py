"""Vectors of the params of a reset: what happens to the recordings of the device."""

from collections.abc import Iterator
from typing import Any

from vector_grants import GENERATION, INVALID, case, claims, par, payload, token

INVALID_PARAMS = "invalid_params"
ON_DEVICE = {"rec_a": GENERATION - 2, "rec_b": GENERATION, "rec_c": GENERATION}
KEEP, WIPE = {"recordings": "keep"}, {"recordings": "wipe"}


def recordings() -> Iterator[dict[str, Any]]:
    """Yield resets of a device with recordings, two of its own binding and one of an earlier owner."""
    yield from _obeyed()
    yield from _changed()
    yield from _unknown()


def _obeyed() -> Iterator[dict[str, Any]]:
    wiped: dict[str, Any] = {"recordings": {"wiped": 3, "kept": 0}, "left": {}}
    kept = {"recordings": {"wiped": 0, "kept": 3}, "left": ON_DEVICE}
    for name, about, params, executed in (
        ("keep", "recordings are to be kept", KEEP, kept),
        ("wipe", "recordings are to be wiped, those of earlier bindings, too", WIPE, wiped),
        ("absent", "nothing is said of recordings: they are kept", {}, kept),
        ("wipe_and_more", "with a member that this firmware does not know", {**WIPE, "later": [1]}, wiped),
        ("keep_and_more", "the same with keep", {**KEEP, "later": None}, kept),
    ):
        more = {"recordings": ON_DEVICE, "executed": executed}
        yield case(f"recordings_{name}", about, "delivered", _signed(params), **more)
    none = {"recordings": {"wiped": 0, "kept": 0}, "left": {}}
    yield case("recordings_none", "there is nothing to wipe", "delivered", _signed(WIPE), recordings={}, executed=none)
    other = payload(token(claims(cmd="start_recording", par=par(WIPE))), type="start_recording", params=WIPE)
    yield case("recordings_other_type", "another command has such a param", "delivered", other, topic="start_recording")


def _changed() -> Iterator[dict[str, Any]]:
    for name, about, signed, arrives in (
        ("keep_to_wipe", "keep, changed to wipe on the way", KEEP, WIPE),
        ("wipe_to_keep", "wipe, changed to keep", WIPE, KEEP),
        ("wipe_removed", "wipe, removed", WIPE, {}),
        ("keep_removed", "keep, removed: the same effect, and still not what was signed", KEEP, {}),
        ("wipe_added", "wipe, added to a reset that says nothing", {}, WIPE),
        ("wipe_beside_more", "a member added beside wipe", WIPE, {**WIPE, "later": [1]}),
        ("other_case", "the value in capitals", WIPE, {"recordings": "WIPE"}),
    ):
        said = payload(token(claims(par=par(signed))), params=arrives)
        yield case(f"recordings_{name}", about, INVALID, said, recordings=ON_DEVICE)
    for name, params in (("keep", KEEP), ("wipe", WIPE)):
        said = payload(token(claims(par=None)), params=params)
        yield case(f"recordings_{name}_no_par", f"{name}, and no par", INVALID, said, recordings=ON_DEVICE)


def _unknown() -> Iterator[dict[str, Any]]:
    for name, about, value in (
        ("unknown", "another word, signed", "erase"),
        ("capitals", "the word in capitals, signed", "WIPE"),
        ("empty", "an empty string, signed", ""),
        ("null", "null, signed", None),
        ("true", "true, signed", True),
        ("list", "the word in a list, signed", ["wipe"]),
    ):
        said = _signed({"recordings": value})
        yield case(f"recordings_{name}", about, INVALID_PARAMS, said, recordings=ON_DEVICE)


def _signed(params: dict[str, Any]) -> str:
    return payload(token(claims(par=par(params))), params=params)
