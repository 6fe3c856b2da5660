"""Fuzzing: inputs that almost are what they should be, thrown at whatever parses bytes from outside.

Each target takes bytes, and either holds what it promises or raises. Its share of all inputs (`FUZZ_INPUTS`) is drawn
from `FUZZ_SEED`: every tenth by Hypothesis, in chunks, so that a night of it does not fill the memory, and nine
variants of each by cheaper means (another value in its place, other bytes). What made a target fail is shrunk and
shown; put it into the corpus, a file of JSON strings beside the test (one character per byte): it is tried first.

Property-based rather than coverage-guided: most bytes are taken apart by compiled code (pydantic, httptools, tomllib's
callers), where coverage of Python guides to nothing, and a shrunk input tells more than a long one.
"""

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SEED = int(os.environ.get("FUZZ_SEED", "1"))
INPUTS = int(os.environ.get("FUZZ_INPUTS", "50000"))
CHUNK = 20_000
VARIANTS = 9

TOKEN = "dtok_FuzzFuzzFuzzFuzzFuzzFuzzFuzzFuzz00"
KEY = "sk_live_FuzzFuzzFuzzFuzzFuzzFuzzFuzzFuzz00"
SHOWN = 12
"""Of a secret no prefix that is longer than this may come back (contract, section 1)."""

Check = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """What is fuzzed: its name, its share of all inputs, and what they are like."""

    name: str
    share: float
    inputs: st.SearchStrategy[bytes]

    @property
    def count(self) -> int:
        """How many inputs it gets."""
        return max(1, round(self.share * INPUTS))


def fuzz(target: Target, check: Check, corpus: Path) -> None:
    """Try what once was too much for it, and then its share of new inputs."""
    print(f"{target.name}: {target.count} inputs from seed {SEED}")  # noqa: T201 - to play it again
    for raw in known(corpus):
        check(raw)
    for number, first in enumerate(range(0, target.count, CHUNK)):
        inputs = min(CHUNK, target.count - first)
        _chunk(target, check, SEED * 1_000_003 + number, -(-inputs // (1 + VARIANTS)))


def known(corpus: Path) -> list[bytes]:
    """The inputs in a corpus."""
    texts: list[str] = json.loads(corpus.read_text(encoding="utf-8")) if corpus.exists() else []
    return [text.encode("latin-1") for text in texts]


def _chunk(target: Target, check: Check, number: int, count: int) -> None:
    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs, st.integers(0, 2**32))
    def run(raw: bytes, chance: int) -> None:
        for each in (raw, *_variants(raw, random.Random(chance))):  # noqa: S311 - an input has to come again
            try:
                check(each)
            except BaseException as error:
                error.add_note(f"the input: {each!r}")
                raise

    run()


def leaks(text: str) -> list[str]:
    """Which of the secrets that inputs hold came back in this text."""
    return [secret for secret in (TOKEN, KEY) if secret[: SHOWN + 1] in text]


TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            *(
                "",
                " ",
                "\0",
                "a\0b",
                "\n",
                "null",
                "NaN",
                "-1",
                "1e400",
                "\u202e",
                "😀" * 40,
                "é" * 200,
                "\ud800",
                "..",
                "/",
            ),
            *(
                TOKEN,
                KEY,
                f"x {TOKEN}",
                "dev_A",
                "cmd_A",
                "eu_1",
                "2026-11-01T12:00:00Z",
                "2026-11-01",
                "9" * 40,
                "x" * 70_000,
            ),
            *(
                "0001-01-01T00:00:00+23:59",
                "9999-12-31T23:59:59-23:59",
                "2026-11-01T12:00:00.123456789Z",
                "24:00",
                "true",
            ),
        ]
    ),
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.integers(-3, 300),
    st.floats(),
    st.sampled_from([0, -0.0, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 1e308, 10**30]),
)
_ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2.5, -0.0, 1e300, 10**19, 2**63, -(2**63) - 1, 10**400, float("nan"), float("inf")),
    *(
        "",
        "\0",
        "a\0b",
        "\ud800",
        "x" * 300,
        "😀" * 33,
        TOKEN,
        KEY,
        "executed",
        "online",
        "-1",
        "1e5",
        "2026-11-01T12:00:00Z",
    ),
    *([], {}, [[]], [None], {"": None}, {"a": {"a": {"a": 1}}}, [TOKEN], {TOKEN: 1}, "0001-01-01T00:00:00+23:59"),
)
_HERE = 0.15
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
_ODD = (
    *(
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"a":1}{',
        b"[" * 3_000,
        b'{"a":' * 1_000,
        b'{"a":1,"a":2}',
        b"\xef\xbb\xbf{}",
    ),
    *(
        b'"\\ud800"',
        b"1e999999",
        b"-",
        b'{"battery_percent":1e400}',
        b'{"sent_at":-9e18}',
        b"9" * 5_000,
        b'{"flags":' + b"9" * 500 + b"}",
    ),
)


def objects(fields: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with these fields, now and then one that is missing, of another type, or unknown."""
    some = {name: st.one_of(good, good, good, JSON) for name, good in fields.items()}
    strangers = st.dictionaries(TEXTS, JSON, max_size=1)
    known = st.fixed_dictionaries({}, optional=some)
    return st.one_of(known, known, known, st.builds(lambda one, other: other | one, known, strangers))


def encoded(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Values as JSON, now and then with a few bytes that are others, or something else altogether."""
    written = st.builds(lambda value: json.dumps(value, ensure_ascii=True).encode(), values)
    return st.one_of(written, written, written, mangled(written), st.sampled_from(_ODD), st.binary(max_size=20))


def mangled(raws: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes of which some are replaced, left out, doubled, or cut off."""
    changes = st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 4), st.integers(0, 255)), min_size=1, max_size=3)
    return st.builds(_changed, raws, changes)


def _variants(raw: bytes, rng: random.Random) -> Iterator[bytes]:
    """The same with another value at some place of its JSON, or with a few other bytes."""
    head, newline, body = raw.rpartition(b"\n")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    for number in range(VARIANTS):
        if value and number % 3:
            yield head + newline + json.dumps(_replaced(value, rng)).encode()
        else:
            yield _changed(raw, [(rng.randrange(2_000), rng.randrange(5), rng.randrange(256)) for _ in range(2)])


def _replaced(value: Any, rng: random.Random) -> Any:
    """With one of its leaves, or one of its branches, replaced by something odd, or gone."""
    if not value or not isinstance(value, dict | list) or rng.random() < _HERE:
        return rng.choice(_ODD_VALUES)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        return [*value[:at], _replaced(value[at], rng), *value[at + 1 :]]
    name = rng.choice(list(value))
    if rng.random() < _HERE:
        return {key: each for key, each in value.items() if key != name}
    return {**value, name: _replaced(value[name], rng)}


def _changed(raw: bytes, changes: list[tuple[int, int, int]]) -> bytes:
    for place, how, byte in changes:
        at = place % (len(raw) + 1)
        kinds = (
            raw[:at] + bytes([byte]) + raw[at + 1 :],
            raw[:at] + raw[at + 1 + byte % 8 :],
            raw[:at] + bytes([byte]) + raw[at:],
            raw[:at] + raw[max(0, at - 16) :],
            raw[:at],
        )
        raw = kinds[how]
    return raw
