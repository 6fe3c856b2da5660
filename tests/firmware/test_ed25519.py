"""Ed25519 of the firmware: known answers of RFC 8032, another implementation, and what a lax check accepts."""

import json
import random
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.firmware.calls import calls
from tests.firmware.micropython import SCRIPTS, command, environment

SEED = 8032
FIELD, ORDER = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
KNOWN = [  # RFC 8032, section 7.1: public key, message, signature of TEST 1, 2, 3 and SHA(abc)
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe"
            "24655141438e7a100b"
        ),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302a"
            "eeb00d291612bb0c00"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed2"
            "8dc027beceea1ec40a"
        ),
    ),
    (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        (
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce8"
            "0e2a9ac94fa54ca49f"
        ),
        (
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac1"
            "7ad9bef1177331a704"
        ),
    ),
]


Check = tuple[bytes, bytes, bytes]


def verified(checks: list[Check]) -> list[bool]:
    """What the firmware says about each public key, message and signature."""
    return calls(*(("verify", *each) for each in checks))


def known() -> list[Check]:
    """The known answers as bytes."""
    return [(bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signed)) for public, message, signed in KNOWN]


def test_known_signatures_verify() -> None:
    """The signatures of the standard are good."""
    assert verified(known()) == [True] * len(KNOWN)


def test_any_modified_part_is_refused() -> None:
    """One bit of the key, of the message, of R or of S: the signature is bad."""
    rng = random.Random(SEED)  # noqa: S311  # a test has to be repeatable
    spoilt = []
    for check in known()[1:]:
        for part, (first, last) in ((0, (0, 32)), (1, (0, 1)), (2, (0, 32)), (2, (32, 64))):
            at, changed = rng.randrange(first, last), list(check)
            changed[part] = flipped(check[part], at, rng.randrange(8))
            spoilt.append((changed[0], changed[1], changed[2]))
    assert verified(spoilt) == [False] * len(spoilt), f"seed {SEED}"


def flipped(raw: bytes, at: int, bit: int) -> bytes:
    """The bytes with one bit changed."""
    return raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]


def test_signatures_of_another_implementation_verify() -> None:
    """Keys and messages of chance, around the block length of SHA-512; each signature is good for its own key alone."""
    rng = random.Random(SEED)  # noqa: S311  # a test has to be repeatable
    keys = [Ed25519PrivateKey.from_private_bytes(rng.randbytes(32)) for _ in range(20)]
    publics = [key.public_key().public_bytes_raw() for key in keys]
    messages = [rng.randbytes(rng.choice([0, 1, 47, 48, 63, 64, 65, 200])) for _ in keys]
    signatures = [key.sign(message) for key, message in zip(keys, messages, strict=True)]
    assert verified(list(zip(publics, messages, signatures, strict=True))) == [True] * 20, f"seed {SEED}"
    others = publics[1:] + publics[:1]
    assert verified(list(zip(others, messages, signatures, strict=True))) == [False] * 20, f"seed {SEED}"


def test_a_non_canonical_s_is_refused() -> None:
    """S + L verifies where S < L is not checked (RFC 8032, 5.1.7)."""
    public, message, signature = known()[1]
    s = int.from_bytes(signature[32:], "little")
    higher = [signature[:32] + (s + times * ORDER).to_bytes(32, "little") for times in (1, 2, 7)]
    assert verified([(public, message, each) for each in higher]) == [False] * 3


def test_keys_of_small_order_are_refused() -> None:
    """With such a key, R = neutral and S = 0 are good for one message in eight at least, for whatever was signed."""
    neutral = (1).to_bytes(32, "little")
    eighth = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
    numbers = [0, 1, FIELD - 1, eighth, FIELD - eighth, FIELD, FIELD + 1]
    keys = [(each | sign << 255).to_bytes(32, "little") for each in numbers for sign in (0, 1)]
    checks = [(key, bytes([at]), neutral + bytes(32)) for key in keys for at in range(16)]
    assert verified(checks) == [False] * len(checks)


def test_other_lengths_are_refused() -> None:
    """A key of 31 bytes, a signature of 63 or 65: bad, and no exception."""
    public, message, signature = known()[1]
    odd = [(public[:31], message, signature), (public, message, signature[:63]), (public, message, signature + b"x")]
    assert verified(odd) == [False] * 3


def test_the_time_of_one_check_is_measured() -> None:
    """A signature over a grant of 400 bytes; the figure goes into the output of `pytest -s`."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    message = b"g" * 400
    check = ("verify_ms", key.public_key().public_bytes_raw(), message, key.sign(message))
    times = calls(check, check, check)
    print(f"one Ed25519 check on the Unix port: {min(times):.1f} ms")  # noqa: T201  # it is what this test is for
    assert min(times) > 0


def test_a_native_check_takes_over_and_is_no_laxer(tmp_path: Path) -> None:
    """A module `monocypher` is asked about signatures, but never about what a lax check accepts."""
    (tmp_path / "monocypher.py").write_text(
        "def ed25519_check(signature, public, message):\n    return message == b'good'\n"
    )
    key, low, high = known()[1][0], bytes(64), bytes(32) + ORDER.to_bytes(32, "little")
    wanted = [(key, b"good", low), (key, b"bad", low), (key, b"good", high), (bytes(32), b"good", low)]
    lines = "".join(json.dumps(["verify", [f"hex:{part.hex()}" for part in each]]) + "\n" for each in wanted)
    path = f"{tmp_path}:{environment()['MICROPYPATH']}"
    done = subprocess.run(
        command(SCRIPTS / "calls.py"),
        input=lines,
        capture_output=True,
        text=True,
        env=environment(MICROPYPATH=path),
        check=True,
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[True], [False], [False], [False]]
