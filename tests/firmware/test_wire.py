"""Wire format of the firmware: strict JSON, canonical JSON, base64url and times, beside other implementations."""

import base64
import hashlib
import hmac
import json
import random
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import rfc8785

from device_sim.canonical import canonical
from device_sim.strict_json import read_json
from device_sim.wire import milliseconds
from tests.firmware.calls import REFUSED, call, calls
from tests.support.vectors import VECTORS
from tests.support.wrong_addresses import WRONG_ADDRESSES

SEED = 8785
EPOCH = datetime.fromtimestamp(0, UTC)
GOOD_JSON = [
    b"{}",
    b"[]",
    b'""',
    b"0",
    b"-0",
    b" [ 1 , -2 , true , false , null ] ",
    b'{"a":{"b":[{}]},"c":"d"}',
    '"ü\U0001f600"'.encode(),
    rb'"\"\\\/\b\f\n\r\t\u00fc\ud83d\ude00"',
    b"[" * 16 + b"]" * 16,
    b"9007199254740993",
]
BAD_JSON = [
    b"",
    b" ",
    b"{",
    b"[1",
    b"[1,]",
    b"[,1]",
    b'{"a":1,}',
    b'{"a" 1}',
    b"{a:1}",
    b"{1:1}",
    b"[1 2]",
    b"{} {}",
    b"01",
    b"-",
    b"+1",
    b"1.",
    b".5",
    b"1e",
    b"1e+",
    b"0x10",
    b"1_000",
    b"NaN",
    b"Infinity",
    b"True",
    b"nul",
    b"'a'",
    b'"a',
    b'"\n"',
    b'"\x00"',
    rb'"\x41"',
    rb'"\u12"',
    rb'"\u 041"',
    rb'"\u+041"',
    rb'"\ud800"',
    rb'"\ude00\ud83d"',
    rb'"\ud83d\u0041"',
    b'"\xff"',
    b'"\xc0\x80"',
    b'"\xed\xa0\x80"',
    b'"\xf4\x90\x80\x80"',
    b'"\xe2\x82"',
    b"\xef\xbb\xbf{}",
    '{"a":1}'.encode("utf-16"),
    b'{"a":1,"a":1}',
    b'{"a":1,"\\u0061":2}',
    b'[{"b":{"a":1,"a":1}}]',
    b"[" * 17 + b"]" * 17,
    b"[" * 4000,
    b'"' + b"x" * 20_000 + b'"',
    b"\x00",
    b"1\xc2\xa0",
]


def test_valid_json_is_parsed() -> None:
    """The values are those of another reader."""
    assert calls(*(("read_json", each) for each in GOOD_JSON)) == [json.loads(each) for each in GOOD_JSON]


def test_invalid_json_is_refused() -> None:
    """Each has no meaning, or two; none ends in anything but ValueError."""
    answers = calls(*(("read_json", each) for each in BAD_JSON), heap="512k")
    assert [each for each, answer in zip(BAD_JSON, answers, strict=True) if answer != REFUSED] == []


def test_canonical_json_equals_that_of_another_library() -> None:
    """Values of chance: names that sort by UTF-16, escapes, integers, and fractions of up to 15 digits."""
    rng = random.Random(SEED)  # noqa: S311  # a test has to be repeatable
    values = [[a_value(rng, 4)] for _ in range(300)]
    texts = calls(
        *(("canonical_text", json.dumps(value, ensure_ascii=rng.random() < 0.5).encode()) for value in values)
    )
    assert texts == [rfc8785.dumps(value) for value in values], f"seed {SEED}"


def a_value(rng: random.Random, depth: int) -> Any:
    """Some JSON value."""
    kind = rng.randrange(8 if depth else 5)
    if kind == 0:
        return rng.choice([None, True, False, 0, -1, 2**53 - 1, -(2**53) + 1])
    if kind == 1:
        return rng.randrange(-(10**6), 10**6)
    if kind == 2:
        return float(f"{rng.choice('-+')}{rng.randrange(10 ** rng.randrange(1, 16))}e{rng.randrange(-40, 40)}")
    if kind < 5:
        return a_text(rng)
    if kind == 5:
        return [a_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {a_text(rng): a_value(rng, depth - 1) for _ in range(rng.randrange(5))}


def a_text(rng: random.Random) -> str:
    """Some text with what has to be escaped, and characters of one to four bytes."""
    letters = 'aZ/"\\\b\f\n\r\t\x00\x1f\x7f\x80éß\u07ff\u20ac\ud7ff\ue000\ufb33\uffff\U00010000\U0001f600\U0010ffff'
    return "".join(rng.choice(letters) for _ in range(rng.randrange(6)))


@pytest.mark.parametrize(
    "text", [b"9007199254740992", b"-9007199254740992", b"1" * 40, b"1e400", b"0.1234567890123456"]
)
def test_numbers_without_a_canonical_form_are_refused(text: bytes) -> None:
    """Integers beyond 2^53 - 1; and fractions of more than 15 digits, which a small board cannot shorten."""
    assert call("canonical_text", text) == REFUSED


def test_base64url_round_trips() -> None:
    """Each length there and back; padding, other alphabets, blanks and unused bits are refused."""
    raws = [bytes(range(250, 250 + min(length, 6))) + bytes(length) for length in range(7)]
    texts = [base64.urlsafe_b64encode(raw).rstrip(b"=").decode() for raw in raws]
    assert calls(*(("base64url", raw) for raw in raws)) == texts
    assert calls(*(("unbase64url", text) for text in texts)) == raws
    odd = ["AA==", "A", "AAAAA", "+/8", "AB", "AA A", "AA\n", "Ä", "A-_=", "AA.A", "=", "A=A="]
    assert calls(*(("unbase64url", text) for text in odd)) == [REFUSED] * len(odd)


def test_hmac_matches_for_keys_of_every_length() -> None:
    """A key longer than a block of SHA-256 is hashed first (RFC 2104)."""
    keys = [bytes(range(length)) for length in (0, 1, 32, 63, 64, 65, 100)]
    macs = calls(*(("hmac_sha256", key, b"message") for key in keys))
    assert macs == [hmac.new(key, b"message", hashlib.sha256).digest() for key in keys]


def test_times_are_written() -> None:
    """Every month of 1970 to 2470 with its last day, leap years included."""
    firsts = [datetime(year, month, 1, tzinfo=UTC) for year in range(1970, 2471, 3) for month in range(1, 13)]
    moments = [each - timedelta(milliseconds=1) for each in firsts[1:]] + firsts
    numbers = [(each - EPOCH) // timedelta(milliseconds=1) for each in moments]
    texts = [f"{each:%Y-%m-%dT%H:%M:%S}.{each.microsecond // 1000:03d}Z" for each in moments]
    assert calls(*(("rfc3339", number) for number in numbers)) == texts


@pytest.mark.parametrize("form", ["2026-11-01T12:00:00Z", "2026-11-01T12:00:00.5Z", "2026-11-01T12:00:00.500999Z"])
def test_an_expiry_has_the_form_of_other_times(form: str) -> None:
    """The fraction is cut to milliseconds, as the simulator does, so that times compare as text."""
    assert call("expiry", form) == call("rfc3339", milliseconds(form))


@pytest.mark.parametrize("form", ["", "Z", "2026-11-01", "2026-11-01T12:00:00", "2026-11-01T13:00:00+01:00"])
def test_an_expiry_of_another_form_is_refused(form: str) -> None:
    """Times of the contract end in Z."""
    assert call("expiry", form) == REFUSED


BIND = {
    "id": VECTORS["device_id"],
    "binding_generation": 3,
    "device_token": VECTORS["device_token"],
    "grant_key": VECTORS["grant_key"],
    "mqtt": {
        "host": "h",
        "port": 8883,
        "tls": True,
        "topics": {"heartbeat": f"p/devices/{VECTORS['device_id']}/heartbeat"},
    },
    "end_user_id": "eu_1",
    "status": "bound",
}


def test_a_bind_answer_is_reduced_to_the_needed_fields() -> None:
    """What the device needs stays, with the prefix of its topics; `http` stays where a companion app adds it."""
    wanted = {
        "device_id": VECTORS["device_id"],
        "binding_generation": 3,
        "device_token": VECTORS["device_token"],
        "grant_key": VECTORS["grant_key"],
        "mqtt": {"host": "h", "port": 8883, "tls": True, "topic_prefix": "p/"},
        "end_user_id": "eu_1",
    }
    assert call("binding_from_answer", BIND) == wanted
    assert call("binding_from_answer", {**BIND, "http": "https://g"}) == {**wanted, "http": "https://g"}


@pytest.mark.parametrize("name", ["id", "binding_generation", "device_token", "grant_key", "mqtt"])
def test_an_incomplete_bind_answer_is_refused(name: str) -> None:
    """No half binding is made of it."""
    assert call("binding_from_answer", {**BIND, name: None}) == REFUSED
    assert call("binding_from_answer", {each: value for each, value in BIND.items() if each != name}) == REFUSED


def test_a_refresh_names_the_token_and_its_broker() -> None:
    """The broker of the binding counts where the answer names none; an answer that names half of one is refused."""
    now = {"host": "h", "port": 8883, "tls": True, "topic_prefix": "p/"}
    moved = {"host": "b.example", "port": 1883, "tls": False}
    told = {"device_token": "dtok_2", "mqtt": {**moved, "password": "derived"}}
    assert call("token_from_answer", told, now) == ["dtok_2", {**moved, "topic_prefix": "p/"}]
    for mqtt in ({"password": "derived"}, {}, None, "b.example", [1]):
        assert call("token_from_answer", {"device_token": "dtok_2", "mqtt": mqtt}, now) == ["dtok_2", now], mqtt
    assert call("token_from_answer", {"device_token": "dtok_2"}, now) == ["dtok_2", now]
    for bad in ({"host": "b.example"}, *({**moved, **wrong} for wrong in WRONG_ADDRESSES)):
        assert call("token_from_answer", {"device_token": "dtok_2", "mqtt": bad}, now) == REFUSED, bad
    answers: list[Any] = [[], "dtok_2", {}, {"device_token": 2}]
    for answer in answers:
        assert call("token_from_answer", answer, now) == REFUSED, answer


def test_mangled_json_is_read_as_the_simulator_reads_it() -> None:
    """Texts with bytes removed, repeated, swapped and replaced: both refuse the same ones, and read the same values."""
    rng = random.Random(SEED)  # noqa: S311  # a test has to be repeatable
    texts = [mangled(rng, json.dumps(a_value(rng, 3), ensure_ascii=rng.random() < 0.5).encode()) for _ in range(1500)]
    read = [as_the_simulator(text) for text in texts]
    assert 200 < read.count(REFUSED) < 1300
    answers = calls(*(("canonical_text", text) for text in texts))
    different = [
        (text, here, there)
        for text, here, there in zip(texts, answers, read, strict=True)
        if here != there and not (here == REFUSED and re.search(rb"[.eE\d]{16}|e-?\d{3}", text))
    ]
    assert different == [], f"seed {SEED}"


def mangled(rng: random.Random, text: bytes) -> bytes:
    """The text with up to two faults."""
    for _ in range(rng.randrange(3)):
        at, other = rng.randrange(len(text) + 1), rng.choice(b'{}[],:"\\0159.eE+-tfnu \n\x00\x7f\x80\xc3\xed\xf0\xff')
        text = rng.choice(
            [text[:at] + text[at + 1 :], text[:at] + bytes([other]) + text[at:], text[:at] + text[at - 3 :]]
        )
    return text


def as_the_simulator(text: bytes) -> Any:
    """What the simulator reads, as canonical JSON, or `REFUSED`."""
    try:
        return canonical(read_json(text)).encode()
    except ValueError:
        return REFUSED
